"""The teacher's exponential moving average, equation 7."""

from typing import Any

import jax
import jax.numpy as jnp


def update(teacher: Any, student: Any, decay: jax.Array | float) -> Any:
    """θ_T ← α θ_T + (1 − α) θ_S, leaf by leaf, with the student's new parameters."""
    return jax.tree.map(lambda t, s: decay * t + (1 - decay) * s, teacher, student)


def decay_at(step: jax.Array, decay: float, ramp: bool) -> jax.Array:
    """α at a step (0 first): constant as in the paper, or ramped as min(α, t / (t + 10)) for training from scratch."""
    t = step.astype(jnp.float32)
    return jnp.minimum(decay, t / (t + 10)) if ramp else jnp.float32(decay)
