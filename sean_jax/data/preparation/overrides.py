"""What a user settled about files that are ambiguous or bad; it holds until one of the files changes.

``prepare --label_encoding``, ``--label_orientation`` and ``--skip_bad`` are given once; ``train`` and ``evaluate``
follow them, at any size.
"""

import json
from pathlib import Path
from typing import NamedTuple

from sean_jax import atomic


class Overrides(NamedTuple):
    """What was settled.

    Attributes:
      label_encoding: a key of LABEL_ENCODINGS, or None to detect it.
      skip_bad: whether bad pairs are left out.
      label_orientation: ``shown`` or ``stored`` (see :func:`sean_jax.data.preparation.checking.align`), or None.
    """

    label_encoding: str | None = None
    skip_bad: bool = False
    label_orientation: str | None = None


def _file(data_dir: Path, digest: str) -> Path:
    return data_dir / "decisions" / f"{digest}.json"


def load(data_dir: Path, digest: str) -> Overrides:
    """The overrides for the files of that digest."""
    try:
        return Overrides(**json.loads(_file(data_dir, digest).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Overrides()


def save(data_dir: Path, digest: str, overrides: Overrides) -> None:
    """Stores them, unless they are stored already."""
    if overrides == load(data_dir, digest):
        return
    file = _file(data_dir, digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(file, json.dumps(overrides._asdict()) + "\n")
