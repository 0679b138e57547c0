"""Optimisers against PyTorch's definitions, worked out by hand in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sean_jax.training import optimizers
from sean_jax.training.optimizers import OptimizerSettings, learning_rate_at, make_optimizer

GRADIENTS = [np.array([0.3, -2.0, 0.0]), np.array([-0.1, 1.0, 0.0]), np.array([0.2, 0.5, 0.0])]
START, DECAY, RATE = np.array([1.0, -0.5, 2.0]), 0.1, 0.01


def _ours(settings: OptimizerSettings, mask=None) -> np.ndarray:
    tx = make_optimizer(settings, mask)
    params = jnp.asarray(START, jnp.float32)
    state = tx.init(params)
    for gradient in GRADIENTS:
        params, state, _ = optimizers.apply(tx, jnp.asarray(gradient, jnp.float32), state, params, jnp.float32(RATE))
    return np.asarray(params)


def test_adam_adds_the_decay_before_the_moments():
    theta, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(GRADIENTS, 1):
        g = gradient + DECAY * theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(_ours(OptimizerSettings(weight_decay=DECAY)), theta, rtol=1e-5)


def test_sgd_has_pytorchs_momentum():
    theta, velocity = START.copy(), np.zeros(3)
    for gradient in GRADIENTS:
        velocity = 0.8 * velocity + gradient + DECAY * theta
        theta = theta - RATE * velocity
    settings = OptimizerSettings(optimizer="sgd", momentum=0.8, weight_decay=DECAY)
    np.testing.assert_allclose(_ours(settings), theta, rtol=1e-6)


def test_unused_parameters_do_not_decay():
    found = _ours(OptimizerSettings(weight_decay=DECAY), lambda params: False)
    assert found[2] == START[2]  # its gradient is 0
    assert _ours(OptimizerSettings(weight_decay=DECAY))[2] < START[2]


def test_heads_learn_by_their_own_rate():
    params = {name: {"kernel": jnp.ones(3)} for name in ("trunk", "head", "head_2", "conv1")}
    gradients = jax.tree.map(lambda x: 0.5 * x, params)
    moved = {}
    for factor in (1.0, 4.0):
        tx = make_optimizer(OptimizerSettings(head_learning_rate_factor=factor, weight_decay=0.0))
        after = optimizers.apply(tx, gradients, tx.init(params), params, jnp.float32(RATE))[0]
        moved[factor] = {name: float(1 - after[name]["kernel"][0]) for name in params}
    for name, distance in moved[1.0].items():
        np.testing.assert_allclose(moved[4.0][name], distance * (4 if name.startswith("head") else 1), rtol=1e-5)


@pytest.mark.parametrize("floor", [0.0, 0.05, 1.0])
def test_cosine_falls_from_the_rate_to_its_floor_and_stays_there(floor):
    settings = OptimizerSettings(learning_rate=2.0, learning_rate_schedule="cosine", learning_rate_final_fraction=floor)
    reference = optax.cosine_decay_schedule(2.0, 100, alpha=floor)
    for step in (0, 1, 25, 50, 99, 100, 150):
        np.testing.assert_allclose(learning_rate_at(settings, jnp.int32(step), 100), reference(step), rtol=1e-5)
    np.testing.assert_allclose(learning_rate_at(settings, jnp.int32(50), 100), 1 + floor, rtol=1e-6)
    np.testing.assert_allclose(learning_rate_at(settings, jnp.int32(100), 100), 2 * floor, atol=1e-7)


def test_the_constant_schedule_is_constant():
    settings = OptimizerSettings(learning_rate=3e-4)
    assert {float(learning_rate_at(settings, jnp.int32(step), 10)) for step in (0, 5, 20)} == {float(np.float32(3e-4))}


def test_metrics_are_the_norms_of_gradients_updates_and_new_parameters():
    tx = make_optimizer(OptimizerSettings(optimizer="sgd", momentum=0.0, weight_decay=0.0))
    params = {"a": jnp.array([3.0]), "b": jnp.array([[0.0, 4.0]])}
    gradients = jax.tree.map(jnp.ones_like, params)
    new, _, metrics = optimizers.apply(tx, gradients, tx.init(params), params, jnp.float32(0.5))
    np.testing.assert_allclose(new["a"], [2.5])
    np.testing.assert_allclose(metrics["train/gradient_norm"], 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["train/update_norm"], 0.5 * 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["train/parameter_norm"], (2.5**2 + 0.5**2 + 3.5**2) ** 0.5, rtol=1e-6)
    assert metrics["train/learning_rate"] == 0.5
