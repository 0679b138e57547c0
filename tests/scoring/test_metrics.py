"""Scores of small confusion matrices, computed by hand."""

import subprocess
import sys

import numpy as np
import pytest

from sean_jax.scoring.metrics import class_iou, format_table, summarize


def test_scores_and_protocols_need_no_jax():
    program = (
        "import sys; from sean_jax.scoring import metrics, protocols, stored, visualize;"
        "sys.exit(str([name for name in ('jax', 'tensorflow') if name in sys.modules]))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr == "[]\n"


def test_iou_by_hand():
    #            predicted a, b, c; c is absent
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(class_iou(confusion), [3 / 6, 4 / 7, np.nan])
    scores = summarize(confusion, ("a", "b", "c"))
    assert scores["mean_iou"] == pytest.approx(100 * (3 / 6 + 4 / 7) / 2)
    assert scores["iou"] == {"a": 50.0, "b": pytest.approx(400 / 7), "c": None}
    assert scores["absent"] == ["c"]


def test_a_class_that_is_only_predicted_counts_as_zero():
    scores = summarize(np.array([[5, 1], [0, 0]]), ("a", "b"))
    assert scores["iou"]["b"] == 0.0
    assert scores["mean_iou"] == pytest.approx(50 * 5 / 6)


def test_nothing_labelled_scores_zero_and_names_all():
    scores = summarize(np.zeros((2, 2), int), ("a", "b"))
    assert (scores["mean_iou"], scores["absent"]) == (0.0, ["a", "b"])


def test_table():
    scores = {"mean_iou": 41.66, "iou": {"road": 83.333, "traffic light": None, "car": 0.0}}
    assert format_table(scores).splitlines() == [
        "  road             83.3",
        "  traffic light  absent",
        "  car               0.0",
        "  mean IoU         41.7",
    ]
