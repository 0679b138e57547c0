"""Tests training on two hosts, simulated by two processes with one device each."""

import json
import socket

import numpy as np
from commands import Command, run


def _lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_hosts_equal_one_host_with_two_devices(tmp_path, roads, on_two_devices):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    together = {"coordinator_address": address, "host_count": 2, "workdir": tmp_path / "together"}
    hosts = [Command(tmp_path / f"output{i}", "train", **roads, **together, host_index=i) for i in range(2)]
    assert [host.result().code for host in hosts] == [0, 0]
    lines, expected = _lines(tmp_path / "together"), _lines(on_two_devices)
    assert [line.keys() for line in lines] == [line.keys() for line in expected]
    for line, other in zip(lines[:2], expected[:2], strict=True):  # later steps amplify rounding
        for name in ("train/loss_segmentation", "train/loss_consistency", "train/kept_pixels"):
            np.testing.assert_allclose(line[name], other[name], rtol=1e-3)
    # Each host scored its share of the images. Scoring the same checkpoint on one host counts the same pixels.
    scores = json.loads((tmp_path / "together" / "evaluation.json").read_text())
    out = tmp_path / "alone.json"
    assert run(tmp_path / "output", "evaluate", workdir=tmp_path / "together", out=out).code == 0
    again = json.loads(out.read_text())
    assert again["confusion_matrix"] == scores[again["network"]]["confusion_matrix"]
    assert np.sum(again["confusion_matrix"]) == 3 * 30 * 64 + 2 * 38 * 48
