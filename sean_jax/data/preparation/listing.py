"""Lists a split's images, each with its label, in a fixed order."""

import dataclasses
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sean_jax.data.dataset import Dataset, Split
from sean_jax.data.folders import is_foreign
from sean_jax.data.image_files import SUFFIXES
from sean_jax.data.patterns import composed, fill, glob_pattern, in_utf8, matcher, other_extensions
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
        self.facts = facts or {"label_encoding": None, "pairs": 0, "sizes": {}, "pixels": {}, "notes": []}
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
    counterparts = _Labels(root, patterns, images) if labels else None
    if counterparts is not None and not counterparts:
        raise _without_labels(root, patterns, len(images), flag)
    examples, problems = [], []
    named: dict[tuple[str, ...], str] = {}
    for name, texts in images.items():
        label = counterparts.of(texts) if counterparts else None
        twin = named.setdefault(composed(texts), name)
        if not _is_utf8(name):
            problems.append(Problem(str(root / name), "its name is not valid UTF-8; rename it"))
        elif twin != name:
            message = f"its name is that of {twin} but for case or Unicode composition; leave one of them out"
            problems.append(Problem(str(root / name), message))
        elif isinstance(label, str):
            problems.append(Problem(str(root / name), label))
        else:
            examples.append(Example(in_utf8(name), root / name, label))
    if counterparts:
        for name in counterparts.without_image(named.keys(), dataset):
            problems.append(Problem(str(root / name), "its image does not exist"))
    return sorted(examples, key=lambda example: example.name), sorted(problems, key=lambda problem: problem.file)


def _is_utf8(name: str) -> bool:
    try:
        in_utf8(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def _find(root: Path, pattern: str) -> dict[str, tuple[str, ...]]:
    """Files by path relative to ``root`` (or absolute, as the pattern is), with what the wildcards stand for."""
    expression = matcher(pattern)
    absolute = pattern.startswith("/")
    asked = set(pattern.split("/"))
    found = {}
    for file in Path("/").glob(glob_pattern(pattern)[1:]) if absolute else root.glob(glob_pattern(pattern)):
        name = file.as_posix() if absolute else file.relative_to(root).as_posix()
        match = expression.fullmatch(name)
        foreign = any(is_foreign(part) and part not in asked for part in name.split("/"))
        if match is not None and not foreign and not file.is_dir():
            found[name] = match.groups()
    return found


# What follows the name of an image in names of further label files that known programs write beside the original.
_COPIES = re.compile(
    r"_(gtFine_|gtCoarse_)?(label(Train)?Ids|instance(Train)?Ids|trainIds|labelColors?|colors?|polygons|panoptic)", re.I
)


class _Labels:
    """The label files of a split, by what the wildcards of their pattern stand for."""

    def __init__(self, root: Path, patterns: Split, images: dict[str, tuple[str, ...]]):
        self._root, self._patterns = root, patterns
        assert patterns.labels is not None
        wanted = {composed(texts) for texts in images.values()}
        self.pattern, self._by_texts = patterns.labels, _by_texts(root, patterns.labels)
        if patterns.train_id_labels and not wanted & self._by_texts.keys():
            copies = _by_texts(root, patterns.train_id_labels)
            if wanted & copies.keys():
                self.pattern, self._by_texts = patterns.train_id_labels, copies

    def __len__(self) -> int:
        return len(self._by_texts)

    def of(self, texts: tuple[str, ...]) -> Path | str:
        """The label of an image, or what is wrong with it."""
        exact = fill(self.pattern, texts)
        names = self._by_texts.get(composed(texts), [])
        if exact in names or len(names) == 1:
            label = self._root / (exact if exact in names else names[0])
            return label if label.is_file() else f"its label {label} does not exist"
        if names:
            return f"two labels have its name: {' and '.join(sorted(names))}; leave one of them out"
        return f"its label {self._root / exact} does not exist"

    def without_image(self, images: Collection[tuple[str, ...]], dataset: Dataset) -> list[str]:
        """Labels that belong to no image of any split and are no known copies beside others."""
        left = {texts: names for texts, names in self._by_texts.items() if texts not in images}
        left = {texts: names for texts, names in left.items() if not self._is_copy(texts)}
        if left:  # splits may keep their labels in one folder
            for patterns in dataset.splits.values():
                if self.pattern in (patterns.labels, patterns.train_id_labels):
                    for texts in _find(self._root, patterns.images).values():
                        left.pop(composed(texts), None)
        return [name for names in left.values() for name in names]

    def _is_copy(self, texts: tuple[str, ...]) -> bool:
        """Whether it is a copy, such as DAFormer's ``*_labelTrainIds.png``, of a label that is there."""
        *before, last = texts
        match = next((m for m in _COPIES.finditer(last) if m.end() == len(last)), None)
        return match is not None and (*before, last[: match.start()]) in self._by_texts


def _by_texts(root: Path, pattern: str) -> dict[tuple[str, ...], list[str]]:
    """The files of a pattern by what its wildcards stand for, whatever the case of the extension."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, texts in _find(root, pattern).items():
        names.setdefault(composed(texts), []).append(name)
    return names


def _without_labels(root: Path, patterns: Split, count: int, flag: str) -> "BadFilesError":
    way = (
        "--eval_split=none trains without scores"
        if flag == "--target_dir"
        else "a target of adaptation needs none: `prepare --labels=none`"
    )
    labels = root / (patterns.labels or "")
    return BadFilesError(
        [Problem(str(labels), f"not one of {count} images has such a label; add the labels; {way}")], _SEE
    )


def list_examples(
    dataset: Dataset, split: str, source_dir: str | Path, labels: bool, flag: str = "--source_dir"
) -> list[Example]:
    """As :func:`find_pairs`, but an image or label without the other is an error (BadFilesError, a UserError)."""
    examples, problems = find_pairs(dataset, split, source_dir, labels, flag)
    if problems:
        raise BadFilesError(problems, remedy(split, "resized" if labels else "none"))
    return examples


def with_other_extensions(dataset: Dataset, split: str, root: Path) -> list[str]:
    """Images whose names fit the pattern of a split but for the extension, and that no pattern of the set fits."""
    pattern = other_extensions(dataset.split(split).images)
    if pattern is None:
        return []
    patterns = [p for s in dataset.splits.values() for p in (s.images, s.labels, s.train_id_labels) if p]
    known = [matcher(pattern) for pattern in patterns]
    found = (name for name in _find(root, pattern) if name.lower().endswith(SUFFIXES))
    return sorted(name for name in found if not any(expression.fullmatch(name) for expression in known))


_SEE = 'see "Data" in BUILD.md'


def remedy(split: str, labels: str, bad_files: bool = True) -> str:
    """What can be done about bad files of a split prepared in a label mode; the command holds for these two alone.

    If no single file is bad (``bad_files``), leaving out some does not help.
    """
    if not bad_files:
        return _SEE
    return f"repair these files, or leave them out by `prepare --split={split} --labels={labels} --skip_bad`; {_SEE}"


def _expected(dataset: Dataset, split: str) -> str:
    patterns = dataset.splits[split]
    labels = f" with labels {patterns.labels}" if patterns.labels else ""
    return f"the {split} images of {dataset.name} as {patterns.images}{labels}"
