"""Confusion matrices and scores against brute force and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.scoring.metrics import class_iou, confusion_matrix, format_table, summarize


def brute_force(predictions, labels, classes) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for predicted, truth in zip(np.ravel(predictions), np.ravel(labels), strict=True):
        if truth < classes:
            matrix[truth, predicted] += 1
    return matrix


@pytest.mark.parametrize(("classes", "shape"), [(2, (1, 1, 1)), (5, (3, 7, 11)), (19, (2, 64, 48)), (255, (1, 40, 40))])
def test_confusion_matrix_equals_brute_force(classes, shape):
    rng = np.random.default_rng(0)
    predictions = rng.integers(0, classes, shape).astype(np.uint8)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.2] = 255
    ours = confusion_matrix(jnp.asarray(predictions), jnp.asarray(labels), classes)
    np.testing.assert_array_equal(ours, brute_force(predictions, labels, classes))


def test_a_large_image_is_counted_exactly():
    """More pixels of one pair than bfloat16, or float16, could count."""
    labels = np.zeros((1, 1024, 2049), np.uint8)
    labels[0, 0, :3] = 255
    ours = confusion_matrix(jnp.zeros(labels.shape, jnp.uint8), jnp.asarray(labels), 2)
    assert ours.tolist() == [[1024 * 2049 - 3, 0], [0, 0]]


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
