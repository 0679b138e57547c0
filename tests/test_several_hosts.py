"""Two processes that train one run together, each with one device, as two hosts would."""

import json
import socket

import numpy as np
from commands import Command, run


def _lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_hosts_do_what_one_with_two_devices_does(tmp_path, roads):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    together = {"coordinator_address": address, "host_count": 2, "workdir": tmp_path / "together"}
    hosts = [Command(tmp_path / f"output{i}", "train", **roads, **together, host_index=i) for i in range(2)]
    assert [host.result().code for host in hosts] == [0, 0]
    assert run(tmp_path / "output", "train", devices=2, workdir=tmp_path / "alone", **roads).code == 0
    lines, expected = _lines(tmp_path / "together"), _lines(tmp_path / "alone")
    assert [line.keys() for line in lines] == [line.keys() for line in expected]
    for line, other in zip(lines[:2], expected[:2], strict=True):  # later steps amplify rounding
        for name in ("train/loss_segmentation", "train/loss_consistency", "train/kept_pixels"):
            np.testing.assert_allclose(line[name], other[name], rtol=1e-3)
    # Each host scored its share of the images; together they are all of them.
    assert abs(lines[-1]["val/mean_iou"] - expected[-1]["val/mean_iou"]) < 2.0
    scores = [json.loads((tmp_path / d / "evaluation.json").read_text())["teacher"] for d in ("together", "alone")]
    assert np.sum(scores[0]["confusion_matrix"]) == np.sum(scores[1]["confusion_matrix"])
