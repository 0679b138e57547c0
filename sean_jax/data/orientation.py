"""Orientation tags (EXIF), by which cameras say how the stored pixels are to be turned for viewing."""

import numpy as np
from PIL import Image

UPRIGHT = 1
_TAG = 0x0112
# Where Pillow keeps tags, in ``Image.info``.
_PLACES = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The tag's value, 1 to 8; 1 (upright) where it is missing or cannot be read.

    Pillow turns TIFFs itself when it loads them; the tag is gone then.
    """
    try:
        value = image.getexif().get(_TAG)
    except Exception:  # a damaged block of tags can raise anything; the pixels may be sound
        return UPRIGHT
    return value if value in _METHODS else UPRIGHT


def turned(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it, without the tag.

    Pillow's own function also writes all other tags anew, which fails for values that it cannot write.
    """
    image.load()
    method = _METHODS.get(orientation(image))
    if method is None:
        return image
    upright = image.transpose(method)
    for key in _PLACES:  # or it would be turned again
        upright.info.pop(key, None)
    return upright


def turn(pixels: np.ndarray, value: int) -> np.ndarray:
    """``[height, width]`` pixels as they are stored → as a viewer shows them."""
    if value in (5, 6, 7, 8):
        pixels = pixels.T
    if value in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def turn_back(pixels: np.ndarray, value: int) -> np.ndarray:
    """The inverse of :func:`turn`."""
    return turn(pixels, {6: 8, 8: 6}.get(value, value))
