"""Tests of the command ``evaluate``: scores of a run and of its exported weights, and errors."""

import json
import os
import pickle
import shutil

import commands
import numpy as np
import pytest
from commands import assert_refused

from sean_jax import weights

SCORES = ("mean_iou", "iou", "confusion_matrix", "images", "split", "protocol")


@pytest.fixture
def evaluate(tmp_path, roads):
    """Runs the command with the data set of the run."""

    def run(*words, file_limit=None, **flags) -> commands.Result:
        return commands.run(tmp_path / "output", "evaluate", *words, file_limit=file_limit, **flags)

    return run


@pytest.fixture(scope="session")
def exported(finished, session_dir, tmp_path_factory):
    """The finished run's teacher as a weights file."""
    file = tmp_path_factory.mktemp("exported") / "teacher.safetensors"
    assert commands.run(session_dir / "output", "port_weights", input=finished, output=file).code == 0
    return file


def test_a_run_and_its_exported_weights_reproduce_the_scores_of_training(evaluate, finished, exported, roads, tmp_path):
    of_training = json.loads((finished / "evaluation.json").read_text())
    data = {"dataset": "cityscapes", "dataset_dir": roads["target_dir"], "split": "val"}
    for name, flags in {
        "teacher": {"workdir": finished},
        "student": {"workdir": finished, "network": "student", "batch_size": 3, "devices": 2},
        "exported": {"weights": exported, "loader": "grain", **data},
    }.items():
        result = (
            evaluate(out=tmp_path / f"{name}.json", **flags)
            if "devices" not in flags
            else commands.run(tmp_path / "output", "evaluate", out=tmp_path / f"{name}.json", **flags)
        )
        assert (result.code, result.said()) == (0, [])
        scores = json.loads((tmp_path / f"{name}.json").read_text())
        expected = of_training["student" if name == "student" else "teacher"]
        assert {key: scores[key] for key in SCORES} == {key: expected[key] for key in SCORES}
        for key in ("network", "checkpoint", "seed", "method", "selection"):  # the file's metadata names its origin
            assert scores[key] == expected[key]
        assert "mean IoU" in result.stdout


def test_the_input_size_can_be_changed(evaluate, finished, tmp_path):
    result = evaluate(workdir=finished, height=33, width=47, out=tmp_path / "scores.json")
    assert (result.code, result.said()) == (0, [])
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["input_size"] == "47x33"
    assert np.sum(scores["confusion_matrix"]) == 3 * 30 * 64 + 2 * 38 * 48


@pytest.mark.parametrize(
    ("flags", "parts", "code"),
    [
        ({"workdir": None}, ("--workdir", "--weights"), 1),
        ({"weights": "x.npz"}, ("either --workdir", "or --weights"), 1),
        ({"workdir": "/nowhere"}, ("--workdir=/nowhere", "config.json"), 1),
        ({"split": "test"}, ("no labels", "test", "--split"), 1),
        ({"split": "night"}, ("'night'", "train, val, test"), 1),
        ({"dataset": "synthia"}, ("synthia",), 1),
        ({"dataset": "gta5"}, ("--dataset_dir",), 1),
        ({"dataset": "kitti"}, ("'kitti'", "expected one of"), 1),
        ({"dataset_dir": "/nowhere"}, ("--dataset_dir=/nowhere", "not a folder"), 1),
        ({"protocol": "13-of-16"}, ("--protocol=13-of-16", "19 classes", "all"), 1),
        ({"protocol": "12"}, ("--protocol=12", "cca-13"), 2),
        ({"batch_size": 0}, ("--batch_size=0",), 2),
        ({"height": 8}, ("--height=8", "16"), 2),
        ({"workdir": None, "from": "x.json", "height": 99}, ("--from", "leave out --height"), 1),
        ({"out": "/nowhere/scores.json"}, ("--out=/nowhere/scores.json", "/nowhere"), 1),
    ],
)
def test_wrong_flags_are_reported_in_one_line(evaluate, finished, flags, parts, code):
    given = {key: value for key, value in ({"workdir": finished} | flags).items() if value is not None}
    assert_refused(evaluate(**given), "evaluate", *parts, code=code)


def test_a_data_set_without_the_classes_is_refused_before_preparation(evaluate, finished):
    """The data set has 16 of the 19 classes; the message names the other three."""
    from sean_jax.data.catalogue import DATASETS
    from sean_jax.data.label_spaces import LABEL_SPACES

    supplied = set(DATASETS["synthia"].label_ids.values())
    missing = [name for name in LABEL_SPACES["19"].classes if name not in supplied]
    result = evaluate(workdir=finished, dataset="synthia", dataset_dir="/nowhere")
    assert_refused(result, "evaluate", *(missing or ["--dataset_dir=/nowhere"]))


def test_a_full_disk_keeps_the_old_scores(evaluate, finished, tmp_path):
    (tmp_path / "scores").mkdir()
    out = tmp_path / "scores" / "scores.json"
    out.write_text("{}")
    assert_refused(evaluate(workdir=finished, out=out, file_limit=3000), "evaluate", "cannot write", "free space")
    assert os.listdir(out.parent) == ["scores.json"]
    assert out.read_text() == "{}"


def test_port_weights_on_a_full_disk_leaves_no_files(finished, tmp_path):
    (tmp_path / "weights").mkdir()
    flags = {"input": finished, "output": tmp_path / "weights" / "teacher.npz", "file_limit": 3000}
    assert_refused(commands.run(tmp_path / "output", "port_weights", **flags), "port_weights", "cannot write")
    assert os.listdir(tmp_path / "weights") == []


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_unusable_weights_are_reported_in_one_line(evaluate, deeplab_file, tmp_path):
    pickled = tmp_path / "weights.pt"
    pickled.write_bytes(pickle.dumps({"state_dict": Malicious()}))
    assert_refused(
        evaluate(weights=pickled, dataset="cityscapes"), "evaluate", "weights.pt is damaged or not a .pt file"
    )
    assert not (commands.ROOT / "executed").exists()
    file = weights.read(deeplab_file)
    for name, metadata in {
        "no_classes": {key: value for key, value in file.metadata.items() if key != "classes"},
        "odd_classes": file.metadata | {"classes": {"name": "x"}},
        "odd_architecture": file.metadata | {"architecture": {"fc_dilation": "wide"}},
        "odd_input": file.metadata | {"input_convention": "lab"},
        "other_width": file.metadata | {"architecture": file.metadata["architecture"] | {"width_multiplier": 1 / 16}},
        "odd_network": file.metadata | {"network": {"name": "teacher"}},
        "odd_colour": file.metadata | {"classes": file.metadata["classes"] | {"palette": [[float("inf")] * 3] * 19}},
        "empty": {"format": "sean_jax"},
    }.items():
        weights.write(tmp_path / f"{name}.npz", file.tensors, metadata)
        result = evaluate(weights=tmp_path / f"{name}.npz", dataset="cityscapes")
        if name == "no_classes":
            assert_refused(result, "evaluate", "--dataset_dir")  # the label space is inferred, the folder is missing
        else:
            assert_refused(result, "evaluate", f"{name}.npz")


def test_a_run_without_a_checkpoint_is_refused(evaluate, run_copy):
    shutil.rmtree(run_copy / "checkpoints")
    assert_refused(evaluate(workdir=run_copy), "evaluate", "no complete checkpoint yet")
