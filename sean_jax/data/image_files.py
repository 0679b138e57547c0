"""Reads image and label files into arrays, and explains what is wrong with bad ones.

Reads with Pillow alone, so that preparation needs no TensorFlow.
"""

import contextlib
import io
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from sean_jax.data import orientation

# Of the images that are looked for in folders; in lower case.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm"),
    *(".jp2", ".avif"),
)
# Pillow's own limit refuses photographs of 179 megapixels or more. This one bounds an image to 1.6 GB.
MAX_PIXELS = 2**29
_no_limit = threading.Lock()

# What Pillow raises for files that are truncated, damaged or of an unknown kind.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError)
_ONE_CHANNEL = ("1", "L", "P", "I;16", "I;16B", "I")


class BadFileError(Exception):
    """A file that cannot be used; the message says why, without the file's name."""


def open_image(path: Path) -> tuple[Image.Image, bytes]:
    """Opens an image after checking that its file is whole; the pixels are not decoded yet.

    Returns:
      The image and its file's content.

    Raises:
      BadFileError: it cannot be read, or is larger than :data:`MAX_PIXELS`.
    """
    try:
        encoded = path.read_bytes()
        if encoded.startswith(_PNG):
            encoded = _without_large_texts(encoded)
        image = _opened(io.BytesIO(encoded))
        if image.format == "PNG":
            # Decoding stops at the last row and ignores checksums: bytes that are wrong or missing may pass it.
            _opened(io.BytesIO(encoded)).verify()
    except _PILLOW_ERRORS as error:
        raise BadFileError(_unreadable(error)) from None
    return image, encoded


def check_header(path: Path) -> tuple[int, int]:
    """Checks an image by its header, without reading the rest of its file; returns its width and height as stored.

    Raises:
      BadFileError: it cannot be read, or its values have no known range.
    """
    try:
        with _opened(path) as image:
            check_range(image)
            return image.size
    except _PILLOW_ERRORS:
        image, _ = open_image(path)  # a large text in a PNG hinders Pillow; or it is bad, and this says why
        check_range(image)
        return image.size


def _opened(file: Path | io.BytesIO) -> ImageFile.ImageFile:
    try:
        image = Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        with _no_limit:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > MAX_PIXELS:
        raise BadFileError(
            f"it has {image.width}x{image.height} pixels; expected at most {MAX_PIXELS // 10**6} million: divide it"
        )
    return image


_PNG = b"\x89PNG\r\n\x1a\n"


def _without_large_texts(png: bytes) -> bytes:
    """A PNG without the colour profiles and texts that are too large for Pillow; nothing here needs them."""
    limit, left = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    dropped = []
    for kind, start, end in _chunks(png):
        data = png[start + 8 : end - 4]
        if kind in (b"zTXt", b"iCCP"):
            compressed = data.partition(b"\0")[2][1:]
        elif kind == b"iTXt":  # keyword, whether it is compressed, how, language, translated keyword, text
            compressed = data.split(b"\0", 4)[-1]
            compressed = compressed if data.partition(b"\0")[2][:1] == b"\1" else None
        elif kind == b"tEXt":
            compressed = None
        else:
            continue
        size = len(data)
        if compressed is not None:
            with contextlib.suppress(zlib.error):
                size = len(zlib.decompressobj().decompress(compressed, limit + 1))
        if size > limit or size > left:
            dropped.append((start, end))
        elif kind != b"iCCP":
            left -= size
    if not dropped:
        return png
    starts, ends = [start for start, _ in dropped], [end for _, end in dropped]
    return b"".join(png[a:b] for a, b in zip([0, *ends], [*starts, len(png)], strict=True))


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG: kind, start and end, with length and checksum."""
    start = len(_PNG)
    while start + 12 <= len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        yield png[start + 4 : start + 8], start, end
        start = end


def _unreadable(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"this user may not read it ({error.strerror})"
    reason = str(error).split(" <_io.BytesIO")[0]
    return f"truncated, damaged or not an image ({reason})"


def read_image(path: Path) -> Image.Image:
    """An upright RGB image, 8 bits a channel. Raises :class:`BadFileError`."""
    image, _ = read_turned(path)
    return image


def read_turned(path: Path) -> tuple[Image.Image, int]:
    """As :func:`read_image`, with the orientation tag by which the stored pixels were turned."""
    image, _ = open_image(path)
    try:
        turned = orientation.orientation(image)
        return to_rgb(image), turned
    except _PILLOW_ERRORS as error:
        raise BadFileError(_unreadable(error)) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened image as RGB, 8 bits a channel, turned as its camera says; of 16 bits the upper eight are kept.

    Raises :class:`BadFileError` for values of no known range, and what Pillow raises for a damaged file.
    """
    check_range(image)
    upright = orientation.turned(image)
    if image.mode.startswith("I"):  # `convert` would clip at 255, which makes nearly everything white
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright.convert("RGB")


def check_range(image: Image.Image) -> None:
    """Raises :class:`BadFileError` for an image, decoded or not, whose values have no known range."""
    # Older versions of Pillow open 16-bit grey PNGs as I, which elsewhere means 32 bits.
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise BadFileError(f"the image is a {image.format} of mode {image.mode}; expected 8 or 16 bits a channel")


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
            return np.flatnonzero(np.bincount(self.values.ravel(), minlength=256)).tolist()
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
    try:
        if image.format == "PNG" and (encoded[24], encoded[25]) == (16, 2):
            return LabelFile("red16", _red_16_bit(encoded), "16-bit RGB PNG")
        if image.mode in _ONE_CHANNEL:
            values = np.asarray(image)
            values = values.astype(np.uint8) if values.dtype == bool else values
            return LabelFile("channel", values, form, _palette(image))
        if image.mode in ("RGB", "RGBA"):
            return LabelFile("rgb", _in_one(np.asarray(image.convert("RGB"), np.int32)), form)
    except _PILLOW_ERRORS as error:
        raise BadFileError(_unreadable(error)) from None
    raise BadFileError(f"a label is a {form}; expected one channel or RGB")


def _palette(image: Image.Image) -> np.ndarray | None:
    if image.mode != "P":
        return None
    colors = np.zeros((256, 3), np.int32)
    given = np.array(image.getpalette() or []).reshape(-1, 3)
    colors[: len(given)] = given
    return _in_one(colors)


def _in_one(colors: np.ndarray) -> np.ndarray:
    """int32 [..., 3] → int32 [...], 0xRRGGBB."""
    red, green, blue = np.moveaxis(colors, -1, 0)
    return red << 16 | green << 8 | blue


def _red_16_bit(encoded: bytes) -> np.ndarray:
    """The red channel of a 16-bit RGB PNG: int32 [height, width], 0-65535.

    Pillow has no 16-bit RGB mode and keeps the high byte of each value, which is 0 for every class. Read once
    as the big-endian values that PNG holds and once as if they were little-endian, it yields both bytes.
    """
    high, low = (_red_bytes(encoded, rawmode) for rawmode in ("RGB;16B", "RGB;16L"))
    return high.astype(np.int32) << 8 | low


def _red_bytes(encoded: bytes, rawmode: str) -> np.ndarray:
    image = Image.open(io.BytesIO(encoded))
    assert isinstance(image, ImageFile.ImageFile)
    if [tile.args for tile in image.tile] != ["RGB;16B"]:
        raise ValueError(f"Pillow would read this 16-bit file as {image.tile}")
    image.tile = [tile._replace(args=rawmode) for tile in image.tile]
    return np.asarray(image.getchannel("R"))


def encode_png(image: Image.Image) -> bytes:
    """Lossless PNG bytes; see :data:`_COMPRESSION`."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


# zlib level: 6 saves 6 % of the space and takes four times as long to write; reading takes as long for both.
_COMPRESSION = 3
