"""End-to-end tests of the command ``train``: resuming, and initial weights."""

import json
import os
import pathlib
import shutil
import signal
import time

import commands
import numpy as np
import pytest
from commands import Command, assert_refused
from PIL import Image
from rundirs import contents, same_state
from shallow import Shallow

from sean_jax import port_weights, weights
from sean_jax.api import load
from sean_jax.errors import UserError
from sean_jax.run import start as start_of_run
from sean_jax.run.checkpoints import read_state
from sean_jax.run.records import read_lines
from sean_jax.scoring.stored import read_scores
from sean_jax.scoring.visualize import GAP


def test_a_killed_run_resumes_to_the_same_bits(finished, roads, tmp_path):
    """``tests/faults`` kills it at other moments, and stops it by SIGTERM."""
    workdir = tmp_path / "run"
    command = Command(tmp_path / "output", "train", workdir=workdir, **roads)
    while command.running() and not list(workdir.glob("checkpoints/[0-9]")):
        time.sleep(0.01)
    command.send(signal.SIGKILL)
    command.result()
    # A killed process may leave lines after the restored step, an incomplete last line, and a picture.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "train/loss": 1.0}\n{"step": 8, "tr')
    steps = sorted(int(path.name) for path in workdir.glob("checkpoints/[0-9]"))
    assert steps
    Image.new("RGB", (8, 8)).save(workdir / "pictures" / "step_000007.png")
    again = commands.run(tmp_path / "output", "train", workdir=workdir, **roads)
    assert (again.code, again.said()) == (0, [])
    assert "resuming from step" in again.stdout
    assert (workdir / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert (workdir / "evaluation.json").read_bytes() == (finished / "evaluation.json").read_bytes()
    assert same_state(workdir, finished)
    names = sorted(path.name for path in (workdir / "pictures").iterdir())
    assert names == ["step_000002.png", "step_000004.png"]


def test_a_finished_run_shows_its_table_again_and_changes_nothing(run_copy, train):
    before = contents(run_copy)
    result = train(workdir=run_copy)
    assert (result.code, result.said()) == (0, [])
    assert "mean IoU" in result.stdout
    assert contents(run_copy) == before


def test_a_different_configuration_is_refused_with_its_settings(run_copy, train):
    before = contents(run_copy)
    result = train(workdir=run_copy, learning_rate=3, seed=3)
    assert_refused(result, "train", "learning_rate: 0.001 → 3.0; seed: 0 → 3", "another --workdir")
    assert contents(run_copy) == before
    assert train(workdir=run_copy, loader="tf_data").code == 0  # paths and the loader may differ


@pytest.mark.xdist_group("runs")
def test_a_finished_run_goes_on_as_if_it_had_been_longer(finished_here, train_here, tmp_path, capsys):
    """Its third step was scored because it was the last; a longer run scores the second and the fourth only."""
    workdir, finished = tmp_path / "run", finished_here
    train_here(workdir, steps=3)
    train_here(workdir)
    assert "resuming from step 3 of 4" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert (workdir / "evaluation.json").read_bytes() == (finished / "evaluation.json").read_bytes()
    assert (workdir / "config.json").read_bytes() == (finished / "config.json").read_bytes()
    assert os.listdir(workdir / "pictures") == os.listdir(finished / "pictures")
    assert same_state(workdir, finished)


@pytest.mark.xdist_group("runs")
def test_places_may_vanish_where_they_are_needed_no_longer(finished_here, train_here, tmp_path, capsys):
    """Prepared data suffice to resume, whatever became of the files; a finished run needs no data."""
    workdir = shutil.copytree(finished_here, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints/4")
    gone = {"source_dir": tmp_path / "gone", "target_dir": tmp_path / "gone"}
    train_here(workdir, **gone, save_every=3, eval_batch_size=2)
    assert "resuming from step 3 of 4" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_bytes() == (finished_here / "metrics.jsonl").read_bytes()
    assert same_state(workdir, finished_here)
    train_here(workdir, **gone, data_dir=tmp_path / "nothing")
    printed = capsys.readouterr().out
    assert "this run is already finished; its data are no longer there" in printed
    assert "mean IoU" in printed
    with pytest.raises(UserError, match="is not a folder"):
        train_here(workdir, **gone, data_dir=tmp_path / "nothing", steps=5)


def test_different_data_are_refused(run_copy, train):
    """A changed description, for example, may give the classes other ids without changing settings or label space."""
    config = json.loads((run_copy / "config.json").read_text())
    assert set(config["data"]) == {"source", "target", "scored"}
    config["data"]["source"] = "another"
    (run_copy / "config.json").write_text(json.dumps(config))
    assert_refused(train(workdir=run_copy), "train", "image list of its source set has changed")


def test_a_second_process_is_refused_and_an_interrupt_is_one_line(roads, train, tmp_path):
    changes = {"steps": 100_000, "eval_split": "none"}
    command = Command(tmp_path / "output", "train", workdir=tmp_path / "run", **roads | changes)
    while command.running() and not list((tmp_path / "run").glob("checkpoints/[0-9]*")):
        time.sleep(0.01)
    assert_refused(train(workdir=tmp_path / "run", **changes), "train", "another process is training in --workdir")
    command.send(signal.SIGINT)
    assert_refused(command.result(), "train", "interrupted", code=130)


# Weights


# With weights to start from, the initial parameters are PyTorch's by default. Those of other runs are compiled already.
INITIALIZATION = {"initialization": "scratch"}


@pytest.mark.xdist_group("runs")
def test_init_weights_loads_a_file_of_port_weights(finished_here, train_here, tmp_path, capsys):
    file = tmp_path / "vgg.npz"
    port_weights.port(str(finished_here), str(file))
    changes = {"init_weights": file, "learning_rate": 0.0, "weight_decay": 0.0, "steps": 1} | INITIALIZATION
    train_here(tmp_path / "run", **changes)
    assert "missing (0)" in capsys.readouterr().out
    student = weights.from_params(read_state(tmp_path / "run").params["student"], Shallow.TORCH_MODULES)
    for name, tensor in weights.read(file).tensors.items():
        np.testing.assert_array_equal(student[name], tensor)


@pytest.mark.xdist_group("runs")
@pytest.mark.parametrize("sampling", ["uniform", "rare_classes"])
def test_a_run_resumes_without_its_initial_weights(finished_here, train_here, tmp_path, capsys, sampling):
    """The checkpoint contains all parameters, so the file is not read, whatever the flag says."""
    file = tmp_path / "vgg.npz"
    port_weights.port(str(finished_here), str(file))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    changes = {"steps": 2, "target_sampling": sampling} | INITIALIZATION
    train_here(whole, init_weights=file, **changes)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints/2")
    file.unlink()
    capsys.readouterr()
    train_here(resumed, init_weights=tmp_path / "elsewhere.npz", **changes)
    assert "resuming from step 1" in capsys.readouterr().out
    assert (resumed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same_state(resumed, whole)
    train_here(resumed, **changes)
    with pytest.raises(UserError, match=r"vgg\.npz is not a file"):
        train_here(tmp_path / "new", init_weights=file, **changes)


@pytest.mark.xdist_group("runs")
def test_a_run_scores_the_network_that_it_starts_from(finished_here, train_here, tmp_path, capsys):
    def train() -> list[dict]:
        train_here(tmp_path, init_weights=finished_here, steps=1, **INITIALIZATION)
        return read_lines(tmp_path / "metrics.jsonl")

    start, last = train()
    of_start = next(iter(read_scores(finished_here / "evaluation.json").values()))
    assert (start["step"], start["val/mean_iou"]) == (0, of_start["mean_iou"])
    assert start["val/mean_iou"] != last["val/mean_iou"]
    assert f"step 0, before this run: mean IoU {start['val/mean_iou']:.1f}" in capsys.readouterr().out
    width = start_of_run.read(tmp_path)[0].shape[1] + GAP
    panels = [np.asarray(Image.open(tmp_path / f"pictures/step_00000{step}.png")) for step in (0, 1)]
    before = [panel[:, 2 * width : 3 * width] for panel in panels]
    np.testing.assert_array_equal(before[0], panels[0][:, 3 * width : 4 * width])
    np.testing.assert_array_equal(before[0], before[1])
    shutil.rmtree(tmp_path / "checkpoints")  # as if it had been killed before the first
    assert train() == [start, last]


@pytest.mark.xdist_group("runs")
def test_target_sampling_follows_what_the_initial_network_predicts(finished_here, roads, train_here, tmp_path):
    train_here(tmp_path / "run", init_weights=finished_here, steps=1, target_sampling="rare_classes", **INITIALIZATION)
    predict = load(finished_here)
    images = sorted((pathlib.Path(roads["target_dir"]) / "leftImg8bit/train").rglob("*.png"))
    expected = [np.bincount(predict(Image.open(path), (16, 32)).classes.ravel(), minlength=19) / 512 for path in images]
    np.testing.assert_allclose(np.load(tmp_path / "run" / "target_shares.npy"), expected, atol=1e-6)
    with pytest.raises(UserError, match="needs --init_weights of a network"):
        train_here(tmp_path / "scratch", target_sampling="rare_classes")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"width_multiplier": 1 / 16}, ("aconv.weight", "(1, 32, 1, 1)", "(1, 64, 1, 1)")),
        ({"classes": "16"}, ("classifier.conv2d_list.0", "(19,", "(16,")),
    ],
)
def test_weights_of_the_wrong_shape_are_refused_with_both_shapes(deeplab_file, train, tmp_path, changes, parts):
    network = {"architecture": "deeplab", "width_multiplier": 1 / 32} | changes
    assert_refused(train(workdir=tmp_path / "run", init_weights=deeplab_file, **network), "train", *parts)
    assert not (tmp_path / "run").exists()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_malicious_pickle_is_refused_and_not_executed(train, tmp_path):
    import pickle

    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps({"state_dict": Malicious()}))
    result = train(workdir=tmp_path / "run", init_weights=file)
    assert_refused(result, "train", "weights.pth is damaged or not a .pth file")
    assert not (commands.ROOT / "executed").exists()
    assert not (tmp_path / "run").exists()
