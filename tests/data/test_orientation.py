"""Orientation tags, and images that Pillow by itself does not read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from sean_jax.data import image_files, orientation
from sean_jax.scoring.input_images import check_image

TAG = 0x0112


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_images_are_turned_as_pillow_turns_them(tmp_path, value, suffix):
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    exif = Image.Exif()
    exif[TAG] = value
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(np.stack([pixels * 9] * 3, -1)).save(tmp_path / f"x.{suffix}", exif=exif, **options)
    with Image.open(tmp_path / f"x.{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    read = image_files.read_image(tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(np.asarray(read), expected)
    np.testing.assert_array_equal(np.asarray(image_files.to_rgb(read)), expected)  # not turned again
    np.testing.assert_array_equal(orientation.turn(pixels, value) * 9, expected[..., 0])
    np.testing.assert_array_equal(orientation.turn_back(orientation.turn(pixels, value), value), pixels)


def exif(*tags: bytes, count: int | None = None) -> bytes:
    directory = struct.pack("<H", len(tags) if count is None else count) + b"".join(tags) + struct.pack("<I", 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + directory


TURNED = struct.pack("<HHIHH", TAG, 3, 1, 6, 0)
TEXT_FOR_A_NUMBER = struct.pack("<HHI4s", 0x0101, 2, 4, b"big\0")


@pytest.mark.filterwarnings("ignore:Tag data larger than file")  # Pillow's, which commands silence
@pytest.mark.parametrize(
    ("tags", "size"),
    [
        (exif(TEXT_FOR_A_NUMBER, TURNED), (32, 64)),  # Pillow cannot write it again
        (exif(struct.pack("<HHI4s", 0x9286, 7, 1 << 30, b"\xff\xff\xff\x7f"), TURNED), (32, 64)),
        (exif(struct.pack("<HHIHH", TAG, 3, 1, 99, 0)), (64, 32)),
        (b"Exif\0\0nonsense", (64, 32)),
        (b"Exif\0\0", (64, 32)),
    ],
)
def test_strange_tags_do_not_hinder_reading(tmp_path, tags, size):
    Image.new("RGB", (64, 32), (200, 60, 30)).save(tmp_path / "a.jpg", exif=tags)
    read = image_files.read_image(tmp_path / "a.jpg")
    assert (read.size, read.mode) == (size, "RGB")
    assert read.getpixel((5, 5)) == pytest.approx((200, 60, 30), abs=3)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    rows = b"".join(b"\0" + bytes((200, 60, 30)) * 64 for _ in range(32))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 32, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


LARGE = b"<a/>" * 600_000
TEXTS = {
    "profile": chunk(b"iCCP", b"scanner\0\0" + zlib.compress(bytes(1_500_000))),
    "compressed": chunk(b"zTXt", b"XML\0\0" + zlib.compress(LARGE)),
    "international": chunk(b"iTXt", b"XML\0\1\0en\0\0" + zlib.compress(LARGE)),
    "international_plain": chunk(b"iTXt", b"XML\0\0\0en\0\0" + LARGE),
    "plain": chunk(b"tEXt", b"XML\0" + LARGE),
    "many": chunk(b"zTXt", b"XML\0\0" + zlib.compress(bytes(1 << 20))) * 6,
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("text", TEXTS)
def test_pngs_with_large_texts_and_profiles_are_sound(tmp_path, monkeypatch, text, place):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 4 << 20)
    (tmp_path / "a.png").write_bytes(png(**{place: TEXTS[text]}))
    check_image(tmp_path / "a.png")
    assert image_files.read_image(tmp_path / "a.png").getpixel((63, 31)) == (200, 60, 30)
    damaged = bytearray(png(**{place: TEXTS[text]}))
    damaged[damaged.index(b"IDAT") + 8] ^= 1
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.raises(image_files.BadFileError):
        image_files.read_image(tmp_path / "a.png")


def test_large_images_are_read_and_absurd_ones_refused_before_memory_is_taken(tmp_path):
    def write(name, width, height, rows):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        rest = chunk(b"IDAT", zlib.compress(bytes(rows * (1 + width // 8)))) + chunk(b"IEND", b"")
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + header + rest)

    write("large.png", 20_000, 10_000, rows=10_000)
    assert image_files.check_header(tmp_path / "large.png") == (20_000, 10_000)  # Pillow alone refuses it
    write("absurd.png", 100_000, 100_000, rows=1)
    write("hollow.png", 25_000, 20_000, rows=1)
    for name, message in (
        ("absurd", "it has 100000x100000 pixels; expected at most 536 million"),
        ("hollow", "bytes cannot hold its 25000x20000 pixels; save it again"),
    ):
        for read in (image_files.check_header, image_files.read_image):
            with pytest.raises(image_files.BadFileError, match=message):
                read(tmp_path / f"{name}.png")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_bytes", refused)
    with pytest.raises(image_files.BadFileError, match=r"^this user may not read it \(Permission denied\)$"):
        image_files.read_image(tmp_path / "a.png")
