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
RHYTHM = ("log_every", "eval_every", "save_every")
MEMORY = ("eval_batch_size", "accumulate_steps", "remat")


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


@pytest.mark.parametrize("name", [*RHYTHM, *MEMORY])
def test_rhythm_and_memory_may_differ_and_are_noted(tmp_path, name):
    rundir.create(tmp_path, RUN, {"source": "abc"})
    other = changed(**{name: True if name == "remat" else 7})
    rundir.check(tmp_path, other)
    rundir.resume(tmp_path, other, None)
    assert rundir.load(tmp_path) == other
    assert rundir.known_data(tmp_path) == {"source": "abc"}


@pytest.mark.parametrize(("done", "noted"), [(None, 3), (2, 3), (3, 3), (4, 4)])
def test_fewer_steps_than_a_run_has_done_are_not_noted(tmp_path, done, noted):
    rundir.create(tmp_path, RUN, {})
    rundir.resume(tmp_path, changed(steps=3), done)
    assert rundir.load(tmp_path).config.steps == noted


def test_weights_that_a_run_began_with_stay_noted(tmp_path):
    rundir.create(tmp_path, changed(init_weights="vgg.npz"), {})
    rundir.resume(tmp_path, RUN, None)
    assert rundir.load(tmp_path).config.init_weights == "vgg.npz"


def test_other_steps_need_a_constant_rate(tmp_path):
    rundir.create(tmp_path, RUN, {})
    for steps in (6, 3):
        rundir.check(tmp_path, changed(steps=steps))
    with pytest.raises(UserError, match="learning_rate_schedule: 'constant' → 'cosine'; steps: 4 → 6, on which"):
        rundir.check(tmp_path, changed(steps=6, learning_rate_schedule="cosine"))
    cosine = changed(learning_rate_schedule="cosine")
    longer = cosine._replace(config=from_flat_settings(cosine.config.flat() | {"steps": 6}))
    rundir.create(tmp_path / "cosine", cosine, {})
    with pytest.raises(UserError, match="steps: 4 → 6, on which learning_rate_schedule=cosine depends: only runs of a"):
        rundir.check(tmp_path / "cosine", longer)


@pytest.mark.parametrize(
    ("intervals", "kept"),
    [
        ({"log_every": 2, "eval_every": 2}, {"step": 4, "train/loss": 1.0, "val/mean_iou": 5.0}),
        ({"log_every": 2, "eval_every": 3}, {"step": 4, "train/loss": 1.0}),
        ({"log_every": 3, "eval_every": 4}, {"step": 4, "val/mean_iou": 5.0}),
        ({"log_every": 3, "eval_every": 3}, None),
    ],
)
def test_a_run_that_goes_on_forgets_that_its_last_step_was_the_last(tmp_path, intervals, kept):
    """Without more steps, or at another step, it forgets nothing."""
    old = changed(**intervals)
    longer = old._replace(config=from_flat_settings(old.config.flat() | {"steps": 6}))
    rundir.create(tmp_path, old, {})
    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures/step_000004.png"
    picture.touch()
    lines = '{"step": 3, "train/loss": 2.0}\n{"step": 4, "train/loss": 1.0, "val/mean_iou": 5.0}\n'
    (tmp_path / "metrics.jsonl").write_text(lines)
    for experiment, step in ((old, 4), (longer, 2), (longer, None)):
        rundir._extend(tmp_path, experiment, step or 0)
        assert (tmp_path / "metrics.jsonl").read_text() == lines
    for _ in range(2):  # a process that is killed after it begins again
        rundir._extend(tmp_path, longer, 4)
        found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert found == [{"step": 3, "train/loss": 2.0}, *([kept] if kept else [])]
    assert picture.exists() == (kept is not None and "val/mean_iou" in kept)


@pytest.mark.parametrize("other", ["slurm-123.out", "lost+found/x", ".gitignore", ".DS_Store", "stages/a", "log/a"])
def test_files_of_others_do_no_harm(tmp_path, other):
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / other).touch()
    rundir.check(tmp_path, RUN)


@pytest.mark.parametrize("own", ["checkpoints", "metrics.jsonl", "pictures"])
def test_a_run_without_its_configuration_is_not_written_over(tmp_path, own):
    (tmp_path / own).mkdir()
    with pytest.raises(UserError, match=f"has {own} but no config.json, which a run needs; restore that file, or"):
        rundir.check(tmp_path, RUN)


def test_all_other_settings_must_agree(tmp_path):
    rundir.create(tmp_path, RUN, {})
    for name in RUN.config.flat().keys() - {*PLACES, *RHYTHM, *MEMORY, "method", "architecture"}:
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


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": "0.2.0", "settings": {}}',
        "null",
        "[" * 10**5,
        '{"version": "0.2.0", "settings": []}',
    ],
)
def test_a_damaged_configuration_is_reported_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged or was written by another version"):
        rundir.load(tmp_path)
    with pytest.raises(UserError, match=r"config\.json is damaged or was written by another version"):
        rundir.check(tmp_path, RUN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": None}, "no steps"),
        ({"initialization": None}, "no initialization"),
        ({"precision": "half"}, "--precision=half is unknown"),
        ({"precision": 255}, "--precision=255 is of another type; expected str"),
        ({"height": "64"}, "--height='64' is of another type; expected int"),
        ({"batch_size": True}, "--batch_size=True is of another type; expected int"),
        ({"batch_size": None}, "--batch_size=None is of another type; expected int"),
        ({"seed": 1.5}, "--seed=1.5 is of another type; expected int"),
        ({"width": 2**60}, "--width=1152921504606846976 is out of range"),
        ({"sean": {"noise_std": "loud"}}, "--noise_std='loud' is of another type; expected float"),
        ({"sean": []}, "there is no setting sean"),
        ({"deeplab": {"fc_channels": 0}}, "--fc_channels=0 is too small"),
    ],
)
def test_values_that_no_command_writes_are_reported_in_one_line(tmp_path, settings, message):
    rundir.create(tmp_path, RUN, {})
    content = json.loads((tmp_path / "config.json").read_text())
    content["settings"] |= settings
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"config\.json is damaged .*{message}"):
        rundir.load(tmp_path)


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
