"""Tests that a run directory is created, checked and locked, and which metrics a resumed run keeps."""

import json
import os

import numpy as np
import pytest

import sean_jax
from sean_jax.config import COMMON, from_flat_settings
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.experiment import Experiment
from sean_jax.run import directory as rundir

SETTINGS = {"steps": 4, "source": "gta5", "target": "cityscapes", "initialization": "scratch"}
RUN = Experiment(from_flat_settings(SETTINGS | {"input_convention": "bgr_mean"}), LABEL_SPACES["19"])
PLACES = ("source_dir", "target_dir", "data_dir", "loader", "init_weights")


def changed(**settings) -> Experiment:
    return RUN._replace(config=from_flat_settings(RUN.config.flat() | settings))


def test_create_and_load_round_trip(tmp_path):
    workdir = tmp_path / "deep" / "run"
    rundir.check(workdir, RUN)
    assert not workdir.exists()
    rundir.create(workdir, RUN, {})
    assert rundir.load(workdir) == RUN
    rundir.check(workdir, RUN)
    assert os.listdir(workdir) == ["config.json"]


def test_a_different_configuration_is_refused_with_the_differences(tmp_path):
    rundir.create(tmp_path, RUN, {})
    other = changed(seed=1, noise_std=0.1)._replace(label_space=LABEL_SPACES["16"])
    with pytest.raises(UserError, match=r"noise_std: 25\.5 → 0\.1; seed: 0 → 1; the label space") as error:
        rundir.check(tmp_path, other)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", PLACES)
def test_paths_and_loaders_may_differ(tmp_path, place):
    rundir.create(tmp_path, RUN, {})
    rundir.check(tmp_path, changed(**{place: "grain"}))


def test_all_other_settings_must_agree(tmp_path):
    rundir.create(tmp_path, RUN, {})
    for name in RUN.config.flat().keys() - {*PLACES, "method", "architecture"}:
        with pytest.raises(UserError, match=f"{name}: "):
            rundir.check(tmp_path, changed(**{name: "something else"}))
    other = {name: value for name, value in RUN.config.flat().items() if name in COMMON} | {"method": "source_only"}
    with pytest.raises(UserError, match=r"attention_threshold: 0\.3 → None.*method: 'sean' → 'source_only'"):
        rundir.check(tmp_path, RUN._replace(config=from_flat_settings(other)))


def test_config_nests_settings_of_method_network_and_optimiser(tmp_path):
    rundir.create(tmp_path, RUN, {"source": "abc"})
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["version"] == sean_jax.__version__
    assert content["data"] == {"source": "abc"}
    settings = content["settings"]
    assert settings["sean"]["attention_threshold"] == 0.3
    assert settings["deeplab"]["fc_channels"] == 1024
    assert settings["optimizer"]["weight_decay"] == 5e-5
    assert (settings["method"], settings["steps"]) == ("sean", 4)


def test_a_run_of_version_0_1_0_is_refused_with_the_version_to_use(tmp_path):
    """Version 0.1.0 had flat settings and a different state."""
    (tmp_path / "config.json").write_text('{"settings": {"method": "sean", "ema_decay": 0.99}, "label_space": {}}')
    for read in (rundir.load, lambda path: rundir.check(path, RUN)):
        with pytest.raises(UserError, match=r"written by sean-jax 0\.1\.0; resume") as error:
            read(tmp_path)
        assert "\n" not in str(error.value)


def test_the_parameter_overview_counts_every_parameter(tmp_path):
    params = {"student": {"trunk": {"conv1_1": {"kernel": np.zeros((3, 3, 3, 64), np.float32)}}}}
    rundir.write_parameters(tmp_path, params)
    lines = (tmp_path / "parameters.txt").read_text().splitlines()
    assert lines == ["student: 1,728 parameters", "  trunk/conv1_1/kernel  float32[3, 3, 3, 64]  1,728"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": "0.2.0", "settings": {}}', "null"])
def test_a_damaged_configuration_is_reported_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged or was written by another version"):
        rundir.load(tmp_path)
    with pytest.raises(UserError, match=r"config\.json is damaged or was written by another version"):
        rundir.check(tmp_path, RUN)


def test_a_failed_create_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        rundir.create(tmp_path / "run", RUN, {})
    assert os.listdir(tmp_path) == []


def test_write_json_is_atomic(tmp_path, monkeypatch):
    rundir.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        rundir.write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_metrics_after_the_restored_step_and_incomplete_lines_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"step": 2, "a"')
    file = rundir.MetricsFile(path, 2)
    assert path.read_text() == '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n'
    file.write(3, {"a": 0.1})
    assert path.read_text().endswith('{"step": 3, "a": 0.1}\n')  # written before the file is closed
    file.close()
    rundir.MetricsFile(path, 0).close()
    assert path.read_text() == ""


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"a": 1}', '{"step": null}'])
def test_a_damaged_line_of_metrics_is_reported_and_the_file_kept(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        rundir.MetricsFile(path, 5)
    assert path.read_text() == f'{{"step": 1}}\n{line}\n'
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_only_one_process_can_lock_a_directory(tmp_path):
    refused = pytest.raises(UserError, match="another process is training")
    with rundir.locked(tmp_path), refused, rundir.locked(tmp_path):
        pass
    with rundir.locked(tmp_path):
        pass
