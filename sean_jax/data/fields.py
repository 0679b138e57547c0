"""What one field of an example is, as the engines read it."""

from typing import NamedTuple, TypeAlias

import numpy as np


class ArrayField(NamedTuple):
    """An array that is stored as it is: its dtype and the shape of one example."""

    dtype: np.dtype
    shape: tuple[int, ...]


# None: an image, RGB PNG → uint8 [h, w, 3]. An array uint8 [256]: a label, PNG of raw ids → uint8 [h, w] of the
# classes that the table maps them to.
Field: TypeAlias = np.ndarray | ArrayField | None
# A field before it is decoded.
Encoded: TypeAlias = bytes | np.ndarray
