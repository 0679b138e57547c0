"""Tests of the stage that infers properties of target images, and of a run of CDA with its stages."""

import importlib.util
import json
import shutil

import jax
import numpy as np
import pytest
import streets

from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError
from sean_jax.methods.cda import CDA
from sean_jax.run import properties, stages
from sean_jax.run.plan import plan, prepare_training
from sean_jax.run.trained import open_network

pytestmark = pytest.mark.xdist_group("cda")

COUNT = 8  # superpixels of an image of 32 × 16 pixels


@pytest.fixture(scope="module")
def settings(roads, tmp_path_factory) -> dict:
    """Settings of a run of CDA whose network is that of a finished run, with a data folder of the module's own."""
    folder = tmp_path_factory.mktemp("cda")
    given = roads | {"data_dir": str(folder / "data")}
    assert stages.train(given | {"method": "source_only", "eval_split": "none"}, folder / "source")
    return given | {"method": "cda", "init_weights": str(folder / "source"), "superpixel_count": COUNT}


def _target(settings) -> PreparedSet:
    _, target = prepare_training(plan(settings), reads_target=True, progress=False)
    assert target is not None
    return target


def _stored(target: PreparedSet, digest: str) -> dict[str, np.ndarray]:
    return {name: np.array(target.extra(f"{name}_{digest}")) for name in properties.EXTRAS}


@pytest.fixture(scope="module")
def inferred(settings, tmp_path_factory):
    """The digest, the folder of the stage, and what it stored."""
    folder = tmp_path_factory.mktemp("cda") / "properties"
    digest = properties.infer(settings, folder)
    return digest, folder, _stored(_target(settings), digest)


def test_superpixels_are_maps_of_each_image_at_the_prepared_size(inferred, settings):
    _, _, stored = inferred
    target = _target(settings)
    assert stored["superpixels"].shape == (len(target), target.height, target.width) == (5, 16, 32)
    assert stored["superpixel_labels"].shape == stored["superpixel_confidence"].shape == (5, 2 * COUNT)
    assert len({ids.tobytes() for ids in stored["superpixels"]}) == 5
    for ids, labels, confidence in zip(
        stored["superpixels"], stored["superpixel_labels"], stored["superpixel_confidence"], strict=True
    ):
        count = ids.max() + 1
        np.testing.assert_array_equal(np.unique(ids), np.arange(count))
        assert np.isfinite(confidence[:count]).all()
        assert np.isnan(confidence[count:]).all()
        kept = labels != 255
        assert kept.sum() == round(0.6 * count)
        assert (labels[kept] < 19).all()
        assert not kept[count:].any()
        assert confidence[kept].min() >= confidence[:count][~kept[:count]].max()


def test_label_distributions_sum_to_one_and_differ(inferred):
    found = inferred[2]["label_distribution"]
    assert (found.dtype, found.shape) == (np.float32, (5, 19))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (found >= 0).all()
    assert len(np.unique(found, axis=0)) == 5


def test_properties_of_an_image_follow_from_network_and_source_alone(inferred, settings, tmp_path):
    """Without the target's labels, and with two of its five images, these have the same properties."""
    digest, _, stored = inferred
    streets.cityscapes(tmp_path / "whole", labels=False)
    wanted = [f"leftImg8bit/train/aachen/aachen_{i:06d}_000019_leftImg8bit.png" for i in (1, 3)]
    for name in wanted:
        (tmp_path / "part" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "whole" / name).rename(tmp_path / "part" / name)
    few = settings | {"target_dir": str(tmp_path / "part")}
    assert properties.infer(few, tmp_path / "properties") == digest
    target = _target(few)
    assert list(target.names) == wanted
    for name, array in _stored(target, digest).items():
        np.testing.assert_array_equal(array, stored[name][[1, 3]], err_msg=name)


def test_runs_with_other_seeds_networks_or_settings_store_beside_each_other(inferred, settings, tmp_path):
    digest, _, stored = inferred
    other = properties.infer(settings | {"seed": 1, "property_images": 3}, tmp_path / "other")
    target = _target(settings)
    assert other != digest
    assert not np.array_equal(_stored(target, other)["label_distribution"], stored["label_distribution"])
    np.testing.assert_array_equal(_stored(target, digest)["label_distribution"], stored["label_distribution"])

    resolved = plan(settings)
    source, _ = prepare_training(resolved, reads_target=False, progress=False)
    trained = open_network(settings["init_weights"])
    assert properties._digest(resolved, trained, source) == digest
    params = trained.params | {"head": jax.tree.map(lambda x: 1.01 * x, trained.params["head"])}
    assert properties._digest(resolved, trained._replace(params=params), source) != digest
    for changed in ({"superpixel_share": 0.5}, {"superpixel_count": 9}, {"property_images": 2}, {"seed": 2}):
        assert properties._digest(plan(settings | changed), trained, source) != digest, changed
    elsewhere = plan(settings | {"steps": 9, "learning_rate": 1.0})  # which do not enter
    assert properties._digest(elsewhere, trained, source) == digest


def test_an_interrupted_stage_describes_no_image_twice_and_ends_alike(inferred, settings, tmp_path, monkeypatch):
    digest, _, stored = inferred
    again = settings | {"data_dir": str(tmp_path / "data")}
    described, limit = [], 7
    describe = properties.Describer.__call__

    def limited(self, prepared, indices):
        for image in describe(self, prepared, indices):
            if len(described) == limit:
                raise KeyboardInterrupt
            described.append(image)
            yield image

    monkeypatch.setattr(properties, "_PART", 2)
    monkeypatch.setattr(properties.Describer, "__call__", limited)
    with pytest.raises(KeyboardInterrupt):  # after five source images and two of the target
        properties.infer(again, tmp_path / "properties")
    assert not any(_target(again).has_extra(f"{name}_{digest}") for name in properties.EXTRAS)
    limit = 100
    assert properties.infer(again, tmp_path / "properties") == digest
    assert len(described) == 10
    for name, array in _stored(_target(again), digest).items():
        np.testing.assert_array_equal(array, stored[name], err_msg=name)
    assert properties.infer(again, tmp_path / "properties") == digest  # nothing is left to do
    assert len(described) == 10
    assert {path.name for path in (tmp_path / "properties").iterdir()} == {"lock", "properties.json"}


def test_substitutes_are_named_in_the_stages_output(inferred, settings, tmp_path, capsys):
    facts = json.loads((inferred[1] / "properties.json").read_text())
    assert facts["substituted"] == dict(CDA.SUBSTITUTED)
    assert facts["properties"] == inferred[0]
    properties.infer(settings, inferred[1])
    assert "substituted: SLIC superpixels for LSC superpixels" in capsys.readouterr().out


@pytest.mark.parametrize(("module", "package"), [("skimage", "scikit-image"), ("sklearn", "scikit-learn")])
def test_a_missing_library_is_named_with_the_extra(settings, tmp_path, monkeypatch, module, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(UserError, match=rf"needs {package}, which is not installed; .*'\.\[cda\]'"):
        properties.infer(settings, tmp_path / "properties")


def test_networks_that_cannot_be_used_are_refused(settings, tmp_path):
    with pytest.raises(UserError, match=r"predicts road, .*; expected the run's classes, road"):
        properties.infer(settings | {"classes": "16"}, tmp_path / "properties")
    with pytest.raises(UserError, match="a network trained on the source"):
        properties.infer(settings | {"init_weights": None}, tmp_path / "properties")


def test_a_run_makes_its_stages_and_ends_with_finite_losses(settings, tmp_path, capsys):
    given = settings | {"steps": 3, "eval_every": 3, "data_dir": str(tmp_path / "data")}
    del given["init_weights"]
    whole = tmp_path / "whole"
    assert stages.train(given, whole)
    config = json.loads((whole / "config.json").read_text())
    facts = json.loads((whole / "stages/properties/properties.json").read_text())
    assert config["settings"]["cda"]["properties"] == facts["properties"]
    assert facts["network"].startswith(str(whole / "stages/source"))
    evaluation = json.loads((whole / "evaluation.json").read_text())
    assert list(evaluation) == ["network"]
    assert config["substituted"] == evaluation["network"]["substituted"] == dict(CDA.SUBSTITUTED)
    start, *lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert start["step"] == 0  # the score of the stage's network
    assert len(lines) == 3
    for name in ("segmentation", "superpixels", "distribution"):
        assert all(0 < line[f"train/loss_{name}"] < np.inf for line in lines)

    # A damaged prepared target is to be deleted, and what was inferred of it goes with it.
    shutil.rmtree(_target(given).directory.parent)
    shutil.rmtree(whole / "checkpoints/3")
    metrics = (whole / "metrics.jsonl").read_bytes()
    assert stages.train(given, whole)
    assert "resuming from step 2 of 3" in capsys.readouterr().out
    assert (whole / "metrics.jsonl").read_bytes() == metrics

    shutil.rmtree(whole / "stages")  # a run with a checkpoint needs its stages no longer, and remembers what they gave
    assert stages.train(given, whole)
    assert "this run is already finished" in capsys.readouterr().out
