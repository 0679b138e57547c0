"""Lists a split's images, each with its label, in a fixed order."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from sean_jax.data.dataset import Dataset, Split
from sean_jax.data.patterns import fill, matcher
from sean_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Example:
    """An image and its label.

    Attributes:
      name: the image's path relative to the data set's folder, with ``/``.
      image: the image file.
      label: the label file, or None where no labels are wanted or given.
    """

    name: str
    image: Path
    label: Path | None


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with one file, in words that say what to do about it."""

    file: str
    message: str

    def __post_init__(self) -> None:
        # Bytes of a name that are not UTF-8 could be neither printed nor put into a report.
        object.__setattr__(self, "file", os.fsencode(self.file).decode(errors="backslashreplace"))

    def to_dict(self) -> dict[str, str]:
        """As reports hold it."""
        return {"file": self.file, "fault": self.message}

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


class BadFilesError(UserError):
    """Files of a data set cannot be used.

    Attributes:
      problems: one for each bad file, sorted; the message names the first few.
      facts: what a report says of the other files.
    """

    def __init__(self, problems: list[Problem], remedy: str, facts: dict[str, Any] | None = None):
        self.problems = sorted(problems, key=lambda problem: problem.file)
        self.facts = facts or {"label_encoding": None, "pairs": 0, "sizes": {}, "pixels": {}}
        shown = "; ".join(str(problem) for problem in self.problems[:3])
        more = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        super().__init__(f"{shown}{more}; {remedy}")


def find_pairs(
    dataset: Dataset, split: str, source_dir: str | Path, labels: bool, flag: str = "--source_dir"
) -> tuple[list[Example], list[Problem]]:
    """All images of a split with their labels, sorted by name, and a problem for each of either without the other.

    Args:
      dataset: the description.
      split: one of its splits.
      source_dir: the data set's folder.
      labels: whether labels are wanted; if not, no label's path is formed or looked at.
      flag: the flag that gave ``source_dir``, for messages.

    Raises:
      UserError: no such folder or split, no image in it, or labels wanted of a split that has none.
    """
    patterns = dataset.split(split)
    if labels and patterns.labels is None:
        labelled = [name for name, other in dataset.splits.items() if other.labels] or ["none"]
        raise UserError(f"split {split!r} of {dataset.name} has no labels; splits with labels: {', '.join(labelled)}")
    root = Path(source_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"{flag}={source_dir} is not a folder; expected the data set {dataset.name}; {_SEE}")
    images = _find(root, patterns.images)
    if not images:
        raise UserError(f"{flag}={source_dir} has no {patterns.images}; expected {_expected(dataset, split)}; {_SEE}")
    if patterns.frames:
        first, end = patterns.frames
        if end > len(images):
            raise UserError(
                f"{flag}={source_dir} has {len(images)} images {patterns.images}; expected at least {end}, "
                f"since split {split} of {dataset.name} is frames {first} to {end - 1}"
            )
        images = dict(sorted(images.items())[first:end])
    pattern = _label_pattern(root, patterns, images) if labels else None
    examples, problems, wanted = [], [], set()
    for name, texts in images.items():
        label = root / fill(pattern, texts) if pattern else None
        if not _is_utf8(name):
            problems.append(Problem(str(root / name), "its name is not valid UTF-8; rename it"))
        elif label is not None and not label.is_file():
            problems.append(Problem(str(root / name), f"its label {label} does not exist"))
        else:
            examples.append(Example(name, root / name, label))
        wanted.add(label)
    if pattern:
        for name in _find(root, pattern):
            if root / name not in wanted and not _has_image(dataset, root, name):
                problems.append(Problem(str(root / name), "its image does not exist"))
    return sorted(examples, key=lambda example: example.name), sorted(problems, key=lambda problem: problem.file)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find(root: Path, pattern: str) -> dict[str, tuple[str, ...]]:
    """Files by path relative to ``root`` (or absolute, as the pattern is), with what the wildcards stand for."""
    expression = matcher(pattern)
    absolute = pattern.startswith("/")
    found = {}
    globbed = pattern.replace("[", "[[]")  # to glob, brackets stand for a set of characters
    for file in Path("/").glob(globbed[1:]) if absolute else root.glob(globbed):
        name = file.as_posix() if absolute else file.relative_to(root).as_posix()
        match = expression.fullmatch(name)
        # Files with a leading dot are what other systems leave behind in copied folders, not images.
        if match is not None and not file.name.startswith("."):
            found[name] = match.groups()
    return found


def _label_pattern(root: Path, patterns: Split, images: dict[str, tuple[str, ...]]) -> str | None:
    """The pattern of the labels, or that of copies in trainIds if only those are there."""
    own, copies = patterns.labels, patterns.train_id_labels

    def any_there(pattern: str) -> bool:
        return any((root / fill(pattern, texts)).is_file() for texts in images.values())

    return copies if own and copies and not any_there(own) and any_there(copies) else own


def _has_image(dataset: Dataset, root: Path, label: str) -> bool:
    """Whether a label belongs to an image of any split: splits may keep their labels in one folder."""
    for patterns in dataset.splits.values():
        for pattern in (patterns.labels, patterns.train_id_labels):
            match = matcher(pattern).fullmatch(label) if pattern else None
            if match and (root / fill(patterns.images, match.groups())).is_file():
                return True
    return False


def list_examples(
    dataset: Dataset, split: str, source_dir: str | Path, labels: bool, flag: str = "--source_dir"
) -> list[Example]:
    """As :func:`find_pairs`, but an image or label without the other is an error (BadFilesError, a UserError)."""
    examples, problems = find_pairs(dataset, split, source_dir, labels, flag)
    if problems:
        raise BadFilesError(problems, remedy(split, "resized" if labels else "none"))
    return examples


_SEE = 'see "Data" in BUILD.md'


def remedy(split: str, labels: str) -> str:
    """What can be done about bad files of a split prepared in a label mode; the command holds for these two alone."""
    command = f"prepare --split={split} --labels={labels} --skip_bad"
    return f"repair or remove these files, or leave them out by `{command}` of that data set; {_SEE}"


def _expected(dataset: Dataset, split: str) -> str:
    patterns = dataset.splits[split]
    labels = f" with labels {patterns.labels}" if patterns.labels else ""
    return f"the {split} images of {dataset.name} as {patterns.images}{labels}"
