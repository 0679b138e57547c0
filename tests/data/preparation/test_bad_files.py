"""Single files: errors, plausibility checks, and how images are read."""

import os

import data_fixtures as fixtures
import numpy as np
import pytest
from data_fixtures import assert_reported, errors_of, prepare_small
from PIL import Image

from sean_jax.data import image_files
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import Dataset, Split
from sean_jax.data.label_spaces import LabelSpace

GTA5 = DATASETS["gta5"]


def test_links_to_nowhere_and_names_that_are_not_utf_8(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5")
    expected = {}
    for number, target, message in ((1, "gone", "No such file"), (2, "00002.png", "symbolic links")):
        path = root / f"images/{number:05}.png"
        path.unlink()
        path.symlink_to(target)
        expected[str(path)] = message
    for folder in ("images", "labels"):
        (root / folder / "00003.png").rename(root / folder / os.fsdecode(b"\xff.png"))
    expected[str(root / "images") + r"/\xff.png"] = "its name is not valid UTF-8; rename it"
    error = errors_of(GTA5, root, tmp_path / "prepared")
    assert_reported([problem.to_dict() for problem in error.problems], expected)
    prepared = prepare_small(GTA5, root, tmp_path / "prepared", skip_bad=True)
    assert prepared.names == ["images/00004.png", "images/00005.png"]
    assert_reported(prepared.metadata["faults"], expected)
    (root / "labels/00004.png").unlink()
    (root / "labels/00004.png").symlink_to("gone")
    assert any("does not exist" in problem.message for problem in errors_of(GTA5, root, tmp_path / "prepared").problems)


def test_road_absent_from_the_whole_set(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5", 3)
    for i, size in enumerate(fixtures.GTA5_SIZES[:3]):
        fixtures.save(fixtures.label(i, *size, (8, 23, 26)), root / f"labels/{i + 1:05}.png")
    (problem,) = errors_of(GTA5, root, tmp_path / "prepared").problems
    assert problem.message.startswith("not one pixel of road in all 3 labels")
    assert "--label_encoding=ids" in problem.message
    assert len(prepare_small(GTA5, root, tmp_path / "prepared", label_encoding="ids")) == 3


def test_a_street_of_one_class_is_questioned_once(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5", 3)
    fixtures.save(np.full(fixtures.GTA5_SIZES[0][::-1], 11, np.uint8), root / "labels/00001.png")
    (problem,) = errors_of(GTA5, root, tmp_path / "prepared").problems
    assert problem.message.startswith(
        "the label is building (id 11) everywhere; if that is right, run `prepare --split=tr"
    )
    assert "--label_encoding=ids`" in problem.message
    assert len(prepare_small(GTA5, root, tmp_path / "prepared", label_encoding="ids")) == 3


def test_frames_of_one_class_are_normal_where_there_are_no_roads(tmp_path):
    """Cracks: most photographs show none. That no photograph shows any is doubted."""
    split = Split("photos/*.png", "masks/*.png")
    space = LabelSpace("cracks", ("wall", "crack"), ((0, 0, 0), (255, 255, 255)), ((), ()))
    cracks = Dataset("cracks", {"train": split}, {0: "wall", 255: "crack"}, (), ("ids",), space, "train")
    for i in range(3):
        fixtures.save(fixtures.image(i, 20, 10), tmp_path / f"photos/{i}.png")
        fixtures.save(np.zeros((10, 20), np.uint8), tmp_path / f"masks/{i}.png")
    (problem,) = errors_of(cracks, tmp_path, tmp_path / "prepared").problems
    assert problem.file == str(tmp_path / "masks/*.png")
    assert problem.message.startswith("all 3 labels are wall everywhere; if that is right, run `prepare --split=train")
    assert len(prepare_small(cracks, tmp_path, tmp_path / "prepared", label_encoding="ids")) == 3
    fixtures.save(fixtures.label(0, 20, 10, (0, 255)), tmp_path / "masks/1.png")
    assert len(prepare_small(cracks, tmp_path, tmp_path / "prepared")) == 3


# Images


@pytest.mark.parametrize("file", ["x.png", "x.tif", "big.tif"])
def test_16_bit_grey_keeps_its_upper_byte(tmp_path, file):
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.fromarray(values.astype(">u2") if file == "big.tif" else values).save(tmp_path / file, exif=turned)
    read = np.asarray(image_files.read_image(tmp_path / file))
    np.testing.assert_array_equal(read, np.stack([np.rot90(values >> 8, 2)] * 3, -1))


def test_a_16_bit_grey_png_as_older_pillows_open_it(tmp_path):
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    wide = Image.fromarray(values.astype(np.int32))
    wide.format = "PNG"
    assert wide.mode == "I"
    np.testing.assert_array_equal(np.asarray(image_files.to_rgb(wide))[..., 0], values >> 8)


@pytest.mark.parametrize(("mode", "dtype"), [("I", np.int32), ("F", np.float32)])
def test_images_of_no_known_range_are_refused(tmp_path, mode, dtype):
    Image.fromarray(np.full((4, 6), 300, dtype)).save(tmp_path / "x.tif")
    with pytest.raises(image_files.BadFileError, match=f"the image is a TIFF of mode {mode}; expected 8 or 16 bits"):
        image_files.read_image(tmp_path / "x.tif")
