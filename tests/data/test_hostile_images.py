"""Images and labels that claim to be other than they are: refused before memory is taken, and nothing is started."""

import os
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from sean_jax.data import image_files, label_files
from sean_jax.data.preparation.evidence import Layout, looks_blended

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) print\nshowpage\n%%EOF\n"


def png(width: int, height: int, depth: int, colors: int, *, rows: bytes = bytes(9), before: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + before + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_one_strip(width: int, height: int) -> bytes:
    """A grey TIFF whose only strip has no bytes."""
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 0))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


HOLLOW = {
    "x.png": png(25_000, 20_000, 8, 2),
    "deep.png": png(20_000, 20_000, 16, 2),
    "x.ppm": b"P6\n20000 20000\n255\n" + bytes(99),
    "x.tif": tiff_of_one_strip(20_000, 20_000),
    "x.bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0, 1, 1, 0, 0),
}


@pytest.mark.parametrize("read", [image_files.check_header, image_files.read_image, label_files.open_label])
@pytest.mark.parametrize("name", HOLLOW)
def test_images_of_more_pixels_than_their_bytes_can_hold_are_refused(tmp_path, name, read):
    (tmp_path / name).write_bytes(HOLLOW[name])
    with pytest.raises(image_files.BadFileError, match=r"\d+ bytes cannot hold its \d+x20000 pixels; save it again"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "options"), [("x.png", {}), ("x.tif", {"compression": "tiff_lzw"}), ("x.webp", {"method": 0})]
)
def test_images_of_one_colour_may_be_small_files(tmp_path, name, options):
    Image.new("L", (8000, 8000), 7).save(tmp_path / name, **options)
    assert image_files.check_header(tmp_path / name) == (8000, 8000)


@pytest.mark.parametrize("read", [image_files.check_header, image_files.read_image, label_files.open_label])
def test_no_other_program_is_started(tmp_path, monkeypatch, read):
    """Pillow has Ghostscript read PostScript, whatever the file is called."""
    (tmp_path / "x.png").write_bytes(EPS)
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_options: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "check_call", subprocess.Popen)
    with pytest.raises(image_files.BadFileError, match="not an image"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("read", [image_files.check_header, image_files.read_image, label_files.open_label])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(image_files.BadFileError, match="it is not a file"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize(
    "content",
    [png(8, 8, 8, 0)[:33] + png(8, 8, 8, 0)[-12:], png(8, 8, 16, 2)],
    ids=["no rows", "16 bits and few rows"],
)
def test_damage_that_makes_pillow_raise_anything_is_explained(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(image_files.BadFileError, match="truncated, damaged or not an image"):
        label_files.open_label(tmp_path / "x.png")


def test_where_values_lie_is_counted_row_by_row():
    """The statistics of labels, computed in parts, against the definition."""
    values = np.random.default_rng(0).integers(-5, 300, (40, 30)).astype(np.int32)
    layout = Layout()
    layout.add(values)
    rows, columns = np.nonzero((values >= 0) & (values < 256))
    found = values[rows, columns]
    np.testing.assert_array_equal(layout._count[0], np.bincount(found, minlength=256))
    expected = np.bincount(found, weights=(rows + 0.5) / 40, minlength=256)
    np.testing.assert_allclose(layout._rows[0], expected, rtol=1e-12)
    ramp = np.repeat(np.arange(300, dtype=np.uint8)[None] // 3 * 3, 300, axis=0)  # longer than one part each way
    ramp[:, ::7] = 200
    assert looks_blended(ramp) == looks_blended(ramp.T)
