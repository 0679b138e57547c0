"""End-to-end tests of the command ``train``: errors in flags and files, and failures during training."""

import os
import shutil

import commands
import jax
import numpy as np
import pytest
import streets
from commands import assert_refused
from PIL import Image
from rundirs import contents, lines, same_state

from sean_jax.run.checkpoints import read_state


@pytest.mark.parametrize(
    ("words", "changes", "parts", "code"),
    [
        (["--no_such_flag=1"], {}, ("no_such_flag", "--help"), 2),
        (["--method=dann"], {}, ("--method=dann", "<sean|source_only|"), 2),
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


def test_a_folder_that_lacks_the_configuration_of_its_run_is_refused(train, tmp_path):
    (tmp_path / "run" / "pictures").mkdir(parents=True)
    assert_refused(train(workdir=tmp_path / "run"), "train", "has pictures but no config.json")
    assert os.listdir(tmp_path / "run") == ["pictures"]


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


def _damage_every_checkpoint(run):
    for step in (2, 3, 4):
        (run / f"checkpoints/{step}/state/manifest.ocdbt").unlink()


def _damage_a_checkpoint_without_checksums(run):
    (run / "checkpoints/4/checksums.sha256").unlink()
    (run / "checkpoints/4/state/manifest.ocdbt").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (_damage_config, ("config.json", "is damaged or was written by another version")),
        (_damage_metrics, ("metrics.jsonl", "line 2")),
        (_damage_every_checkpoint, ("no checkpoint", "(4: state/manifest.ocdbt is missing; 3: ", "move them out")),
        (
            _damage_a_checkpoint_without_checksums,
            ("checkpoint 4", "cannot be read", "to resume from the previous checkpoint"),
        ),
    ],
)
def test_a_damaged_run_is_reported_in_one_line(run_copy, train, damage, parts):
    damage(run_copy)
    before = contents(run_copy)
    assert_refused(train(workdir=run_copy), "train", *parts)
    assert contents(run_copy) == before


def _largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_flipped_bit_in_a_checkpoint_costs_one_step(finished, run_copy, train, tmp_path):
    """TensorStore alone would restore it as another parameter."""
    file = _largest_file(run_copy / "checkpoints/4")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    read = commands.run(tmp_path / "output", "port_weights", input=run_copy, output=tmp_path / "weights.npz")
    name = file.relative_to(run_copy / "checkpoints/4").as_posix()
    reason = f"is damaged ({name} differs from its checksum); run the training command again"
    assert_refused(read, "port_weights", f"checkpoint 4 in {run_copy / 'checkpoints'} {reason}")
    result = train(workdir=run_copy)
    assert (result.code, result.said()) == (0, [])
    renamed = run_copy / "checkpoints/4.damaged"
    line = f"checkpoint 4 was damaged ({name} differs from its checksum) and renamed to {renamed}; 1 step is lost\n"
    assert line in result.stdout
    assert "resuming from step 3 of 4" in result.stdout
    assert (renamed / name).read_bytes() == content
    assert (run_copy / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert (run_copy / "evaluation.json").read_bytes() == (finished / "evaluation.json").read_bytes()
    assert same_state(run_copy, finished)


# Failures during training


def test_a_non_finite_loss_stops_training_and_keeps_the_last_good_checkpoint(train, tmp_path):
    # So large that the second step overflows and, with a ramp, the norms of the first do not.
    result = train(workdir=tmp_path / "run", learning_rate=1e17, steps=20)
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
