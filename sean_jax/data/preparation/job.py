"""What is to be prepared, and the digest that names it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from sean_jax.data.dataset import Dataset
from sean_jax.data.preparation.listing import Example, Problem
from sean_jax.data.preparation.overrides import Overrides

# Part of the digest: counts up when the same files are to give other pixels.
FORMAT = 5
LABEL_MODES = ("none", "resized", "original")
# Bytes of a part before compression, which bounds what TFDS keeps in memory.
PART_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be prepared, from which files, under which name.

    ``files_digest`` is that of :func:`digest_of_files`; ``missing`` are files without their counterparts.
    """

    dataset: Dataset
    split: str
    source_dir: Path
    height: int
    width: int
    labels: str
    examples: tuple[Example, ...]
    missing: tuple[Problem, ...]
    files_digest: str
    overrides: Overrides

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with anything that changes what is prepared."""
        return _digest([FORMAT, self.files_digest, self.height, self.width, self.labels, *self.overrides])

    @property
    def part_length(self) -> int:
        """Examples in a part; label files at their own size are taken to have four times the image's pixels."""
        pixels = self.height * self.width
        label_pixels = {"none": 0, "resized": pixels, "original": 4 * pixels}[self.labels]
        return max(1, PART_BYTES // (3 * pixels + label_pixels))


def digest_of_files(dataset: Dataset, split: str, examples: list[Example], missing: list[Problem]) -> str:
    """Twelve hexadecimal digits that change with the description or any file's name, length or time."""
    files = []
    for example in examples:
        files.append((example.name, *_stamp(example.image), *(_stamp(example.label) if example.label else ())))
    return _digest([dataset.identity(), split, files, [problem.file for problem in missing]])


def _digest(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a link to nowhere: reading it will say what is wrong
        return -1, -1
    return status.st_size, status.st_mtime_ns
