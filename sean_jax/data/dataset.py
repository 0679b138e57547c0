"""The description of a data set: where its images and labels lie and what its label ids mean."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from sean_jax.data.label_spaces import CITYSCAPES_CLASSES, IGNORE_LABEL, LABEL_SPACES, Color, LabelSpace
from sean_jax.errors import UserError

# How label files hold their classes.
LABEL_ENCODINGS = {
    "ids": "one channel (grey or palette) whose values are the data set's own ids",
    "train_ids": "one channel whose values are Cityscapes' trainIds: 0-18, and 255 for ignored pixels",
    "rgb": "8-bit RGB or a palette of colours, one for each class",
    "red16": "16-bit RGB PNG with the id in the red channel, as SYNTHIA's",
}
# Cityscapes' trainIds 0-18 in order; a copy of a data set that holds them means these classes, 255 none.
TRAIN_IDS: dict[int, str] = dict(enumerate(CITYSCAPES_CLASSES))


@dataclasses.dataclass(frozen=True)
class Split:
    """Where a split's files lie, as patterns relative to the data set's folder.

    ``*`` and ``?`` stand for text within a file or folder name. The label of an image is the file whose path
    results from putting what the image pattern's wildcards stand for into the label pattern's, in order.

    Attributes:
      images: pattern of the images.
      labels: pattern of the labels, with as many wildcards; None for a split without labels. May be absolute.
      train_id_labels: pattern of labels that hold trainIds, taken where not one file of ``labels`` is there.
      frames: of the images found, in the order of their names, those from the first number (counted from 0) up to
        but not including the second; None for all.
    """

    images: str
    labels: str | None = None
    train_id_labels: str | None = None
    frames: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set's description.

    Attributes:
      name: lower-case letters, digits and underscores.
      splits: its splits by name.
      label_ids: raw label id (0-255) → class name, for ids that mean a class; several ids may mean one.
      ignored_ids: raw ids that may occur and are ignored. Any other id is an error of the file.
      label_encodings: what its label files and common copies of them hold: keys of :data:`LABEL_ENCODINGS`, as
        published first. With more than one, preparation finds out which.
      label_space: the space its labels are used in unless another one is asked for.
      evaluation_split: the labelled split that scores are computed on by default; None: no split has labels.
      selection_split: the labelled split on which checkpoints may be chosen ("oracle selection"); None: none.
      label_colors: colour → raw id, for labels of encoding ``rgb``.
      absent_classes: classes that have ids and yet not one pixel, so that nothing can be learned of them.
      folder: where its files are unless a flag names another folder; None: a flag must.
      generated: whether it is a look of the bundled data set, generated on first use, and not files somebody has.
    """

    name: str
    splits: dict[str, Split]
    label_ids: dict[int, str]
    ignored_ids: tuple[int, ...]
    label_encodings: tuple[str, ...]
    label_space: LabelSpace
    evaluation_split: str | None
    selection_split: str | None = None
    label_colors: tuple[tuple[Color, int], ...] = ()
    absent_classes: tuple[str, ...] = ()
    folder: str | None = None
    generated: bool = False

    def split(self, name: str) -> Split:
        """The split of that name; a UserError lists the valid ones."""
        if name not in self.splits:
            raise UserError(f"data set {self.name} has no split {name!r}; expected one of {', '.join(self.splits)}")
        return self.splits[name]

    def identity(self) -> dict[str, Any]:
        """What prepared sets and runs are recognised by: all facts but those that change no pixel."""
        facts = dataclasses.asdict(self)
        del facts["absent_classes"], facts["folder"]
        return facts


def label_map(dataset: Dataset, space: LabelSpace, *, complete: bool = True) -> np.ndarray:
    """The table that turns a data set's raw label ids into class indices of a label space.

    Args:
      dataset: where the ids come from.
      space: the classes wanted; a class of the data set goes to the class of that name or that includes it.
      complete: whether every class of the space must have an id in the data set.

    Returns:
      uint8 [256]: raw id → class index, or IGNORE_LABEL for ids that mean no class of the space.

    Raises:
      UserError: ``complete``, and the data set has no id for some class of the space; it names them.
    """
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for label_id, class_name in dataset.label_ids.items():
        table[label_id] = space.index_of(class_name)
    if complete:
        _check_supplied(dataset, space, dataset.label_ids.values())
    return table


def source_label_map(dataset: Dataset, space: LabelSpace) -> np.ndarray:
    """As :func:`label_map`, for a data set to learn from: every class of the space must occur in its images.

    Raises:
      UserError: it lacks a class of the space, by its ids or its ``absent_classes``; the message names all of them.
    """
    table = label_map(dataset, space)
    _check_supplied(dataset, space, set(dataset.label_ids.values()) - set(dataset.absent_classes))
    return table


def _check_supplied(dataset: Dataset, space: LabelSpace, class_names: Iterable[str]) -> None:
    supplied = {space.index_of(name) for name in class_names}
    missing = [name for index, name in enumerate(space.classes) if index not in supplied]
    if missing:
        own = dataset.label_space
        built_in = own in LABEL_SPACES.values() and own != space and dataset.label_ids
        choose = f"use --classes={own.name}" if built_in else "choose other --classes"
        raise UserError(
            f"data set {dataset.name} has no {', '.join(missing)}, which label space {space.name} asks for; "
            f"{choose} or merge classes in a TOML file"
        )
