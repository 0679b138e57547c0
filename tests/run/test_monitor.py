"""Tests which evaluation a run keeps in ``evaluation.json``."""

import dataclasses
import json

import numpy as np
import pytest

from sean_jax.run import directory as rundir
from sean_jax.run.monitor import Monitor
from sean_jax.scoring.scorer import Evaluation


@pytest.mark.parametrize(("selection", "kept"), [("last", 4), ("oracle", 3)])
def test_the_last_or_the_later_of_the_best_evaluations_is_kept(finished, tmp_path, selection, kept):
    run = rundir.load(finished)
    run = run._replace(config=dataclasses.replace(run.config, selection=selection))
    name, score = next(iter(json.loads((finished / "evaluation.json").read_text()).items()))
    with Monitor(tmp_path, run, 0, images_per_step=4, leader=True) as monitor:
        for step, mean_iou in {1: 40.0, 2: 50.0, 3: 50.0, 4: 45.0}.items():
            scores = {name: score | {"mean_iou": mean_iou, "step": step}}
            monitor.evaluation(step, Evaluation(scores, np.zeros((4, 4, 3), np.uint8)))
    assert json.loads((tmp_path / "evaluation.json").read_text())[name]["step"] == kept
