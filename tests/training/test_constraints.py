"""Tests of constrained labels: bounds hold, and primal and dual values agree, which proves the optimum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax, xlogy

from sean_jax.training.constraints import class_areas, constrained_labels, present_classes

CELLS, CLASSES, SLACK = 60, 6, 2.0

solve = jax.jit(constrained_labels)


@functools.cache
def _problems(count: int = 24):
    """Random problems: sharp and flat predictions, loose and tight bounds, and a few absent classes."""
    rng = np.random.default_rng(0)
    problems = []
    for i in range(count):
        logits = rng.normal(size=(CELLS, CLASSES)) * rng.uniform(0.5, 6) + rng.normal(size=CLASSES) * rng.uniform(0, 8)
        present = rng.random(CLASSES) < 0.8
        present[: 1 + i % 2] = True
        areas = rng.dirichlet(np.ones(CLASSES), size=int(rng.integers(1, 9)))  # of one image: equality
        upper = np.percentile(areas, 90, axis=0)
        upper *= max(1, 1.02 / upper[present].sum())
        problems.append((logits, present, np.minimum(areas.mean(0), upper), upper))
    return problems


def _solve(logits, present, lower, upper):
    found = solve(jnp.float32(logits), jnp.asarray(present), jnp.float32(lower), jnp.float32(upper), jnp.float32(SLACK))
    return (np.asarray(x, np.float64) for x in found)


def test_the_labels_satisfy_the_constraints_and_are_optimal():
    active = 0
    for logits, present, lower, upper in _problems():
        q, lam, mu = _solve(logits, present, lower, upper)
        area = q.mean(0)
        np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
        assert (q[:, ~present] == 0).all()
        assert (area <= upper + 1e-5)[present].all()
        short = present & (area < lower - 1e-5)
        np.testing.assert_allclose(lam[short], SLACK, rtol=1e-5)  # slack is used where it costs its full weight
        log_probs = log_softmax(np.float64(np.float32(logits)), axis=1)[:, present]
        shortfall = SLACK * np.maximum(lower - area, 0)[present].sum()
        primal = (xlogy(q, q).sum(1) - (q[:, present] * log_probs).sum(1)).mean() + shortfall
        lam, mu = lam[present], mu[present]
        assert ((lam >= 0) & (lam <= SLACK * (1 + 1e-6)) & (mu >= 0)).all()
        dual = lam @ lower[present] - mu @ upper[present] - logsumexp(log_probs + lam - mu, axis=1).mean()
        assert abs(primal - dual) < 1e-5 * max(1, primal)
        active += (lam > 0).sum() + (mu > 0).sum()
    assert active > 30


def test_a_prediction_within_its_bounds_is_kept():
    logits = np.random.default_rng(1).normal(size=(CELLS, CLASSES))
    q, lam, mu = _solve(logits, np.ones(CLASSES, bool), np.full(CLASSES, 0.01), np.full(CLASSES, 0.9))
    np.testing.assert_allclose(q, softmax(logits, axis=1), rtol=1e-5)
    assert (lam == 0).all()
    assert (mu == 0).all()


@pytest.mark.parametrize("scale", [1, 40])
def test_bounds_that_cannot_hold_give_finite_labels(scale):
    rng = np.random.default_rng(2)
    logits, every = scale * rng.normal(size=(CELLS, CLASSES)), np.ones(CLASSES, bool)
    nothing, low = np.zeros(CLASSES), np.full(CLASSES, 0.1)
    q, *_ = _solve(logits, every, nothing, low)  # upper bounds add up to 0.6, and are scaled to 1
    np.testing.assert_allclose(q.mean(0), 1 / CLASSES, rtol=1e-3)
    q, *_ = _solve(logits, every, np.full(CLASSES, 0.3), low * 2)  # the upper bounds win over the lower ones
    assert (q.mean(0) <= 0.2 + 1e-5).all()
    for present in (np.zeros(CLASSES, bool), every):  # no class is present; no class may have any area
        q, *_ = _solve(logits, present, nothing, nothing)
        np.testing.assert_allclose(q, softmax(np.float32(logits), axis=1), atol=1e-5)


def test_class_areas_are_percentiles_over_the_images_with_the_class():
    shares = np.random.default_rng(3).dirichlet(np.ones(4), size=9)
    shares[::2, 1], shares[:, 3] = 0, 0
    found = class_areas(jnp.float32(shares))
    for c in range(3):
        areas = shares[shares[:, c] > 0, c]
        expected = np.percentile(areas, 10), areas.mean(), np.percentile(areas, 90)
        np.testing.assert_allclose([x[c] for x in found], expected, rtol=1e-5)
    assert [float(x[3]) for x in found] == [0, 0, 0]


def test_a_class_is_present_if_more_than_a_tenth_of_its_small_area_is_predicted():
    logits = jnp.zeros((100, 3)).at[:2, 1].set(1).at[2, 2].set(1)  # areas 0.97, 0.02, 0.01
    areas = class_areas(jnp.array([[0.6, 0.1, 0.3]]))
    assert present_classes(logits, areas).tolist() == [True, True, False]
