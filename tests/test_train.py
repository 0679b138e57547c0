"""End-to-end tests of the command ``train``: results, resuming, initial weights, and errors."""

import json
import os
import shutil
import signal
import time

import commands
import jax
import numpy as np
import pytest
import streets
from commands import Command, assert_refused
from PIL import Image

from sean_jax import weights
from sean_jax.run.checkpoints import read_state


def lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def same_state(a, b) -> bool:
    pairs = zip(jax.tree.leaves(read_state(a)), jax.tree.leaves(read_state(b)), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def train(tmp_path, roads):
    """Runs the command with the flags of ``roads`` and changes; ``None`` omits a flag."""

    def run(*words, **changes) -> commands.Result:
        flags = roads | changes
        return commands.run(tmp_path / "output", "train", *words, **{k: v for k, v in flags.items() if v is not None})

    return run


# Results of a run


def test_readme_command_at_small_scale(session_dir, tmp_path):
    """Draws and prepares the bundled data set on first use, in a new Python process."""
    flags = {"width_multiplier": 1 / 32, "height": 16, "width": 32, "steps": 4, "eval_every": 2, "save_every": 1}
    result = commands.run(
        tmp_path / "output", "train", workdir=tmp_path / "run", log_every=3, fresh=True, optimized=True, **flags
    )
    assert (result.code, result.said()) == (0, [])  # progress bars, but no messages of libraries
    assert "100%" in result.stderr
    workdir = tmp_path / "run"
    assert {path.name for path in workdir.iterdir()} == {
        *("config.json", "metrics.jsonl", "timing.jsonl", "evaluation.json", "tensorboard", "checkpoints", "pictures"),
        "parameters.txt",
    }
    settings = json.loads((workdir / "config.json").read_text())["settings"]
    assert (settings["preset"], settings["source"], settings["steps"]) == ("quick", "minicity_game", 4)
    assert [line["step"] for line in lines(workdir)] == [2, 3, 4]
    assert {"train/loss", "val/mean_iou", "val/student/mean_iou", "val/iou/road"} <= lines(workdir)[-1].keys()
    norms = ("gradient_norm", "update_norm", "parameter_norm", "learning_rate")
    assert all(lines(workdir)[-1][f"train/{name}"] > 0 for name in norms)
    assert "student/trunk" not in (overview := (workdir / "parameters.txt").read_text())
    assert {"student", "teacher"} == {line.split(":")[0] for line in overview.splitlines() if line[0] != " "}
    scores = json.loads((workdir / "evaluation.json").read_text())
    assert set(scores) == {"teacher", "student"}
    assert (scores["teacher"]["step"], scores["teacher"]["images"]) == (4, 60)
    for name in ("step_000002.png", "step_000004.png"):
        with Image.open(workdir / "pictures" / name) as picture:
            assert picture.size == (5 * 32 + 4 * 4, 4 * 16 + 3 * 4)
    assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))
    assert "mean IoU" in result.stdout
    assert "protocol all" in result.stdout


def test_tensorboard_contains_scalars_and_the_picture(finished):
    from tensorboardX.proto import event_pb2

    tags = set()
    for file in (finished / "tensorboard").iterdir():
        content, place = file.read_bytes(), 0
        while place < len(content):
            length = int.from_bytes(content[place : place + 8], "little")
            event = event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
            tags |= {(value.tag, event.step) for value in event.summary.value}
            place += length + 16
    assert {("train/loss", 1), ("val/mean_iou", 4), ("panel", 2), ("time/images_per_second", 4)} <= tags


def test_metrics_and_evaluation_contain_the_same_score(finished):
    scores = json.loads((finished / "evaluation.json").read_text())
    last = lines(finished)[-1]
    assert last["val/mean_iou"] == scores["teacher"]["mean_iou"]
    assert last["val/student/mean_iou"] == scores["student"]["mean_iou"]
    assert scores["teacher"]["images"] == 5
    labelled = 3 * (32 - 2) * 64 + 2 * (40 - 2) * 48  # all but the ignored rows, at the original size of each label
    assert np.sum(scores["teacher"]["confusion_matrix"]) == labelled


# The same run with other loaders and devices


def test_grain_gives_the_same_run_bitwise(finished, train, tmp_path):
    assert train(workdir=tmp_path / "run", loader="grain").code == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert same_state(tmp_path / "run", finished)


def test_a_profile_is_written_and_does_not_change_the_run(finished, train, tmp_path):
    result = train(workdir=tmp_path / "run", profile_steps="2:3", steps=4)
    assert (result.code, result.said()) == (0, [])
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    content = trace.read_bytes()
    assert b"train" in content
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_two_devices_give_the_same_run_within_rounding(finished, on_two_devices):
    for ours, theirs in zip(lines(on_two_devices), lines(finished), strict=True):
        for name in ("train/loss", "train/loss_segmentation"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)


def test_source_only_trains_without_a_target_folder_and_another_seed_differs(finished, train, tmp_path):
    flags = {"method": "source_only", "target_split": "test", "seed": 1, "steps": 1}
    assert train(workdir=tmp_path / "run", **flags).code == 0
    assert {"train/loss", "val/mean_iou"} <= lines(tmp_path / "run")[-1].keys()
    assert lines(tmp_path / "run")[0]["train/loss"] != lines(finished)[0]["train/loss"]


def test_target_training_labels_are_never_read(finished, roads, train, tmp_path):
    """Missing or unreadable labels of the target's training split change nothing."""
    target = shutil.copytree(roads["target_dir"], tmp_path / "cityscapes")
    for number, label in enumerate(sorted((target / "gtFine/train").rglob("*.png"))):
        label.unlink() if number % 2 else label.write_bytes(b"garbage")
    assert train(workdir=tmp_path / "run", target_dir=target, data_dir=tmp_path / "data").code == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_a_target_without_any_label_trains_and_is_not_scored(train, tmp_path, session_dir):
    flags = {"target_dir": streets.cityscapes(tmp_path / "city", labels=False), "eval_split": "none", "steps": 1}
    result = train(workdir=tmp_path / "run", **flags)
    assert (result.code, result.said()) == (0, [])
    assert "no scores" in result.stdout
    assert not (tmp_path / "run" / "evaluation.json").exists()


# Resuming


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_bits(finished, roads, tmp_path, number):
    workdir = tmp_path / "run"
    command = Command(tmp_path / "output", "train", workdir=workdir, **roads)
    while command.running() and not list(workdir.glob("checkpoints/[0-9]")):
        time.sleep(0.01)
    command.send(number)
    result = command.result()
    if number == signal.SIGTERM:
        assert (result.code, result.said()) == (0, [])
    else:
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
    result = train(workdir=run_copy, steps=5, seed=3)
    assert_refused(result, "train", "seed: 0 → 3", "steps: 4 → 5", "another --workdir")
    assert contents(run_copy) == before
    assert train(workdir=run_copy, loader="grain").code == 0  # paths and the loader may differ


def test_different_data_are_refused(run_copy, train):
    """A changed description, for example, may give the classes other ids without changing settings or label space."""
    config = json.loads((run_copy / "config.json").read_text())
    assert set(config["data"]) == {"source", "target", "scored"}
    config["data"]["source"] = "another"
    (run_copy / "config.json").write_text(json.dumps(config))
    assert_refused(train(workdir=run_copy), "train", "image list of its source set has changed")


def test_a_second_process_is_refused_and_an_interrupt_is_one_line(roads, train, tmp_path):
    command = Command(tmp_path / "output", "train", workdir=tmp_path / "run", **roads | {"steps": 100_000})
    while command.running() and not list((tmp_path / "run").glob("checkpoints/[0-9]*")):
        time.sleep(0.01)
    assert_refused(train(workdir=tmp_path / "run", steps=100_000), "train", "another process is training in --workdir")
    command.send(signal.SIGINT)
    assert_refused(command.result(), "train", "interrupted", code=130)


# Weights


def test_init_weights_loads_a_file_of_port_weights(finished, train, tmp_path):
    file = tmp_path / "vgg.npz"
    assert commands.run(tmp_path / "output", "port_weights", input=finished, output=file).code == 0
    result = train(workdir=tmp_path / "run", init_weights=file, learning_rate=0, weight_decay=0, steps=1)
    assert (result.code, result.said()) == (0, [])
    assert "missing (0)" in result.stdout
    student = weights.from_params(read_state(tmp_path / "run").params["student"])
    for name, tensor in weights.read(file).tensors.items():
        np.testing.assert_array_equal(student[name], tensor)


def test_a_run_resumes_without_its_initial_weights(finished, roads, train, tmp_path):
    """The checkpoint contains all parameters, so the file is not read, whatever the flag says."""
    file = tmp_path / "vgg.npz"
    assert commands.run(tmp_path / "output", "port_weights", input=finished, output=file).code == 0
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert train(workdir=whole, init_weights=file, steps=2).code == 0
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints/2")
    file.unlink()
    result = train(workdir=resumed, init_weights=tmp_path / "elsewhere.npz", steps=2)
    assert (result.code, result.said()) == (0, [])
    assert (resumed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same_state(resumed, whole)
    assert train(workdir=resumed, steps=2).code == 0
    assert_refused(train(workdir=tmp_path / "new", init_weights=file, steps=2), "train", "vgg.npz is not a file")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"width_multiplier": 1 / 16}, ("aconv.weight", "(1, 8, 1, 1)", "(1, 16, 1, 1)")),
        ({"classes": "16"}, ("classifier.conv2d_list.0", "(19,", "(16,")),
    ],
)
def test_weights_of_the_wrong_shape_are_refused_with_both_shapes(finished, train, tmp_path, changes, parts):
    file = tmp_path / "sean.safetensors"
    assert commands.run(tmp_path / "output", "port_weights", input=finished, output=file).code == 0
    assert_refused(train(workdir=tmp_path / "run", init_weights=file, **changes), "train", *parts)
    assert not (tmp_path / "run").exists()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_malicious_pickle_is_refused_and_not_executed(train, tmp_path):
    import pickle

    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps({"state_dict": Malicious()}))
    result = train(workdir=tmp_path / "run", init_weights=file)
    assert_refused(result, "train", "system")
    assert not (commands.ROOT / "executed").exists()
    assert not (tmp_path / "run").exists()


# Errors


@pytest.mark.parametrize(
    ("words", "changes", "parts", "code"),
    [
        (["--no_such_flag=1"], {}, ("no_such_flag", "--help"), 2),
        (["--method=dann"], {}, ("--method=dann", "<sean|source_only>"), 2),
        (["--profile_steps=3"], {}, ("--profile_steps=3", "10:14"), 1),
        ([], {"method": "source_only", "attention_threshold": 0.1}, ("--attention_threshold is a setting of",), 1),
        (["--height=tall"], {}, ("--height=tall",), 2),
        (["extra"], {}, ("'extra'", "--name=value"), 2),
        ([], {"batch_size": 0}, ("--batch_size=0", "at least 1"), 1),
        ([], {"height": 15}, ("--height=15", "at least 16"), 1),
        ([], {"ema_decay": 1.5}, ("--ema_decay=1.5", "at most 1"), 1),
        ([], {"learning_rate": "nan"}, ("--learning_rate=nan",), 1),
        ([], {"source": "gta6"}, ("gta6", "expected one of gta5"), 1),
        ([], {"source": None, "preset": "paper"}, ("--preset=paper needs --source",), 1),
        ([], {"classes": "20"}, ("'20'", "expected one of 19, 16, 13"), 1),
        ([], {"source_dir": None}, ("gta5 needs --source_dir",), 1),
        ([], {"source_dir": "/nowhere"}, ("--source_dir=/nowhere", "not a folder"), 1),
        ([], {"target_split": "night"}, ("'night'", "train, val, test"), 1),
        ([], {"eval_split": "test"}, ("--eval_split=test", "no labels"), 1),
        ([], {"target": "minicity_camera", "selection": "oracle"}, ("--selection=oracle", "--selection=last"), 1),
        ([], {"init_weights": "/nowhere.pth"}, ("/nowhere.pth",), 1),
        ([], {"coordinator_address": "localhost:1"}, ("--host_count", "--host_index"), 1),
    ],
)
def test_wrong_flags_are_reported_and_start_no_run(train, tmp_path, words, changes, parts, code):
    assert_refused(train(*words, workdir=tmp_path / "run", **changes), "train", *parts, code=code)
    assert not (tmp_path / "run").exists()


def _remove(folder):
    (folder / "labels/00002.png").unlink()


def _truncate(folder):
    image = folder / "images/00002.png"
    image.write_bytes(image.read_bytes()[:300])


def _unknown_id(folder):
    label = np.array(Image.open(folder / "labels/00002.png"))
    label[0, 0] = 77
    Image.fromarray(label).save(folder / "labels/00002.png")


def _other_size(folder):
    Image.new("L", (32, 32), 7).save(folder / "labels/00002.png")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (_remove, ("00002.png", "does not exist")),
        (_truncate, ("images/00002.png", "truncated")),
        (_unknown_id, ("labels/00002.png", "77")),
        (_other_size, ("labels/00002.png", "32x32", "64x32")),
    ],
)
def test_a_damaged_data_set_is_reported_and_starts_no_run(train, tmp_path, damage, parts):
    damage(streets.gta5(tmp_path / "gta5"))
    result = train(workdir=tmp_path / "run", source_dir=tmp_path / "gta5", data_dir=tmp_path / "data")
    assert_refused(result, "train", *parts)
    assert not (tmp_path / "run").exists()
    # The target is prepared first and may stay; no files of the source may.
    assert not list((tmp_path / "data" / "prepared_images").glob("gta5*"))


def test_a_missing_folder_is_reported_before_preparation(train, tmp_path):
    result = train(workdir=tmp_path / "run", source_dir=tmp_path / "gone", data_dir=tmp_path / "data")
    assert_refused(result, "train", "--source_dir", "is not a folder")
    assert not (tmp_path / "data").exists()


def test_wrong_hosts_are_reported_in_one_line(train, tmp_path):
    hosts = {"coordinator_address": "localhost:1", "host_count": 2, "host_index": 2}
    assert_refused(train(workdir=tmp_path / "run", **hosts), "train", "--host_index=2 with --host_count=2")


def test_a_folder_with_other_files_is_refused(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    assert_refused(train(workdir=tmp_path / "run"), "train", "not empty and contains no run")
    assert os.listdir(tmp_path / "run") == ["thesis.txt"]


def test_a_file_instead_of_a_folder_is_refused(train, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(train(workdir=tmp_path / "file"), "train", "is a file")
    assert_refused(train(workdir="/dev/null/run"), "train", "Not a directory", "/dev/null/run")
    assert_refused(train(workdir=tmp_path / "run", data_dir=tmp_path / "file"), "train", "--data_dir")


def _damage_config(run):
    (run / "config.json").write_text("{")


def _damage_metrics(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    shutil.rmtree(run / "checkpoints/4")


def _damage_checkpoint(run):
    for file in (run / "checkpoints/4/state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (_damage_config, ("config.json", "is damaged or was written by another version")),
        (_damage_metrics, ("metrics.jsonl", "line 2")),
        (_damage_checkpoint, ("checkpoint 4", "cannot be read", "to resume from the previous checkpoint")),
    ],
)
def test_a_damaged_run_is_reported_in_one_line(run_copy, train, damage, parts):
    damage(run_copy)
    before = contents(run_copy)
    assert_refused(train(workdir=run_copy), "train", *parts)
    assert contents(run_copy) == before


# Failures during training


def test_a_non_finite_loss_stops_training_and_keeps_the_last_good_checkpoint(train, tmp_path):
    # So large that the second step overflows and, with a ramp, the norms of the first do not.
    result = train(workdir=tmp_path / "run", learning_rate=1e16, steps=20)
    assert_refused(result, "train", "training stopped at step 2", "the last good checkpoint is step 1", "learning_rate")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(read_state(tmp_path / "run")))
    assert [line["step"] for line in lines(tmp_path / "run")] == [1]


@pytest.mark.parametrize("limit", [500, 4000])
def test_a_run_resumes_after_a_full_disk(finished, train, tmp_path, limit):
    """Files are limited to ``limit`` bytes: the first limit is too small for config.json, the second for a checkpoint.

    (Prepared data and compiled programs exist already from an earlier run.)
    """
    workdir = tmp_path / "run"
    assert_refused(train(workdir=workdir, file_limit=limit), "train", "cannot write", "File too large")
    if limit == 500:
        assert not workdir.exists()
        return
    assert (workdir / "config.json").exists()
    assert not list(workdir.glob(".*"))
    assert train(workdir=workdir).code == 0
    assert (workdir / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert same_state(workdir, finished)


def test_a_full_disk_in_tensorboards_thread_stops_the_run(finished, train, tmp_path):
    """TensorBoard writes on a thread of its own; the run must not wait for it forever."""
    flags = {"eval_every": 1, "save_every": 4, "file_limit": 8000}
    assert_refused(train(workdir=tmp_path / "run", **flags), "train", "cannot write: File too large")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    for picture in (tmp_path / "run" / "pictures").iterdir():
        Image.open(picture).load()  # complete, if it exists
