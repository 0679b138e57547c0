import io
import pathlib
import re
import zipfile

import builders
import commands
import jax
import numpy as np
import pytest
from PIL import Image

from sean_jax import weights
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.label_spaces import CITYSCAPES_CLASSES, LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.scoring import submission

STEMS = ("berlin_000000_000019", "mainz_000001_000019")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A weights file of the thinnest network, for images of 64×32."""
    run = builders.experiment("sean", height=32, width=64, width_multiplier=1 / 64)
    run = run._replace(label_space=LABEL_SPACES["19"])
    file = tmp_path_factory.mktemp("weights") / "sean.npz"
    weights.write(file, weights.from_params(run.network().init_params(jax.random.key(0))), run.weights_metadata())
    return file


@pytest.fixture
def predict(session_dir, network):
    return lambda images, **flags: commands.run(
        session_dir / "output", "predict", weights=network, input=images, **flags
    )


def write_images(folder, names):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        noise = np.random.default_rng(i).integers(0, 256, (32, 64, 3), np.uint8)
        Image.fromarray(noise).save(folder / name)


def test_a_submission_is_what_the_server_takes(tmp_path, predict):
    for stem in STEMS:
        write_images(tmp_path / "test" / stem.split("_")[0], [f"{stem}_leftImg8bit.png"])
    file = tmp_path / "submission.zip"
    result = predict(tmp_path / "test", cityscapes_submission=file)
    assert result.code == 0, result.stderr
    assert "the server expects all 1525 test images, not 2" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["submission.zip"]
    label_ids = {i for i, name in DATASETS["cityscapes"].label_ids.items() if name in CITYSCAPES_CLASSES}
    with zipfile.ZipFile(file) as archive:
        assert sorted(archive.namelist()) == [f"{stem}_gtFine_labelIds.png" for stem in STEMS]
        for name in archive.namelist():
            image = Image.open(io.BytesIO(archive.read(name)))
            assert (image.size, image.mode) == ((2048, 1024), "L")
            assert set(np.unique(np.asarray(image)).tolist()) <= label_ids


@pytest.mark.parametrize(
    ("names", "zip_name", "message"),
    [
        (["street.png"], "x.zip", r"street.png is not named like the images of Cityscapes; expected CITY_SEQUENCE"),
        ([f"{STEMS[0]}_leftImg8bit.png"], "no/x.zip", "x.zip: the folder .* does not exist"),
    ],
)
def test_what_cannot_become_a_submission_is_one_line(tmp_path, predict, names, zip_name, message):
    write_images(tmp_path / "test", names)
    result = predict(tmp_path / "test", cityscapes_submission=tmp_path / zip_name)
    assert result.code == 1
    (line,) = result.said()
    assert re.search(message, line)
    assert not list(tmp_path.glob("*.zip"))


def test_two_images_of_one_name():
    images = [pathlib.Path(f"{folder}/{STEMS[0]}_leftImg8bit.png") for folder in "ab"]
    with pytest.raises(UserError, match="have the same name"):
        submission.names(images)


def test_a_submission_that_breaks_off_leaves_nothing(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"the one before")

    def break_off():
        with submission.archive(str(tmp_path / "x.zip")) as archive:
            assert archive is not None
            archive.writestr("a.png", b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the one before"]
