"""Image and label files into arrays, and what is wrong with them into words.

Reads with Pillow alone, so that preparation needs no TensorFlow.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from sean_jax.data.datasets import LABEL_FORMATS, Dataset

# What Pillow raises for files that are truncated, damaged, of an unknown kind or absurdly large.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_ONE_CHANNEL = ("1", "L", "P", "I;16", "I;16B", "I")


class BadFileError(Exception):
    """A file that cannot be used; the message says why, without the file's name."""


def _open(path: Path) -> tuple[Image.Image, bytes]:
    """Opens an image after checking that its file is whole; the pixels are not decoded yet."""
    try:
        encoded = path.read_bytes()
        image = Image.open(io.BytesIO(encoded))
        if image.format == "PNG":
            # Decoding stops at the last row and ignores checksums: bytes that are wrong or missing may pass it.
            Image.open(io.BytesIO(encoded)).verify()
    except _PILLOW_ERRORS as error:
        raise BadFileError(_unreadable(error)) from None
    return image, encoded


def _unreadable(error: Exception) -> str:
    reason = str(error).split(" <_io.BytesIO")[0]
    return f"truncated, damaged or not an image ({reason})"


def read_image(path: Path) -> Image.Image:
    """An RGB image, 8 bits a channel. Raises :class:`BadFileError`."""
    image, _ = _open(path)
    try:
        return image.convert("RGB")
    except _PILLOW_ERRORS as error:
        raise BadFileError(_unreadable(error)) from None


def read_label(path: Path, dataset: Dataset) -> tuple[np.ndarray, str]:
    """A label file's raw ids.

    Returns:
      uint8 [height, width], every value an id of the data set's table; and how the file holds them
      (``ids``, ``palette`` or ``red16``).

    Raises:
      BadFileError: unreadable, encoded otherwise than the data set's labels are, or with ids outside the table.
    """
    image, encoded = _open(path)
    try:
        if dataset.label_format == "red16":
            ids, encoding = _red_16_bit(image, encoded), "red16"
        else:
            ids, encoding = _one_channel(image), "palette" if image.mode == "P" else "ids"
    except _PILLOW_ERRORS as error:
        raise BadFileError(_unreadable(error)) from None
    _check_ids(ids, dataset)
    return ids.astype(np.uint8), encoding


def _one_channel(image: Image.Image) -> np.ndarray:
    if image.mode not in _ONE_CHANNEL:
        raise BadFileError(
            f"a label of {len(image.getbands())} channels ({image.mode}); expected {LABEL_FORMATS['ids']}"
        )
    return np.asarray(image)


def _red_16_bit(image: Image.Image, encoded: bytes) -> np.ndarray:
    """The red channel of a 16-bit RGB PNG: int32 [height, width], 0-65535.

    Pillow has no 16-bit RGB mode and keeps the high byte of each value, which is 0 for every class. Read once
    as the big-endian values that PNG holds and once as if they were little-endian, it yields both bytes.
    """
    bits, color_type = (encoded[24], encoded[25]) if image.format == "PNG" else (0, 0)
    if (bits, color_type) != (16, 2):
        raise BadFileError(
            f"a label of {bits or 'unknown'} bits a channel ({image.format} {image.mode}); expected "
            f"{LABEL_FORMATS['red16']}: an 8-bit copy may hold raw ids or trainIds and does not say which"
        )
    high, low = (_red_bytes(encoded, rawmode) for rawmode in ("RGB;16B", "RGB;16L"))
    return high.astype(np.int32) << 8 | low


def _red_bytes(encoded: bytes, rawmode: str) -> np.ndarray:
    image = Image.open(io.BytesIO(encoded))
    assert isinstance(image, ImageFile.ImageFile)
    if [tile.args for tile in image.tile] != ["RGB;16B"]:
        raise ValueError(f"Pillow would read this 16-bit file as {image.tile}")
    image.tile = [tile._replace(args=rawmode) for tile in image.tile]
    return np.asarray(image.getchannel("R"))


def _check_ids(ids: np.ndarray, dataset: Dataset) -> None:
    if ids.dtype == np.uint8:  # np.unique sorts, which takes many times as long
        present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
    else:
        present = np.unique(ids).tolist()
    unknown = [i for i in present if i not in dataset.label_ids and i not in dataset.ignored_ids]
    if unknown:
        listed = ", ".join(str(i) for i in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        known = _ranges([*dataset.label_ids, *dataset.ignored_ids])
        raise BadFileError(f"label ids {listed} are outside the table of {dataset.name}; expected {known}")


def _ranges(values: list[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def encode_png(image: Image.Image) -> bytes:
    """Lossless PNG bytes; see :data:`_COMPRESSION`."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


# zlib level: 6 saves 6 % of the space and takes three times as long to write; reading takes as long for both.
_COMPRESSION = 3
