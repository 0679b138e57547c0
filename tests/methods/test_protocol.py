"""Tests the method protocol with a method outside the package that has its own networks, optimisers and a stage."""

import functools
import io
import json
import shutil

import builders
import jax
import numpy as np
import pytest
import steps
import test_all_methods
from alternating import Alternating, Weighted
from PIL import Image

from sean_jax import weights
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import label_map
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.data.pipeline import TARGET_DOMAIN, example_at
from sean_jax.data.prepared import write_extra
from sean_jax.errors import UserError
from sean_jax.methods import METHODS
from sean_jax.presets import choose_preset
from sean_jax.run import stages
from sean_jax.run.checkpoints import read_state
from sean_jax.run.plan import plan, prepare_training
from sean_jax.run.trained import open_network
from sean_jax.training.parallel import AXIS

pytestmark = pytest.mark.xdist_group("runs")  # tests that train in their own process share compiled programs


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(METHODS, "alternating", Alternating)
    monkeypatch.setitem(METHODS, "weighted", Weighted)


def _flags(roads, method: str) -> dict:
    return roads | {"method": method}


@pytest.mark.parametrize(
    "check",
    [
        test_all_methods.test_a_step_is_equal_on_one_device_and_on_four_that_divide_their_share,
        test_all_methods.test_the_step_compiles_once_and_makes_no_hidden_copies,
        test_all_methods.test_evaluated_networks_are_complete_parts_of_the_parameters,
    ],
)
def test_the_method_passes_the_tests_of_all_methods(monkeypatch, check):
    monkeypatch.setattr(test_all_methods, "_method", functools.partial(builders.method, learning_rate=1e-3))
    check("alternating")


def test_each_update_changes_only_its_own_network():
    method, batch = builders.method("alternating"), steps.batch("alternating")
    before = jax.tree.map(np.asarray, steps.init(method))
    shards = {name: x[None] for name, x in batch.items()}
    for update, moved in (("update_discriminator", "discriminator"), ("update_network", "network")):
        mapped = jax.pmap(getattr(method, update), AXIS, in_axes=(None, 0), out_axes=None, devices=steps.DEVICES[:1])
        after, _ = mapped(before, shards)
        for name, params in before.params.items():
            assert steps.same_bits(after.params[name], params) == (name != moved)
            assert steps.same_bits(after.opt_state[name], before.opt_state[name]) == (name != moved)


def test_a_run_trains_its_stage_resumes_bitwise_and_is_scored(roads, tmp_path):
    given = _flags(roads, "alternating") | {"steps": 3, "eval_every": 3}
    whole = tmp_path / "whole"
    assert stages.train(given, whole)
    stage = json.loads((whole / "stages/source/config.json").read_text())["settings"]
    assert (stage["method"], stage["steps"]) == ("source_only", 2)
    assert json.loads((whole / "config.json").read_text())["settings"]["init_weights"] == str(whole / "stages/source")
    assert list(json.loads((whole / "evaluation.json").read_text())) == ["network"]

    resumed = shutil.copytree(whole, tmp_path / "resumed")
    shutil.rmtree(resumed / "checkpoints/3")
    shutil.rmtree(resumed / "stages")  # a run with a checkpoint no longer needs its stages
    assert stages.train(given, resumed)
    assert (resumed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert steps.same_bits(read_state(resumed), read_state(whole))
    assert open_network(str(whole)).name == "network"


def test_a_stage_takes_the_preset_of_its_run():
    given = {"method": "alternating"}  # without --preset and --source, a run takes the preset quick
    stage = stages._settings_of(Alternating.STAGES["source"], given, choose_preset(given))
    assert stage["preset"] == "quick"


def test_the_method_starts_from_its_stage(roads, tmp_path):
    """With learning rates of zero the network stays as the stage trained it."""
    given = _flags(roads, "alternating")
    given |= {"steps": 1, "learning_rate": 0.0, "discriminator_learning_rate": 0.0, "weight_decay": 0.0}
    assert stages.train(given | {"eval_split": "none"}, tmp_path / "run")
    stage = open_network(str(tmp_path / "run/stages/source")).params
    assert steps.same_bits(open_network(str(tmp_path / "run")).params, stage)


def test_weights_of_a_backbone_go_to_the_stage_and_those_of_a_network_replace_it(tmp_path):
    params = builders.deeplab(19).init_params(jax.random.key(5))
    files = {"vgg.npz": {"trunk": params["trunk"]}, "complete.npz": params}
    for name, content in files.items():
        weights.write(tmp_path / name, weights.from_params(content), {})
    stage = Alternating.STAGES["source"]
    for name, needed in (("vgg.npz", True), ("complete.npz", False)):
        given = {"method": "alternating", "init_weights": str(tmp_path / name)}
        assert stages._is_needed(stage, choose_preset(given)) == needed
        assert stages._settings_of(stage, given, choose_preset(given))["init_weights"] == str(tmp_path / name)


def test_source_statistics_reach_the_state(roads, tmp_path):
    """The mean share of each class over the source images, as counted from the label files."""
    given = _flags(roads, "alternating") | {"steps": 1, "eval_split": "none"}
    source, _ = prepare_training(plan(given), reads_target=False, progress=False)
    table = label_map(DATASETS["gta5"], LABEL_SPACES["19"])
    labels = [table[np.asarray(Image.open(io.BytesIO(source.read(i)["label"])))] for i in range(len(source))]
    expected = np.mean([[(label == c).mean() for c in range(19)] for label in labels], axis=0)
    assert stages.train(given | {"init_weights": str(_stage(given, tmp_path))}, tmp_path / "run")
    np.testing.assert_allclose(read_state(tmp_path / "run").memory["class_shares"], expected, rtol=1e-5)


def _stage(given, folder):
    assert stages.train(given | {"method": "source_only"}, folder / "source")
    return folder / "source"


def test_arrays_beside_the_target_reach_the_step(roads, tmp_path):
    given = _flags(roads, "weighted") | {"steps": 1, "eval_split": "none", "data_dir": str(tmp_path / "data")}
    _, target = prepare_training(plan(given), reads_target=True, progress=False)
    assert target is not None
    with pytest.raises(UserError, match="weight"):
        stages.train(given, tmp_path / "run")
    weights = np.arange(1, len(target) + 1, dtype=np.float32)
    write_extra(target, "weight", weights)
    assert stages.train(given, tmp_path / "run")
    (line,) = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    drawn = [example_at(position, 0, TARGET_DOMAIN, len(target)) for position in range(2)]
    assert json.loads(line)["train/weight"] == pytest.approx(weights[drawn].mean())


def test_unsupported_accumulation_is_refused(roads):
    given = {name: str(value) if name.endswith("_dir") else value for name, value in roads.items()}
    with pytest.raises(UserError, match="a step of alternating cannot be divided into parts"):
        plan(given | {"method": "alternating", "accumulate_steps": 2})
