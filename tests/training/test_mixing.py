"""Tests of class mixing."""

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax.training.mixing import class_mask, paste

_class_masks = jax.jit(jax.vmap(lambda key, label: class_mask(key, label, 6), (0, None)))
LABEL = np.array([[0, 0, 3, 3], [5, 5, 255, 255]], np.uint8)


def test_half_of_the_present_classes_are_drawn_rounded_up():
    keys = jax.random.split(jax.random.key(0), 300)
    three = np.where(LABEL == 255, 5, LABEL)
    for label, expected in ((LABEL, 2), (three, 2)):  # half of 4, and half of 3 rounded up
        masks = np.asarray(_class_masks(keys, label))
        drawn = [frozenset(label[mask].tolist()) for mask in masks]
        assert {len(classes) for classes in drawn} == {expected}
        # A class is drawn whole.
        assert all(np.array_equal(mask, np.isin(label, list(c))) for mask, c in zip(masks, drawn, strict=True))
        counts = [sum(c in classes for classes in drawn) for c in np.unique(label).tolist()]
        share = expected / len(counts)
        assert all(abs(count / 300 - share) < 0.12 for count in counts)  # four standard deviations


def test_images_and_labels_are_pasted_together():
    mask = jnp.asarray(LABEL[None] == 3)
    image = paste(mask, jnp.ones((1, 2, 4, 3)), jnp.zeros((1, 2, 4, 3), jnp.uint8))
    label = paste(mask, jnp.asarray(LABEL[None]), jnp.full((1, 2, 4), 9, jnp.uint8))
    np.testing.assert_array_equal(image[..., 0] == 1, mask)
    np.testing.assert_array_equal(label, np.where(LABEL == 3, 3, 9)[None])
    assert (image.dtype, label.dtype) == (jnp.float32, jnp.uint8)
