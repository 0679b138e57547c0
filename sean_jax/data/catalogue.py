"""The built-in data sets, and data sets and label spaces by name or TOML file.

A built-in data set is one descriptor in :data:`DATASETS`; a user's own is a TOML file with the same facts
(:mod:`sean_jax.data.descriptions`). No image is opened here.
"""

from sean_jax.data import descriptions
from sean_jax.data.dataset import Dataset, Split
from sean_jax.data.label_spaces import CITYSCAPES_CLASSES, CITYSCAPES_COLORS, LABEL_SPACES, NOT_IN_16, Color, LabelSpace
from sean_jax.errors import UserError

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
        absent_classes=NOT_IN_16,
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
      UserError: no such data set, or an error in the file.
    """
    if name_or_toml in DATASETS:
        return DATASETS[name_or_toml]
    if name_or_toml.endswith(".toml"):
        return descriptions.read_dataset(name_or_toml)
    raise UserError(
        f"no data set is called {name_or_toml!r}; expected one of {', '.join(DATASETS)} or a .toml file that describes "
        "a folder of images"
    )


def load_label_space(name_or_toml: str) -> LabelSpace:
    """A built-in label space by name, or the one a TOML file defines (a data set's own classes included).

    Raises:
      UserError: no such space, or an error in the file.
    """
    if name_or_toml in LABEL_SPACES:
        return LABEL_SPACES[name_or_toml]
    if name_or_toml.endswith(".toml"):
        return descriptions.read_label_space(name_or_toml)
    raise UserError(
        f"no label space is called {name_or_toml!r}; expected one of {', '.join(LABEL_SPACES)} or a .toml file"
    )
