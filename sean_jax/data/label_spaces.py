"""Classes, their colours, and the label spaces a network can be trained and scored in.

A label space is an ordered list of classes; a network of that space has one output channel a class, and a
label map of that space holds class indices, or :data:`IGNORE_LABEL` where a pixel counts for nothing.
"""

import dataclasses
from typing import Any

from sean_jax.untrusted import CONTROL

IGNORE_LABEL = 255

Color = tuple[int, int, int]

# Class names, order (trainIds 0-18) and colours as published with Cityscapes' evaluation scripts.
CITYSCAPES_COLORS: dict[str, Color] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
CITYSCAPES_CLASSES = tuple(CITYSCAPES_COLORS)

# The classes that SYNTHIA-RAND-CITYSCAPES lacks, and those that the 13-class protocol leaves out.
NOT_IN_16 = ("terrain", "truck", "train")
NOT_IN_13 = (*NOT_IN_16, "wall", "fence", "pole")


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """An ordered list of classes.

    Attributes:
      name: how the space is called in flags and files.
      classes: class names; a class's index is its place.
      palette: one RGB colour a class, 0-255.
      includes: for each class, names of other classes that a data set may know and that are merged into it
        (``sign`` may include ``traffic light``). At most :data:`IGNORE_LABEL` classes.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    includes: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.classes) == len(self.palette) == len(self.includes):
            raise ValueError(
                f"label space {self.name!r}: {len(self.classes)} classes, {len(self.palette)} colours and "
                f"{len(self.includes)} lists of merged classes; expected as many of each"
            )
        if not 1 <= len(self.classes) <= IGNORE_LABEL:
            raise ValueError(f"label space {self.name!r} has {len(self.classes)} classes; expected 1 to {IGNORE_LABEL}")
        if not all(type(value) is int and 0 <= value <= 255 for color in self.palette for value in color):
            raise ValueError(f"label space {self.name!r} has a colour whose values are not 0 to 255")
        names = [*self.classes, *(merged for merges in self.includes for merged in merges)]
        if odd := [name for name in (self.name, *names) if CONTROL.search(name)]:
            raise ValueError(f"label space {self.name!r} has a name with control characters: {odd[0]!r}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"label space {self.name!r} names {', '.join(twice)} more than once; name each class once")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def index_of(self, class_name: str) -> int:
        """The index of the class that is, or includes, ``class_name``; IGNORE_LABEL if none does."""
        for index, (name, merges) in enumerate(zip(self.classes, self.includes, strict=True)):
            if class_name == name or class_name in merges:
                return index
        return IGNORE_LABEL

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description, read back by :meth:`from_dict`."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "palette": [list(color) for color in self.palette],
            "includes": [list(merges) for merges in self.includes],
        }

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> "LabelSpace":
        """Raises KeyError, TypeError or ValueError when ``description`` is not one of :meth:`to_dict`'s."""
        palette = []
        for red, green, blue in description["palette"]:
            palette.append((red, green, blue))
        return cls(
            name=str(description["name"]),
            classes=tuple(str(name) for name in description["classes"]),
            palette=tuple(palette),
            includes=tuple(tuple(str(name) for name in merges) for merges in description["includes"]),
        )


def default_color(class_name: str, index: int) -> Color:
    """Cityscapes' colour of that class, or else a colour of its own for each index, light enough to be seen."""
    if class_name in CITYSCAPES_COLORS:
        return CITYSCAPES_COLORS[class_name]
    # Multiplying by odd numbers is a bijection modulo 256, so no two indices below 256 share a colour.
    return (255 - (index * 67) % 256, (40 + index * 151) % 256, (90 + index * 211) % 256)


def _cityscapes_subset(name: str, left_out: tuple[str, ...]) -> LabelSpace:
    classes = tuple(c for c in CITYSCAPES_CLASSES if c not in left_out)
    return LabelSpace(name, classes, tuple(CITYSCAPES_COLORS[c] for c in classes), ((),) * len(classes))


LABEL_SPACES = {
    "19": _cityscapes_subset("19", ()),
    "16": _cityscapes_subset("16", NOT_IN_16),
    "13": _cityscapes_subset("13", NOT_IN_13),
}
