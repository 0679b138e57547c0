"""Tests of the command ``report``, its errors, and the timing file that it reads."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import commands
import numpy as np
import pytest
from commands import assert_refused

from sean_jax.run import directory as rundir
from sean_jax.run.monitor import Monitor
from sean_jax.scoring.scorer import Evaluation

# The command


def test_the_command_writes_one_file_and_prints_the_warnings(run_copy, tmp_path):
    before = {path.name for path in run_copy.iterdir()}
    result = commands.run(tmp_path / "output", "report", workdir=run_copy)
    assert (result.code, result.said()) == (0, [])
    assert "classes have IoU 0" in result.stdout
    assert f"wrote {run_copy / 'report.html'}" in result.stdout
    assert {path.name for path in run_copy.iterdir()} == before | {"report.html"}
    first = (run_copy / "report.html").read_bytes()
    out = tmp_path / "again.html"
    assert commands.run(tmp_path / "output", "report", workdir=run_copy, out=out).code == 0
    assert out.read_bytes() == first  # the page is deterministic


def test_the_report_needs_neither_tensorflow_nor_a_display(finished):
    program = (
        "import sys; from sean_jax import report; from sean_jax.reporting import page, rundata;"
        f"page.render(rundata.load_runs([{str(finished)!r}]));"
        "sys.exit(str([m for m in ('tensorflow', 'matplotlib.pyplot') if m in sys.modules]))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr == "[]\n"


def _no_configuration(run):
    (run / "config.json").unlink()


def _damaged_metrics(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "train/loss": "low"}\n')


def _damaged_timing(run):
    (run / "timing.jsonl").write_text("[]\n")


def _damaged_scores(run):
    (run / "evaluation.json").write_text('{"first": {"mean_iou": 1}}')


def _damaged_configuration(run):
    (run / "config.json").write_text('{"settings": {}}')


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (shutil.rmtree, ("is not a folder",)),
        (_no_configuration, ("config.json is missing",)),
        (_damaged_configuration, ("config.json is not a run's configuration",)),
        (_damaged_metrics, ("metrics.jsonl, line 2 is damaged",)),
        (_damaged_timing, ("timing.jsonl, line 1 is damaged",)),
        (_damaged_scores, ("evaluation.json holds no scores", "classes")),
    ],
)
def test_a_bad_run_is_reported_and_writes_no_page(run_copy, tmp_path, damage, parts):
    damage(run_copy)
    out = tmp_path / "report.html"
    assert_refused(commands.run(tmp_path / "output", "report", workdir=run_copy, out=out), "report", *parts)
    assert not out.exists()


def test_bad_flags_are_reported_in_one_line(finished, tmp_path):
    def refused(*parts, words=(), **flags):
        result = commands.run(tmp_path / "output", "report", *words, **flags)
        assert_refused(result, "report", *parts)

    refused("--workdir is needed")
    refused("does not exist", workdir=finished, out=tmp_path / "no" / "report.html")
    (tmp_path / "folder").mkdir()
    refused("Is a directory", workdir=finished, out=tmp_path / "folder")
    refused("more than once", words=[f"--workdir={finished}"], workdir=finished)
    assert sorted(os.listdir(tmp_path)) == ["folder", "output"]


def test_more_runs_than_colours_are_refused(finished, tmp_path):
    copies = [tmp_path / str(number) for number in range(7)]
    for copy in copies:
        copy.mkdir()
        shutil.copy(finished / "config.json", copy)
    words = [f"--workdir={copy}" for copy in copies]
    result = commands.run(tmp_path / "output", "report", *words, out=tmp_path / "report.html")
    assert_refused(result, "report", "7 runs", "at most 6")


# Times


def test_times_are_written_to_timing_jsonl(finished):
    lines = [json.loads(line) for line in (finished / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["training_seconds"] > 0 and line["images_per_second"] > 0 for line in lines)
    assert [line["step"] for line in lines if line.get("evaluation_seconds", 0) > 0] == [2, 4]
    assert "second" not in (finished / "metrics.jsonl").read_text()


def test_times_after_the_restored_step_are_replaced(finished, tmp_path):
    run = rundir.load(finished)
    run = run._replace(config=dataclasses.replace(run.config, selection="last"))
    name, score = next(iter(json.loads((finished / "evaluation.json").read_text()).items()))
    evaluation = Evaluation({name: score}, np.zeros((4, 4, 3), np.uint8))

    def steps(first, last, restored):
        with Monitor(tmp_path, run, restored, images_per_step=4, leader=True) as monitor:
            for step in range(first, last + 1):
                if step != 3:
                    monitor.metrics(step, {"train/loss": 1.0})
                if step >= 3:
                    monitor.evaluation(step, evaluation)
                monitor.end_step(step)
        return [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]

    before = steps(1, 4, 0)
    assert [line["step"] for line in before] == [1, 2, 4]  # without a log at step 3, its start time is unknown
    assert [set(line) for line in before] == [
        *[{"step", "training_seconds", "images_per_second"}] * 2,
        {"step", "training_seconds", "images_per_second", "evaluation_seconds"},
    ]
    after = steps(3, 4, 2)
    assert after[:2] == before[:2]
    assert [line["step"] for line in after] == [1, 2, 4]
