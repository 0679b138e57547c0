"""The input normalisation that weights need, where the names of their layers do not tell.

VGG-16 under torchvision's names is torchvision's own (RGB in [0, 1], normalised) or Caffe's (BGR, 0–255, minus a mean),
such as ``vgg16-00b39a1b.pth``. Wrong inputs cost many points without any error, so this is never guessed: one filter
of the first layer, which hardly changes when a network is trained further, decides; else the name of a published file;
else the user.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sean_jax.errors import UserError
from sean_jax.models.inputs import CONVENTIONS


class _Filter(NamedTuple):
    """A filter of a published network's first layer that tells the order of the colours, ``[3, 3, 3]``."""

    whose: str
    convention: str
    index: int
    values: tuple[tuple[tuple[float, float, float], ...], ...]


_TORCHVISION = _Filter(
    "torchvision's",
    "rgb_normalized",
    0,
    (
        ((-0.5537, 0.1427, 0.5290), (-0.5831, 0.3566, 0.7657), (-0.6902, -0.0480, 0.4841)),
        ((0.1755, 0.0099, -0.0814), (0.0441, -0.0703, -0.2604), (0.1324, -0.1728, -0.1323)),
        ((0.3130, -0.1659, -0.4275), (0.4752, -0.0827, -0.4870), (0.6320, 0.0193, -0.2775)),
    ),
)
_CAFFE = _Filter(
    "Caffe's",
    "bgr_mean",
    59,
    (
        ((-0.2029, -0.2448, -0.1934), (-0.2468, -0.2869, -0.2361), (-0.2140, -0.2559, -0.2061)),
        ((0.1334, 0.1433, 0.1338), (0.1602, 0.1760, 0.1620), (0.1420, 0.1541, 0.1418)),
        ((0.0873, 0.1251, 0.0855), (0.1499, 0.1949, 0.1499), (0.1122, 0.1538, 0.1103)),
    ),
)
# Largest relative distance ‖w − published‖ / ‖published‖. Filters of other networks are more than 1 away.
_NEAR = 0.3
# Checksums in the names of published files.
_FILE_NAMES = {"397923af": _TORCHVISION, "00b39a1b": _CAFFE}


def recognize(first_layer: np.ndarray, path: str) -> tuple[str | None, str]:
    """Returns the input convention that a VGG-16's weights need, None if unknown, and what it was recognised by.

    Args:
      first_layer: weights of the first convolution ``[out, 3, 3, 3]``.
      path: the file.

    Raises:
      UserError: the order of the colours is another.
    """
    for known in (_TORCHVISION, _CAFFE):
        published = np.array(known.values, np.float32)
        if len(first_layer) <= known.index:
            continue
        for found, reversed_colors in ((first_layer[known.index], False), (first_layer[known.index, ::-1], True)):
            if np.linalg.norm(found - published) < _NEAR * np.linalg.norm(published):
                if reversed_colors:
                    raise UserError(
                        f"{path} is {known.whose} VGG-16 with the colours of its first layer in reverse order; reverse "
                        "them: state_dict['features.0.weight'] = state_dict['features.0.weight'].flip(1)"
                    )
                return known.convention, f"by its first layer, {known.whose} VGG-16"
    for checksum, known in _FILE_NAMES.items():
        if checksum in Path(path).name:
            return known.convention, f"by its file name, {known.whose} VGG-16"
    return None, f"neither names nor values tell; give --input_convention={'|'.join(CONVENTIONS)} where it is used"


def ask(path: str) -> UserError:
    """The error for weights whose input convention is unknown."""
    return UserError(
        f"{path} does not tell which input its weights need: under such names there are networks for RGB in [0, 1], "
        "normalised (torchvision's), and for BGR, 0-255, minus a mean (Caffe's); give --input_convention="
        f"{' or --input_convention='.join(reversed(CONVENTIONS))}"
    )
