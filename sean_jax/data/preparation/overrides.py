"""What a person settled about files that do not speak for themselves; it holds until one of the files changes.

``prepare --label_encoding`` and ``--skip_bad`` are said once, and ``train`` and ``evaluate`` go by it, at any size.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple


class Decisions(NamedTuple):
    """``label_encoding``: a key of LABEL_ENCODINGS, or None to find out; ``skip_bad``: faulty pairs are left out."""

    label_encoding: str | None = None
    skip_bad: bool = False


def _file(data_dir: Path, digest: str) -> Path:
    return data_dir / "decisions" / f"{digest}.json"


def recall(data_dir: Path, digest: str) -> Decisions:
    """What was settled about the files of that digest."""
    try:
        return Decisions(**json.loads(_file(data_dir, digest).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Decisions()


def settle(data_dir: Path, digest: str, decisions: Decisions) -> None:
    """Remembers it."""
    file = _file(data_dir, digest)
    if decisions == recall(data_dir, digest):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(decisions._asdict()) + "\n", encoding="utf-8")
    partial.replace(file)
