"""Tests of runs that translate, of the translated copies of data sets, and of the stages of CyCADA, which uses both."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from rundirs import same_state
from streets import load_image

from sean_jax.data import description_writer
from sean_jax.data.catalogue import DATASETS, load_dataset
from sean_jax.data.dataset import Split, label_map
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.methods.cycada import CyCADA
from sean_jax.run import stages
from sean_jax.run.plan import plan
from sean_jax.run.trained import open_network, open_translators
from sean_jax.run.translation import make_translation, translate_dataset

pytestmark = pytest.mark.xdist_group("cyclegan")

SIZE = {"height": 24, "width": 48}
CYCLEGAN = {"method": "cyclegan", "translator_width": 4, "translator_blocks": 1}


@pytest.fixture(scope="module")
def flags(roads):
    return roads | SIZE | {"steps": 1}


@pytest.fixture(scope="module")
def run(flags, tmp_path_factory):
    """The directory of a finished run of one step."""
    workdir = tmp_path_factory.mktemp("cyclegan") / "run"
    assert stages.train(flags | CYCLEGAN, workdir)
    return workdir


def test_a_run_without_segmentation_networks_ends_with_pictures(run):
    assert not (run / "evaluation.json").exists()
    # Six pictures a row: source and target, each with translation and back-translation.
    assert load_image(run / "pictures/step_000001.png").width == 6 * SIZE["width"] + 5 * 4
    with pytest.raises(UserError, match="contains no segmentation network"):
        open_network(str(run))


def test_a_translated_data_set_trains_as_it_stands(run, flags, tmp_path):
    translation = make_translation(open_translators(run), "target", native_size=True)
    output, source = tmp_path / "out", flags["source_dir"]
    arguments = (DATASETS["gta5"], "train", source, output)
    described = translate_dataset(translation, *arguments, data_dir=tmp_path)
    images = sorted((output / "images").iterdir())
    assert len(images) == 5
    for image in images:
        assert (output / "labels" / image.name).read_bytes() == pathlib.Path(source, "labels", image.name).read_bytes()
        original = load_image(f"{source}/images/{image.name}")
        assert load_image(image).size == original.size
        assert np.asarray(load_image(image)).tobytes() != np.asarray(original).tobytes()

    content, kept = images[0].read_bytes(), images[1].stat().st_mtime_ns
    images[0].unlink()
    described.unlink()
    translate_dataset(translation, *arguments, data_dir=tmp_path)  # writes only what is missing
    assert (images[0].read_bytes(), images[1].stat().st_mtime_ns) == (content, kept)
    back = make_translation(open_translators(run), "source")
    with pytest.raises(UserError, match="another network"):
        translate_dataset(back, *arguments, data_dir=tmp_path)

    own = {name: value for name, value in flags.items() if name != "source_dir"}
    own |= {"source": str(described), "method": "source_only", "eval_split": "none"}
    assert plan(own).experiment.label_space == LABEL_SPACES["19"]
    assert stages.train(own, tmp_path / "trained")
    config = json.loads((tmp_path / "trained/config.json").read_text())["settings"]
    assert config["source"] == str(described)


def test_any_size_is_padded_and_cropped(run):
    translate = make_translation(open_translators(run), "target", native_size=True).translate
    image = np.random.default_rng(0).integers(0, 256, (31, 45, 3), np.uint8)
    whole = np.asarray(translate(Image.fromarray(image)))
    assert whole.shape == image.shape
    padded = np.pad(image, ((0, 1), (0, 3), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(whole, np.asarray(translate(Image.fromarray(padded)))[:31, :45])


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("gta5", "ids"), ("gta5", "rgb"), ("gta5", "train_ids"), ("synthia", "red16"), ("cityscapes", "train_ids")],
)
def test_a_written_description_means_the_same_labels(tmp_path, name, encoding):
    dataset = DATASETS[name]
    text = description_writer.describe(dataset, "copy", {"train": Split("images/*.png", "labels/*.png")}, encoding)
    (tmp_path / "dataset.toml").write_text(text, encoding="utf-8")
    copy = load_dataset(str(tmp_path / "dataset.toml"))
    assert (copy.label_space, copy.folder) == (dataset.label_space, str(tmp_path))
    if encoding in ("ids", "red16"):
        space = dataset.label_space
        np.testing.assert_array_equal(label_map(copy, space), label_map(dataset, space))
        known = {*dataset.label_ids, *dataset.ignored_ids}
        assert {*copy.label_ids, *copy.ignored_ids} == known
    if encoding == "rgb":
        for color, label_id in dataset.label_colors:
            ours = dict(copy.label_colors)[color]
            assert copy.label_ids.get(ours) == dataset.label_ids.get(label_id)


def test_a_cyclegan_run_is_not_selected_by_scores(flags):
    with pytest.raises(UserError, match="trains no segmentation network"):
        plan(flags | {"method": "cyclegan", "selection": "oracle"})
    with pytest.raises(UserError, match="at least 24x24"):
        plan(flags | {"method": "cyclegan", "height": 16})


def test_stages_of_cycada_are_made_once_and_found_after_a_move(flags, tmp_path, monkeypatch, capsys):
    """The CycleGAN has few channels. The second run finds all stages made, the third is moved and resumed."""
    cyclegan = CyCADA.STAGES["cyclegan"]
    monkeypatch.setattr(CyCADA, "STAGES", CyCADA.STAGES | {"cyclegan": cyclegan._replace(settings=CYCLEGAN)})
    given = flags | {"method": "cycada", "steps": 2, "accuracy_threshold": 0.0, "eval_split": "none"}
    whole = tmp_path / "whole"
    assert stages.train(given, whole)
    source = _settings(whole)["source"]
    assert source == str(whole / "stages/translate/dataset.toml")
    assert _settings(whole / "stages/source")["source"] == source
    assert _settings(whole)["init_weights"] == str(whole / "stages/source")
    assert _settings(whole)["cycada"]["translator"] == str(whole / "stages/cyclegan")
    assert _settings(whole)["classes"] == "19"
    read = sorted(pathlib.Path(given["source_dir"]).rglob("labels/*.png"))
    copied = sorted((whole / "stages/translate/labels").rglob("*.png"))
    assert [file.read_bytes() for file in copied] == [file.read_bytes() for file in read]

    again = tmp_path / "again"
    shutil.copytree(whole / "stages", again / "stages")
    capsys.readouterr()
    assert stages.train(given, again)
    assert capsys.readouterr().out.count("this run is already finished") == 2
    assert same_state(again, whole)

    moved = whole.rename(tmp_path / "moved")
    shutil.rmtree(moved / "checkpoints/2")
    assert stages.train(given, moved)
    assert same_state(moved, again)


def _settings(workdir):
    return json.loads((workdir / "config.json").read_text())["settings"]
