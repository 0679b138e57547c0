"""Constrained target labels: the closest distribution to a prediction whose class areas lie within bounds.

FCNs in the Wild bounds the share of the image that each class may take, and solves for the labels as Constrained CNN
(Pathak et al., ICCV 2015) does: the dual has two multipliers for each class.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

ITERATIONS = 60  # at most; ten to thirty are usual

_PRECISION = lax.Precision.HIGHEST
_RESIDUAL = 1e-6  # of stationarity and of complementarity; float32 leaves about 1e-7
_COMPLEMENTARITY = 1e-9
_LARGEST_STEP = 3.0  # of a multiplier; a prediction that is almost certain has hardly any curvature


class ClassAreas(NamedTuple):
    """The share of an image that each class takes, over the source images that contain the class; ``[classes]``."""

    low: jax.Array  # 10th percentile
    mean: jax.Array
    high: jax.Array  # 90th percentile; 0 for a class that no image contains


class Constrained(NamedTuple):
    """The constrained labels of an image and the multipliers of its constraints."""

    probs: jax.Array  # [cells, classes] q
    lower: jax.Array  # [classes] multipliers of the lower bounds, 0 to the slack's weight
    upper: jax.Array  # [classes] multipliers of the upper bounds, at least 0


def class_areas(shares: jax.Array) -> ClassAreas:
    """Statistics of the shares of each class in each source image, ``[images, classes]``."""
    contained = jnp.where(shares > 0, shares, jnp.nan)
    low, high = jnp.nanpercentile(contained, jnp.array([10.0, 90.0]), axis=0)
    return ClassAreas(*(jnp.nan_to_num(x) for x in (low, jnp.nanmean(contained, axis=0), high)))


def present_classes(logits: jax.Array, areas: ClassAreas) -> jax.Array:
    """Whether each class is predicted in more than a tenth of its small area; ``[cells, classes]`` → ``[classes]``."""
    predicted = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1])
    return predicted.mean(0) > 0.1 * areas.low


def constrained_labels(
    logits: jax.Array, present: jax.Array, lower: jax.Array, upper: jax.Array, slack_weight: jax.Array | float
) -> Constrained:
    """Minimises, over q, the mean over cells of KL(q‖p), p being the softmax of the logits, with bounded class areas.

    The area of a class is the mean of q over cells. That of an absent class is 0, that of any other lies between its
    bounds; an area may fall short of its lower bound at a cost of ``slack_weight`` times the shortfall.
    If the upper bounds do not add up to 1, they are scaled until they do. Where a lower bound exceeds the upper one,
    the upper one holds. If no class is present, q is p.

    The optimum is q ∝ p·exp(λ − μ). A primal-dual interior-point method finds the multipliers λ and μ in at most
    :data:`ITERATIONS` iterations, each of which solves a ``[classes, classes]`` system.

    Args:
      logits: ``[cells, classes]`` float32.
      present: ``[classes]`` bool.
      lower, upper: ``[classes]`` bounds on the areas.
      slack_weight: cost of slack, which bounds λ.
    """
    log_probs = jax.nn.log_softmax(logits)
    present = present & (upper > 0)
    none = ~present.any()
    present |= none
    upper = jnp.where(none, 1.0, jnp.where(present, upper, 0.0))
    upper = jnp.where(present, upper / jnp.minimum(upper.sum(), 1.0), 1.0)
    lower = jnp.where(present & ~none, jnp.minimum(lower, upper), 0.0)
    log_probs = jnp.where(present[None], log_probs, -jnp.inf)

    state = _interior_point(log_probs, lower, upper, jnp.asarray(slack_weight, jnp.float32))
    # Of a multiplier and its complement, one is zero: the smaller one.
    slack_weight = state.lam + state.room
    lam = jnp.where(state.z_lam > state.lam, 0.0, jnp.where(state.z_room > state.room, slack_weight, state.lam))
    mu = jnp.where(state.z_mu > state.mu, 0.0, state.mu)
    lam, mu = jnp.where(present, lam, 0.0), jnp.where(present, mu, 0.0)
    return Constrained(_tilted(log_probs, lam, mu), lam, mu)


def _tilted(log_probs: jax.Array, lam: jax.Array, mu: jax.Array) -> jax.Array:
    """q ∝ p·exp(λ − μ), ``[cells, classes]``."""
    return jax.nn.softmax(log_probs + (lam - mu)[None])


class _State(NamedTuple):
    """Multipliers and their complements, all positive ``[classes]``."""

    lam: jax.Array  # λ
    room: jax.Array  # the slack's weight − λ
    mu: jax.Array  # μ
    z_lam: jax.Array  # by how much the area exceeds the lower bound
    z_room: jax.Array  # slack
    z_mu: jax.Array  # by how much the area stays below the upper bound

    def products(self) -> jax.Array:
        return jnp.stack([self.lam * self.z_lam, self.room * self.z_room, self.mu * self.z_mu])


def _interior_point(log_probs: jax.Array, lower: jax.Array, upper: jax.Array, slack_weight: jax.Array) -> _State:
    """Minimises mean log Σ p·exp(λ − μ) − λ·lower + μ·upper over 0 ≤ λ ≤ slack_weight and 0 ≤ μ."""

    def stationarity(state: _State, area: jax.Array) -> tuple[jax.Array, jax.Array]:
        return area - lower - state.z_lam + state.z_room, upper - area - state.z_mu

    def unfinished(carry: tuple[jax.Array, _State, jax.Array]) -> jax.Array:
        iteration, _, converged = carry
        return (iteration < ITERATIONS) & ~converged

    def iterate(carry: tuple[jax.Array, _State, jax.Array]) -> tuple[jax.Array, _State, jax.Array]:
        iteration, state, _ = carry
        probs = _tilted(log_probs, state.lam, state.mu)
        area = probs.mean(0)
        curvature = jnp.diag(area) - jnp.matmul(probs.T, probs, precision=_PRECISION) / len(probs)
        new = _newton_step(state, curvature, *stationarity(state, area))
        residual = jnp.abs(jnp.stack(stationarity(new, _tilted(log_probs, new.lam, new.mu).mean(0)))).max()
        return iteration + 1, new, (residual < _RESIDUAL) & (new.products().max() < 10 * _COMPLEMENTARITY)

    half = jnp.full_like(lower, slack_weight / 2)
    z = jnp.full_like(lower, 0.1)
    start = _State(half, half, half, z, z, z)
    return lax.while_loop(unfinished, iterate, (jnp.int32(0), start, jnp.bool_(False)))[1]


def _newton_step(state: _State, curvature: jax.Array, r_lam: jax.Array, r_mu: jax.Array) -> _State:
    """One step towards stationarity and a tenth of the present complementarity, short of all bounds."""
    lam, room, mu, z_lam, z_room, z_mu = state
    t = jnp.maximum(0.1 * state.products().mean(), _COMPLEMENTARITY)
    c_lam, c_room, c_mu = t / lam - z_lam, t / room - z_room, t / mu - z_mu
    # Eliminating the complements leaves H·(dλ − dμ) + D·dλ = g and −H·(dλ − dμ) + D'·dμ = g'.
    d_lam, d_mu = z_lam / lam + z_room / room + 1e-7, z_mu / mu + 1e-7
    g_lam, g_mu = c_lam - c_room - r_lam, c_mu - r_mu
    matrix = curvature + jnp.diag(d_lam * d_mu / (d_lam + d_mu))
    step = jnp.linalg.solve(matrix, (d_mu * g_lam - d_lam * g_mu) / (d_lam + d_mu))
    bend = jnp.matmul(curvature, step, precision=_PRECISION)
    # Dividing by the larger one keeps rounding errors small.
    by_lam = (g_lam - bend) / d_lam
    by_mu = (g_mu + bend) / d_mu
    step_lam = jnp.where(d_lam > d_mu, by_lam, step + by_mu)
    step_mu = jnp.where(d_lam > d_mu, by_lam - step, by_mu)
    steps = _State(
        step_lam,
        -step_lam,
        step_mu,
        c_lam - z_lam * step_lam / lam,
        c_room + z_room * step_lam / room,
        c_mu - z_mu * step_mu / mu,
    )
    to_bound = jnp.stack([jnp.where(d < 0, -x / d, jnp.inf) for x, d in zip(state, steps, strict=True)]).min()
    size = jnp.minimum(jnp.minimum(1.0, 0.95 * to_bound), _LARGEST_STEP / jnp.abs(step).max().clip(1e-6))
    return _State(*(x + size * d for x, d in zip(state, steps, strict=True)))
