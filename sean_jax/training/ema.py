"""The teacher: an exponential moving average of the student (equation 7)."""

from typing import Any

import jax
import jax.numpy as jnp

from sean_jax.settings import setting, settings


@settings
class EMASettings:
    """How the teacher follows the student."""

    ema_decay: float = setting(0.99, "EMA decay of the teacher (alpha of equation 7)", least=0, most=1)
    ema_ramp: bool = setting(False, "use min(ema_decay, t/(t+10)) at step t, for training from scratch")


def update(teacher: Any, student: Any, decay: jax.Array | float) -> Any:
    """θ_T ← α θ_T + (1 − α) θ_S, leaf by leaf, with the student's new parameters."""
    return jax.tree.map(lambda t, s: decay * t + (1 - decay) * s, teacher, student)


def decay_at(settings: EMASettings, step: jax.Array) -> jax.Array:
    """α at a step (0 first): constant as in the paper, or ramped as min(α, t / (t + 10)); float32."""
    decay = jnp.float32(settings.ema_decay)
    t = step.astype(jnp.float32)
    return jnp.minimum(decay, t / (t + 10)) if settings.ema_ramp else decay
