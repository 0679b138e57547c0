"""Tests of logit adjustment: class frequencies, and what networks learn with it."""

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.training.logit_adjustment import initial_shares, log_frequencies, shares

pytestmark = pytest.mark.xdist_group("source_only")  # shares the compiled step


def test_frequencies_are_those_of_the_labelled_pixels_and_of_one_uniform_image():
    labels = np.zeros((2, 4, 8), np.uint8)
    labels[0, 0], labels[1, :2], labels[1, 2:] = 1, 2, IGNORE_LABEL
    accumulated = initial_shares(4) + shares(jnp.asarray(labels), 4)
    expected = np.array([24, 8, 16, 0]) / 32 + 1 / 4
    np.testing.assert_allclose(log_frequencies(accumulated), np.log(expected / expected.sum()), rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_networks_probabilities_follow_the_frequencies_to_the_power_that_is_left(weight):
    """Images say nothing of their labels, so the network can learn the frequencies only: π^(1 − τ)."""
    frequencies = np.array([0.6, 0.25, 0.1, 0.05])
    raw = steps.batch("source_only")
    raw["source_image"] = np.full_like(raw["source_image"], 100)
    drawn = np.random.default_rng(0).choice(4, raw["source_label"].shape, p=frequencies)
    raw["source_label"] = drawn.astype(np.uint8)
    method = builders.method("source_only", noise_std=0.0, learning_rate=1e-2, logit_adjustment=weight)
    state, _ = steps.run(method, raw, steps=150)
    logits = method.network.predict(jax.device_get(state.params["student"]), raw["source_image"]).logits
    found = np.asarray(jax.nn.softmax(logits)).mean((0, 1, 2))
    expected = frequencies ** (1 - weight)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)
