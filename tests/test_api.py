"""The Python interface: what the command writes, from arrays and Pillow images."""

import pathlib

import commands
import numpy as np
import pytest
import streets
from PIL import Image

from sean_jax import api
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError


@pytest.fixture(scope="module")
def network(finished):
    return api.load(finished)


@pytest.fixture(scope="module")
def photo(roads):
    return next(pathlib.Path(roads["target_dir"], "leftImg8bit/val").rglob("*.png"))


@pytest.mark.parametrize("native_size", [False, True])
def test_the_classes_are_those_that_predict_writes(finished, photo, tmp_path, native_size):
    flags = {"workdir": finished, "input": photo, "output": tmp_path / "out", "native_size": native_size}
    assert commands.run(tmp_path / "output", "predict", **flags).code == 0
    written = np.asarray(streets.load_image(tmp_path / "out" / photo.name))
    network = api.load(finished, native_size=native_size)
    array = np.asarray(streets.load_image(photo))
    assert array.shape[:2] not in ((16, 32), array.shape[1::-1])  # of another size than the training's, and not square
    for image in (array, streets.load_image(photo), streets.load_image(photo).convert("RGBA")):
        classes, maps = network(image)
        np.testing.assert_array_equal(classes, written)
        assert classes.dtype == np.uint8
        assert maps.keys() == {"attention"}
        assert maps["attention"].shape == classes.shape
        assert 0 <= maps["attention"].min() <= maps["attention"].max() <= 1
    assert network.label_space == LABEL_SPACES["19"]


def test_a_result_of_another_size(network, photo):
    classes, maps = network(streets.load_image(photo), size=(20, 50))
    assert classes.shape == maps["attention"].shape == (20, 50)


def test_a_photograph_on_its_side_is_turned(network, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image = streets.load_image(photo)
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(np.asarray(image), -1)
    np.testing.assert_array_equal(
        network(streets.load_image(tmp_path / "turned.png")).classes, network(upright).classes
    )


def test_a_weights_file_is_as_good_as_the_run_that_it_is_from(finished, photo, tmp_path):
    file = tmp_path / "student.safetensors"
    flags = {"input": finished, "output": file, "network": "student"}
    assert commands.run(tmp_path / "output", "port_weights", **flags).code == 0
    of_file, of_run, other = api.load(file), api.load(finished, "student"), api.load(str(finished), "teacher")
    maps = [network(streets.load_image(photo)).maps["attention"] for network in (of_file, of_run, other)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 0
    np.testing.assert_array_equal(of_file(streets.load_image(photo)).classes, of_run(streets.load_image(photo)).classes)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 64), np.uint8), r"array of uint8 \[32, 64\]; expected uint8 \[height, width, 3\], RGB"),
        (np.zeros((32, 64, 4), np.uint8), r"array of uint8 \[32, 64, 4\]; expected uint8"),
        (np.zeros((1, 32, 64, 3), np.uint8), r"array of uint8 \[1, 32, 64, 3\]; expected uint8"),
        (np.zeros((32, 64, 3)), r"array of float64 \[32, 64, 3\]; expected uint8"),
        (np.zeros((0, 64, 3), np.uint8), r"array of uint8 \[0, 64, 3\]; expected uint8"),
        (Image.new("F", (64, 32)), "mode F; expected 8 or 16 bits a channel"),
    ],
)
def test_what_is_no_rgb_image_is_refused(network, image, message):
    with pytest.raises(UserError, match=message):
        network(image)


def test_an_image_too_small_for_the_network_is_refused(finished, network):
    small = np.zeros((15, 64, 3), np.uint8)
    with pytest.raises(UserError, match="64x15 pixels; expected at least 16x16"):
        api.load(finished, native_size=True)(small)
    assert network(small).classes.shape == (15, 64)  # it sees 16x32


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        ("nowhere", None, "nowhere does not exist; expected a run directory or a weights file"),
        ("empty", None, "config.json is missing"),
        ("photo.png", None, r"photo\.png"),
        ("run", "critic", "critic.*teacher, student"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(finished, tmp_path, name, network, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.png").write_bytes(b"")
    (tmp_path / "run").symlink_to(finished)
    with pytest.raises(UserError, match=message) as error:
        api.load(tmp_path / name, network)
    assert "\n" not in str(error.value)
