"""What a data set is: where its images and labels lie, what its label ids mean, what it is scored on.

A built-in data set is one descriptor in :data:`DATASETS`; anybody's own is a TOML file with the same facts
(:mod:`sean_jax.data.descriptions`). Nothing here opens an image.
"""

import dataclasses

import numpy as np

from sean_jax.data.label_spaces import (
    CITYSCAPES_CLASSES,
    CITYSCAPES_COLORS,
    IGNORE_LABEL,
    LABEL_SPACES,
    Color,
    LabelSpace,
)
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
      ignored_ids: raw ids that may occur and count for nothing. Any other id is a fault of the file.
      label_encodings: what its label files and common copies of them hold: keys of :data:`LABEL_ENCODINGS`, as
        published first. With more than one, preparation finds out which.
      label_space: the space its labels are used in unless another one is asked for.
      evaluation_split: the labelled split that scores are computed on by default; None: no split has labels.
      selection_split: the labelled split on which checkpoints may be chosen ("oracle selection"); None: none.
      label_colors: colour → raw id, for labels of encoding ``rgb``.
      generated: whether it is a look of the embedded data set, drawn on first use, and not files somebody has.
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
    generated: bool = False

    def split(self, name: str) -> Split:
        """The split of that name; a UserError lists the valid ones."""
        if name not in self.splits:
            raise UserError(f"data set {self.name} has no split {name!r}; expected one of {', '.join(self.splits)}")
        return self.splits[name]


# Cityscapes' labelIds of the 19 classes, in the order of their trainIds; the others are valid and ignored, and so
# is -1 (licence plates), which an 8-bit file holds as 255. GTA-5 uses the same ids and, it is said, 34.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_IDS: dict[int, str] = dict(zip(_LABEL_IDS, CITYSCAPES_CLASSES, strict=True))
_CITYSCAPES_IGNORED = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)
# Colours of GTA-5's and Cityscapes' colour labels. What is ignored and not here is black, or has the colour of a
# class: polegroup that of pole, licence plate (and 34 of GTA-5) that of car, so a colour copy counts it as such.
_IGNORED_COLORS: dict[Color, int] = {
    **{(0, 0, 0): 0, (20, 20, 20): 4, (111, 74, 0): 5, (81, 0, 81): 6, (250, 170, 160): 9, (230, 150, 140): 10},
    **{(180, 165, 180): 14, (150, 100, 100): 15, (150, 120, 90): 16, (0, 0, 90): 29, (0, 0, 110): 30},
}
_CITYSCAPES_LABEL_COLORS = (
    *((CITYSCAPES_COLORS[name], label_id) for label_id, name in _CITYSCAPES_IDS.items()),
    *_IGNORED_COLORS.items(),
)
_SYNTHIA_IDS = {
    **{1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation", 7: "pole", 8: "car"},
    **{9: "traffic sign", 10: "person", 11: "bicycle", 12: "motorcycle", 15: "traffic light", 16: "terrain"},
    **{17: "rider", 18: "truck", 19: "bus", 20: "train", 21: "wall"},
}
_SYNTHIA_IGNORED = (0, 13, 14, 22)


def _cityscapes_split(split: str, city: str = "*", labelled: bool = True) -> Split:
    images, labels = f"leftImg8bit/{split}/{city}/*_leftImg8bit.png", f"gtFine/{split}/{city}/*_gtFine_label"
    return Split(images, f"{labels}Ids.png", f"{labels}TrainIds.png") if labelled else Split(images)


def _like_cityscapes(name: str, splits: dict[str, Split], **facts) -> Dataset:
    facts = {"ignored_ids": _CITYSCAPES_IGNORED, "evaluation_split": "train", "label_encodings": ("ids",), **facts}
    return Dataset(
        name=name,
        splits=splits,
        label_ids=_CITYSCAPES_IDS,
        label_space=LABEL_SPACES["19"],
        **facts,
    )


_BUILT_IN = (
    _like_cityscapes(
        "gta5",
        {"train": Split("images/*.png", "labels/*.png")},
        ignored_ids=(*_CITYSCAPES_IGNORED[:-1], 34, 255),
        label_encodings=("ids", "rgb", "train_ids"),
        label_colors=_CITYSCAPES_LABEL_COLORS,
    ),
    Dataset(
        name="synthia",
        splits={"train": Split("RGB/*.png", "GT/LABELS/*.png")},
        label_ids=_SYNTHIA_IDS,
        ignored_ids=_SYNTHIA_IGNORED,
        label_encodings=("red16", "ids", "train_ids"),
        label_space=LABEL_SPACES["16"],
        evaluation_split="train",
    ),
    _like_cityscapes(
        "cityscapes",
        {
            "train": _cityscapes_split("train"),
            "val": _cityscapes_split("val"),
            # The label files that come with the test split are dummies.
            "test": _cityscapes_split("test", labelled=False),
        },
        evaluation_split="val",
        selection_split="val",
        label_encodings=("ids", "train_ids", "rgb"),
        label_colors=_CITYSCAPES_LABEL_COLORS,
    ),
    _like_cityscapes(
        "minicity_game",
        {split: Split(f"{split}/images/*.png", f"{split}/labels/*.png") for split in ("train", "test")},
        evaluation_split="test",
        generated=True,
    ),
    _like_cityscapes(
        "minicity_camera",
        {split: _cityscapes_split(split) for split in ("train", "test")},
        evaluation_split="test",
        generated=True,
    ),
)
DATASETS = {dataset.name: dataset for dataset in _BUILT_IN}


def load_dataset(name_or_toml: str) -> Dataset:
    """A built-in data set by name, or the one a TOML file describes.

    Raises:
      UserError: no such data set, or a fault of the file.
    """
    if name_or_toml in DATASETS:
        return DATASETS[name_or_toml]
    if name_or_toml.endswith(".toml"):
        from sean_jax.data import descriptions  # not at the top: it builds on this module

        return descriptions.read_dataset(name_or_toml)
    raise UserError(
        f"no data set is called {name_or_toml!r}; expected one of {', '.join(DATASETS)} or a .toml file that describes "
        "a folder of images"
    )


def label_map(dataset: Dataset, space: LabelSpace, *, complete: bool = True) -> np.ndarray:
    """The table that turns a data set's raw label ids into class indices of a label space.

    Args:
      dataset: where the ids come from.
      space: the classes wanted; a class of the data set goes to the class of that name or that includes it.
      complete: whether every class of the space must come from the data set.

    Returns:
      uint8 [256]: raw id → class index, or IGNORE_LABEL for ids that mean no class of the space.

    Raises:
      UserError: ``complete``, and the data set has nothing for some class of the space; it names them.
    """
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for label_id, class_name in dataset.label_ids.items():
        table[label_id] = space.index_of(class_name)
    supplied = set(table.tolist())
    missing = [name for index, name in enumerate(space.classes) if index not in supplied]
    if complete and missing:
        raise UserError(
            f"data set {dataset.name} has no {', '.join(missing)}, which label space {space.name} asks for; "
            "choose other --classes or merge classes in a TOML file"
        )
    return table
