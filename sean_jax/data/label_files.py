"""Reads label files into arrays of values, before anything is known of what they mean."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sean_jax.data import orientation
from sean_jax.data.image_files import BadFileError, explained, open_image, opened

_ONE_CHANNEL = ("1", "L", "P", "I;16", "I;16B", "I")


class LabelFile(NamedTuple):
    """A label file's values, before anything is known of what they mean.

    Attributes:
      kind: ``channel`` (one channel), ``rgb`` (8-bit colours) or ``red16`` (16-bit RGB).
      values: [height, width]; the channel, 0xRRGGBB, or the red channel (0-65535), by kind.
      form: how the file holds them, for messages.
      palette: of values that are indices into one: int32 [256], 0xRRGGBB of each; black beyond its end, as Pillow does.
      turned: the orientation tag; the values are as they are stored.
    """

    kind: str
    values: np.ndarray
    form: str
    palette: np.ndarray | None = None
    turned: int = orientation.UPRIGHT

    def present(self) -> list[int]:
        """The values that occur, sorted."""
        if self.values.dtype == np.uint8:  # np.unique sorts, which takes many times as long
            return np.flatnonzero(Image.fromarray(self.values).histogram()).tolist()
        return np.unique(self.values).tolist()

    def in_colors(self) -> "LabelFile":
        """A palette file as the colours that it shows; any other as it is."""
        if self.palette is None:
            return self
        return LabelFile("rgb", self.palette[self.values], f"{self.form} in colours", turned=self.turned)

    def shown(self) -> dict[int, int]:
        """The colours of the indices that occur in a palette file."""
        return {} if self.palette is None else {index: int(self.palette[index]) for index in self.present()}


def open_label(path: Path) -> LabelFile:
    """Reads a label file as it is. Raises :class:`BadFileError`, for formats that change values, too."""
    image, encoded = open_image(path)
    form = f"{image.format} of mode {image.mode}"
    if _is_lossy(image, encoded):
        raise BadFileError(
            f"the label is a lossy {image.format}, in which classes are blended; use the original labels"
        )
    turned = orientation.orientation(image)
    file = _open_label(image, encoded, form)
    if image.format == "TIFF":  # Pillow has turned it
        file = file._replace(values=orientation.turn_back(file.values, turned))
    return file._replace(turned=turned)


def _is_lossy(image: Image.Image, encoded: bytes) -> bool:
    if image.format == "WEBP":
        chunks, start = [], 12
        while start + 8 <= len(encoded):
            chunks.append(encoded[start : start + 4])
            start += 8 + (int.from_bytes(encoded[start + 4 : start + 8], "little") + 1) // 2 * 2
        return b"VP8 " in chunks
    return image.format in ("JPEG", "MPO", "AVIF") or "jpeg" in str(image.info.get("compression", ""))


def _open_label(image: Image.Image, encoded: bytes, form: str) -> LabelFile:
    with explained():
        if image.format == "PNG" and (encoded[24], encoded[25]) == (16, 2):
            return LabelFile("red16", _red_16_bit(encoded), "16-bit RGB PNG")
        if image.mode in _ONE_CHANNEL:
            values = np.asarray(image)
            values = values.astype(np.uint8) if values.dtype == bool else values
            return LabelFile("channel", values, form, _palette(image))
        if image.mode in ("RGB", "RGBA"):
            return LabelFile("rgb", _in_one(np.asarray(image.convert("RGB"))), form)
    raise BadFileError(f"a label is a {form}; expected one channel or RGB")


def _palette(image: Image.Image) -> np.ndarray | None:
    if image.mode != "P":
        return None
    colors = np.zeros((256, 3), np.int32)
    given = np.array(image.getpalette() or []).reshape(-1, 3)
    colors[: len(given)] = given
    return _in_one(colors)


def _in_one(colors: np.ndarray) -> np.ndarray:
    """Colours [..., 3], 0-255 → int32 [...], 0xRRGGBB."""
    values = np.zeros(colors.shape[:-1], np.int32)
    for channel in np.moveaxis(colors, -1, 0):
        values <<= 8
        values |= channel
    return values


def _red_16_bit(encoded: bytes) -> np.ndarray:
    """The red channel of a 16-bit RGB PNG: int32 [height, width], 0-65535.

    Pillow has no 16-bit RGB mode and keeps the high byte of each value, which is 0 for every class. Read once
    as the big-endian values that PNG holds and once as if they were little-endian, it yields both bytes.
    """
    high, low = (_red_bytes(encoded, rawmode) for rawmode in ("RGB;16B", "RGB;16L"))
    return high.astype(np.int32) << 8 | low


def _red_bytes(encoded: bytes, rawmode: str) -> np.ndarray:
    image = opened(encoded)
    if [tile.args for tile in image.tile] != ["RGB;16B"]:
        raise ValueError(f"Pillow would read this 16-bit file as {image.tile}")
    image.tile = [tile._replace(args=rawmode) for tile in image.tile]
    return np.asarray(image.getchannel("R"))
