"""Confusion matrices on the device against brute force, and beyond what float32 and int32 can count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.scoring import confusion
from sean_jax.scoring.confusion import confusion_matrix


def brute_force(predictions, labels, classes) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for predicted, truth in zip(np.ravel(predictions), np.ravel(labels), strict=True):
        if truth < classes:
            matrix[truth, predicted] += 1
    return matrix


def random_batch(classes, shape) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    predictions = rng.integers(0, classes, shape).astype(np.uint8)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.2] = 255
    return predictions, labels


@pytest.mark.parametrize(("classes", "shape"), [(2, (1, 1, 1)), (5, (3, 7, 11)), (19, (2, 64, 48)), (255, (1, 40, 40))])
def test_equals_brute_force(classes, shape):
    predictions, labels = random_batch(classes, shape)
    ours = confusion_matrix(jnp.asarray(predictions), jnp.asarray(labels), classes)
    assert ours.dtype == jnp.int32
    np.testing.assert_array_equal(ours, brute_force(predictions, labels, classes))


@pytest.mark.parametrize("block", [1, 10, 76, 77, 1000])
def test_equals_brute_force_in_any_blocks(monkeypatch, block):
    """231 pixels: blocks that divide them, blocks that need padding, and a single one."""
    monkeypatch.setattr(confusion, "BLOCK", block)
    predictions, labels = random_batch(5, (3, 7, 11))
    ours = confusion_matrix(jnp.asarray(predictions), jnp.asarray(labels), 5)
    np.testing.assert_array_equal(ours, brute_force(predictions, labels, 5))


def test_an_image_with_more_pixels_than_float32_can_count():
    labels = np.zeros((1, 4097, 4097), np.uint8)  # 2²⁴ is 4096 · 4096
    labels[0, 0, :4] = 255
    ours = jax.jit(confusion_matrix, static_argnums=2)(np.zeros_like(labels), labels, 2)
    assert ours.tolist() == [[4097 * 4097 - 4, 0], [0, 0]]


def test_a_batch_with_more_pixels_than_int32_can_count_is_refused():
    def shape_of(height):
        images = jax.ShapeDtypeStruct((1, height, 2**16), jnp.uint8)
        return jax.eval_shape(lambda a, b: confusion_matrix(a, b, 2), images, images).shape

    assert shape_of(2**15 - 1) == (2, 2)
    with pytest.raises(ValueError, match="smaller batch"):
        shape_of(2**15)
