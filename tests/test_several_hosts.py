"""Tests training on two hosts, simulated by two processes with one device each."""

import json
import socket

import numpy as np
import pytest
from commands import Command, assert_refused, run

from sean_jax.cli import multihost


def _lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _slurm(count: int, index: int) -> dict[str, object]:
    """What ``srun`` tells each of the processes that it starts on one machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        job = probe.getsockname()[1]  # JAX derives the port from the job's number
    return {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": 1,
        "SLURM_STEP_NUM_TASKS": count,
        "SLURM_NTASKS": count,
        "SLURM_PROCID": index,
        "SLURM_LOCALID": index,
    }


@pytest.mark.xdist_group("runs")
def test_two_hosts_equal_one_host_with_two_devices(tmp_path, roads, finished_here):
    """Started as by Slurm, without flags."""
    variables, workdir, roads = _slurm(2, 0), tmp_path / "together", roads | {"steps": 2}
    processes = [
        Command(
            tmp_path / f"output{index}",
            "train",
            **roads,
            workdir=workdir,
            variables=variables | {"SLURM_PROCID": index, "SLURM_LOCALID": index},
        )
        for index in range(2)
    ]
    results = [process.result() for process in processes]
    assert [result.code for result in results] == [0, 0], results
    lines, expected = _lines(tmp_path / "together"), _lines(finished_here)[:2]
    assert [line.keys() for line in lines] == [line.keys() for line in expected]
    for line, other in zip(lines, expected, strict=True):  # later steps amplify rounding
        for name in ("train/loss_segmentation", "train/loss_consistency", "train/kept_pixels"):
            np.testing.assert_allclose(line[name], other[name], rtol=1e-3)
    # Each host scored its share of the images. Scoring the same checkpoint on one host counts the same pixels.
    scores = json.loads((tmp_path / "together" / "evaluation.json").read_text())
    out = tmp_path / "alone.json"
    assert run(tmp_path / "output", "evaluate", workdir=tmp_path / "together", out=out).code == 0
    again = json.loads(out.read_text())
    assert again["confusion_matrix"] == scores[again["network"]]["confusion_matrix"]
    assert np.sum(again["confusion_matrix"]) == 3 * 30 * 64 + 2 * 38 * 48
    # One host goes on where two have stopped.
    longer = run(tmp_path / "output", "train", workdir=workdir, devices=2, **roads | {"steps": 3})
    assert longer.code == 0
    assert "resuming from step 2 of 3" in longer.stdout


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        (_slurm(2, 1), "Slurm"),
        (_slurm(1, 0), None),  # srun of a single process
        ({"SLURM_JOB_ID": 7, "SLURM_NTASKS": 2}, None),  # in an allocation, but not started by srun
        (_slurm(2, 0) | {"SLURM_STEP_NUM_TASKS": 1}, None),  # an interactive step of a job with two tasks
        (_slurm(2, 0) | {"SLURM_STEP_NUM_TASKS": ""}, "Slurm"),
        # Variables of a job elsewhere.
        (_slurm(2, 0) | {"SLURM_STEP_NUM_TASKS": "", "SLURM_STEP_NODELIST": "node[1-2].invalid"}, None),
        ({"OMPI_COMM_WORLD_SIZE": 4, "OMPI_COMM_WORLD_RANK": 1}, "Open MPI"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a single pod
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": 1}, "Kubernetes"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "Cloud TPU"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ],
)
def test_processes_know_what_started_them(monkeypatch, variables, launcher):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert multihost.launched_by() == launcher


def test_a_launcher_that_jax_cannot_follow_is_reported(tmp_path):
    """Open MPI 5 does not say where its first process is."""
    variables = {"OMPI_COMM_WORLD_SIZE": 2, "OMPI_COMM_WORLD_RANK": 0}
    result = run(tmp_path / "output", "train", workdir=tmp_path / "run", variables=variables)
    assert_refused(result, "train", "Open MPI started several processes, but JAX cannot join them", "--multihost=none")
