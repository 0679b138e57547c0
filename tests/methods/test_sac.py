"""Tests of SAC: averaging over views, thresholds and weights by class, running confidence."""

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from sean_jax.methods import sac
from sean_jax.methods.sac import Taught
from sean_jax.training import geometry
from sean_jax.training.geometry import View
from sean_jax.training.parallel import AXIS

pytestmark = pytest.mark.xdist_group("sac")


average, take = jax.jit(sac.average), jax.jit(geometry.take)


def _method(**settings):
    return builders.method("sac", views=2, **settings)


def test_views_that_agree_are_averaged_to_themselves_and_others_to_the_mean():
    """The crop sees the right half of the image's rows, so there the two views count equally."""
    probabilities = jax.nn.softmax(jax.random.normal(jax.random.key(0), (4, 4, 3)))
    smooth = jax.image.resize(probabilities, (32, 32, 3), "bilinear")
    views = View(jnp.array([1.0, 0.5]), jnp.array([[0.0, 0.0], [0.25, 0.5]]), jnp.array([False, True]))
    seen = jax.vmap(take, (0, None))(views, smooth)
    averaged = average(views, seen)
    np.testing.assert_allclose(averaged[0, 10:20, 18:30], smooth[10:20, 18:30], atol=0.02)
    np.testing.assert_allclose(averaged[:, ..., :].sum(-1), 1, atol=1e-4)
    other = average(views, seen.at[1].set(jnp.eye(3)[0]))
    expected = (smooth + jnp.eye(3)[:1, None]) / 2
    np.testing.assert_allclose(other[0, 10:22, 18:30], expected[10:22, 18:30], atol=1e-4)
    np.testing.assert_allclose(other[0, :7], smooth[:7], atol=1e-4)
    np.testing.assert_allclose(other[1], take(jax.tree.map(lambda x: x[1], views), other[0]), atol=1e-4)


def test_thresholds_and_weights_follow_the_class():
    """Class 1 is rare (running confidence near 0), so it keeps pixels that class 0 would lose, and weighs more."""
    method = _method(relative_threshold=0.75, least_threshold=0.1, focal_power=3.0, prior_start=1e-3)
    label = jnp.array([[0, 0, 1, 1]], jnp.uint8)[None, None]
    confidence = jnp.array([[0.9, 0.6, 0.9, 0.12]], jnp.float32)[None, None]
    peak = jnp.full((1, 1, 4), 0.9, jnp.float32)
    prior = jnp.array([0.5, 1e-4, 1e-3, 1e-3], jnp.float32)
    taught = Taught(jnp.zeros((1, 1, 1, 4, 3)), label, confidence, peak, peak)
    found, weight = method.pseudo_labels(taught, prior)
    # Thresholds: 0.75 · 0.9 = 0.675 for class 0; 0.675 · (1 − exp(−0.1)) = 0.064, so the least one, for class 1.
    np.testing.assert_array_equal(found[0, 0, 0], [0, 255, 1, 1])
    expected = np.array([0.9, 0.6, 0.9, 0.12]) * (1 - np.array([0.5, 0.5, 1e-4, 1e-4])) ** 3
    np.testing.assert_allclose(weight[0, 0, 0], expected, rtol=1e-5)


def test_the_running_confidence_starts_with_its_first_value():
    method = _method(prior_decay=0.9)

    def update(memory, mean):
        return jax.pmap(method.update_prior, AXIS, in_axes=(None, 0), out_axes=None, devices=steps.DEVICES[:1])(
            memory, jnp.asarray(mean, jnp.float32)[None]
        )

    memory = method.init(jax.random.key(0), steps.params()).memory
    np.testing.assert_allclose(memory["prior"], 1e-3)
    memory = update(memory, [[[0.5, 0.5, 0, 0], [0.7, 0.3, 0, 0]]])
    np.testing.assert_allclose(memory["prior"], [0.6, 0.4, 9e-4, 9e-4], rtol=1e-5)
    np.testing.assert_array_equal(memory["seen"], [True, True, False, False])
    memory = update(memory, [[[0.1, 0.4, 0.5, 0], [0.1, 0.4, 0.5, 0]]])
    np.testing.assert_allclose(memory["prior"], [0.55, 0.4, 0.5, 8.1e-4], rtol=1e-5)


def test_the_teacher_sees_the_views_without_changed_colours():
    """The first view is the image itself; two views of equal parameters differ by their crop only."""
    method, raw = _method(), steps.batch()
    keys = jax.random.split(jax.random.key(5), 4)
    target = jnp.asarray(raw["target_image"], jnp.float32)
    taught = jax.jit(method.teach)(steps.params(), keys, target)
    np.testing.assert_allclose(taught.image[:, 0], target, atol=1e-2)
    views = jax.jit(jax.vmap(lambda key: jax.tree.map(lambda x: x[1], method.draw_views(key))))(keys)
    crop = jax.vmap(take)(views, target)
    np.testing.assert_allclose(taught.image[:, 1], crop, atol=1e-2)
    np.testing.assert_allclose(taught.mean.sum(-1), 1, atol=1e-4)
    np.testing.assert_allclose(taught.peak.max(-1), taught.confidence.max((2, 3)), rtol=1e-6)
