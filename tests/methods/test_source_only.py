"""Tests of the source-only baseline, and of the optimiser and EMA teacher of all self-ensembling methods."""

import builders
import jax
import numpy as np
import pytest
import steps

from sean_jax.training.ema import EMASettings, decay_at

pytestmark = pytest.mark.xdist_group("source_only")  # the tests share compiled programs


def test_the_teacher_equals_the_closed_form_of_the_ema():
    """θ_T after k steps is α^k θ_0 + (1 − α) Σ α^(k−i) θ_S,i, where θ_S,i is the student after optimiser step i."""
    method = builders.method("source_only", ema_decay=0.9, learning_rate=1e-2)
    state, students = None, []
    for _ in range(4):
        state, _ = steps.run(method, steps.batch("source_only"), state=state)
        students.append(jax.tree.map(np.asarray, state.params["student"]))
    expected = jax.tree.map(lambda x: 0.9**4 * np.asarray(x, np.float64), steps.params())
    for i, student in enumerate(students, 1):
        expected = jax.tree.map(lambda e, s, i=i: e + 0.1 * 0.9 ** (4 - i) * s, expected, student)
    assert state is not None
    assert steps.relative(state.params["teacher"], expected) < 1e-6
    assert steps.relative(state.params["teacher"], students[-1]) > 1e-3


def test_ema_ramp_is_min_of_alpha_and_t_over_t_plus_10():
    ramp = EMASettings(ema_decay=0.6, ema_ramp=True)
    found = [float(decay_at(ramp, np.int32(t))) for t in (0, 1, 10, 15, 16, 1000)]
    np.testing.assert_allclose(found, [0, 1 / 11, 0.5, 0.6, 0.6, 0.6], rtol=1e-6)
    assert float(decay_at(EMASettings(ema_decay=0.6), np.int32(0))) == np.float32(0.6)


def test_weight_decay_is_added_to_the_gradient_before_the_moments():
    """Adam's first step is lr · sign(gradient + decay · θ), so weight decay moves parameters with a small gradient."""
    method = builders.method("source_only", weight_decay=1e3, learning_rate=1e-3)
    state, metrics = steps.run(method, steps.batch("source_only"))
    before = steps.params()["trunk"]["conv"]["kernel"]
    moved = np.asarray(state.params["student"]["trunk"]["conv"]["kernel"]) - before
    large = np.abs(before) > 0.1
    np.testing.assert_allclose(moved[large], -1e-3 * np.sign(before[large]), rtol=1e-3)
    whole = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, state.params["student"], steps.params())
    norm = sum((x**2).sum() for x in jax.tree.leaves(whole)) ** 0.5
    np.testing.assert_allclose(metrics["train/update_norm"], norm, rtol=1e-4)


def test_the_target_is_never_read():
    method, batch = builders.method("source_only"), steps.batch("sean")
    other = batch | {"target_image": 255 - batch["target_image"]}
    one, two = (steps.run(method, found)[0] for found in (batch, other))
    assert steps.same_bits(one, two)


@pytest.mark.parametrize("domains", ["source_and_target", "target"])
def test_noise_domains_select_source_noise(domains):
    batch = steps.batch("source_only")
    losses = [
        float(steps.run(builders.method("source_only", noise_domains=domains, noise_std=std), batch)[1]["train/loss"])
        for std in (0.0, 100.0)
    ]
    assert (losses[0] == losses[1]) == (domains == "target")
