"""End-to-end tests of the command ``train``: results, loaders, devices."""

import json
import shutil

import commands
import numpy as np
import pytest
import streets
from PIL import Image
from rundirs import lines, same_state

from sean_jax import port_weights


def test_readme_command_at_small_scale(session_dir, tmp_path):
    """Draws and prepares the bundled data set on first use, in a new Python process."""
    flags = {"width_multiplier": 1 / 32, "height": 16, "width": 32, "steps": 4, "eval_every": 2, "save_every": 1}
    result = commands.run(tmp_path / "output", "train", workdir=tmp_path / "run", log_every=3, fresh=True, **flags)
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
    report = port_weights.port(str(workdir), str(tmp_path / "teacher.npz"))
    assert (report.kind, report.missing, report.unexpected) == ("sean", [], [])


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


# The same run with other loaders, data and devices


@pytest.mark.xdist_group("runs")
def test_tf_data_gives_the_same_run_bitwise_as_grain(finished_here, train_here, tmp_path):
    train_here(tmp_path / "run", loader="tf_data")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (finished_here / "metrics.jsonl").read_bytes()
    assert same_state(tmp_path / "run", finished_here)


def test_a_profile_is_written_and_does_not_change_the_run(finished, train, tmp_path):
    result = train(workdir=tmp_path / "run", profile_steps="3:4", steps=4)
    assert (result.code, result.said()) == (0, [])
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    content = trace.read_bytes()
    assert b"train" in content
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


@pytest.mark.xdist_group("runs")
def test_two_devices_give_the_same_run_within_rounding(finished, finished_here):
    for ours, theirs in zip(lines(finished_here), lines(finished), strict=True):
        for name in ("train/loss", "train/loss_segmentation"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)


@pytest.mark.xdist_group("runs")
def test_source_only_trains_without_target_images_and_another_seed_differs(finished_here, train_here, tmp_path):
    """The first segmentation loss is that of SEAN if the seed is the same."""
    expected = lines(finished_here)[0]["train/loss_segmentation"]
    for seed in (0, 1):
        workdir = tmp_path / f"seed{seed}"
        train_here(workdir, method="source_only", target_split="test", seed=seed, steps=1)
        (line,) = lines(workdir)
        assert "val/mean_iou" in line
        assert (line["train/loss"] == pytest.approx(expected, rel=5e-6)) == (seed == 0)


@pytest.mark.xdist_group("runs")
def test_target_training_labels_are_never_read(finished_here, roads, train_here, tmp_path):
    """Missing or unreadable labels of the target's training split change nothing."""
    target = shutil.copytree(roads["target_dir"], tmp_path / "cityscapes")
    for number, label in enumerate(sorted((target / "gtFine/train").rglob("*.png"))):
        label.unlink() if number % 2 else label.write_bytes(b"garbage")
    train_here(tmp_path / "run", target_dir=target, data_dir=tmp_path / "data")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (finished_here / "metrics.jsonl").read_bytes()


@pytest.mark.xdist_group("runs")
def test_a_target_without_any_label_trains_and_is_not_scored(train_here, tmp_path, capsys):
    target = streets.cityscapes(tmp_path / "city", labels=False)
    train_here(tmp_path / "run", target_dir=target, eval_split="none", steps=1)
    assert "--eval_split=none: the run computes no scores" in capsys.readouterr().out
    assert not (tmp_path / "run" / "evaluation.json").exists()
