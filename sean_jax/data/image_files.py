"""Reads image files, and explains what is wrong with bad ones.

Reads with Pillow alone, so that preparation needs no TensorFlow.
"""

import contextlib
import io
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from sean_jax.data import orientation

# Of the images that are looked for in folders; in lower case.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm"),
    *(".jp2", ".avif"),
)
# Pillow's formats of these extensions, and GIF. It has others, among them one that starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
# Pillow's own limit refuses photographs of 179 megapixels or more. This one bounds an image to 1.6 GB.
MAX_PIXELS = 2**29
# A byte of a file stands for at most 1400 bytes of an image (LZW; deflate: 1032), so a larger image is not what its
# header says. The formats that have no such bound are left out, and images that take little memory.
_MOST_PER_BYTE, _ALWAYS_READ, _UNBOUNDED = 1400, 1 << 26, ("WEBP", "AVIF", "JPEG2000")
_no_limit = threading.Lock()


class BadFileError(Exception):
    """A file that cannot be used; the message says why, without the file's name."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what Pillow raises into a :class:`BadFileError`; a damaged file can make it raise anything."""
    try:
        yield
    except (BadFileError, MemoryError):
        raise
    except PermissionError as error:
        raise BadFileError(f"this user may not read it ({error.strerror})") from None
    except Exception as error:
        reason = str(error).split(" <_io.BytesIO")[0][:200]
        raise BadFileError(f"truncated, damaged or not an image ({reason})") from None


def open_image(path: Path) -> tuple[ImageFile.ImageFile, bytes]:
    """Opens an image after checking that its file is whole; the pixels are not decoded yet.

    Returns:
      The image and its file's content.

    Raises:
      BadFileError: it cannot be read, or is larger than :data:`MAX_PIXELS` or than its file can hold.
    """
    _check_is_file(path)
    with explained():
        encoded = path.read_bytes()
        if encoded.startswith(_PNG):
            encoded = _without_large_texts(encoded)
        image = opened(encoded)
        if image.format == "PNG":
            # Decoding stops at the last row and ignores checksums: bytes that are wrong or missing may pass it.
            opened(encoded).verify()
    return image, encoded


def check_header(path: Path) -> tuple[int, int]:
    """Checks an image by its header, without reading the rest of its file; returns its width and height as stored.

    Raises:
      BadFileError: it cannot be read, or its values have no known range.
    """
    _check_is_file(path)
    try:
        with explained(), opened(path) as image:
            check_range(image)
            return image.size
    except BadFileError:
        image, _ = open_image(path)  # a large text in a PNG hinders Pillow; or it is bad, and this says why
        check_range(image)
        return image.size


def _check_is_file(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device may have no end
        raise BadFileError("it is not a file")


def opened(source: Path | bytes) -> ImageFile.ImageFile:
    """An image in a file or its content, by its header.

    Raises:
      BadFileError: it is larger than :data:`MAX_PIXELS` or than its file can hold.
      Exception: Pillow cannot read it.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size

    def read_header() -> ImageFile.ImageFile:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS)

    try:
        image = read_header()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        with _no_limit:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = read_header()
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    if (fault := _size_fault(image, size)) is not None:
        image.close()
        raise BadFileError(fault)
    return image


def _size_fault(image: ImageFile.ImageFile, size: int) -> str | None:
    """What is wrong with the number of pixels that the header of a file of ``size`` bytes declares."""
    pixels, declared = image.width * image.height, f"{image.width}x{image.height} pixels"
    if pixels > MAX_PIXELS:
        return f"it has {declared}; expected at most {MAX_PIXELS // 10**6} million: divide it"
    decoded = pixels * len(image.getbands())
    if image.format not in _UNBOUNDED and decoded > max(
        _ALWAYS_READ, _MOST_PER_BYTE * size * (8 if image.mode == "1" else 1)
    ):
        return f"{size} bytes cannot hold its {declared}; save it again"
    return None


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


def read_image(path: Path) -> Image.Image:
    """An upright RGB image, 8 bits a channel. Raises :class:`BadFileError`."""
    image, _ = read_turned(path)
    return image


def read_turned(path: Path) -> tuple[Image.Image, int]:
    """As :func:`read_image`, with the orientation tag by which the stored pixels were turned."""
    image, _ = open_image(path)
    with explained():
        turned = orientation.orientation(image)
        return to_rgb(image), turned


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


def encode_png(image: Image.Image) -> bytes:
    """Lossless PNG bytes; see :data:`_COMPRESSION`."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


# zlib level: 6 saves 6 % of the space and takes four times as long to write; reading takes as long for both.
_COMPRESSION = 3
