"""Logit adjustment (Menon et al., ICLR 2021): a loss that does not prefer the classes that the source shows most.

The loss sees the logits plus τ·log π, where π are the frequencies of the classes in the source. The logits themselves
then learn to rank the classes as if all were equally frequent.
"""

import jax
import jax.numpy as jnp

from sean_jax.settings import setting, settings


@settings
class LogitAdjustmentSettings:
    """How much the loss makes up for rare classes."""

    logit_adjustment: float = setting(
        0.0, "weight of the log frequencies of the source's classes in the loss (tau); 1 balances the classes", least=0
    )


def initial_shares(num_classes: int) -> jax.Array:
    """The accumulated shares before any label: those of one image that shows all classes alike; ``[classes]``."""
    return jnp.full(num_classes, 1 / num_classes, jnp.float32)


def shares(labels: jax.Array, num_classes: int) -> jax.Array:
    """The share of each class in each label, summed over labels ``[b, H, W]``; ignored pixels have none."""
    pixels = labels.shape[1] * labels.shape[2]
    counts = [jnp.sum(labels == index, dtype=jnp.int32) for index in range(num_classes)]
    return jnp.stack(counts).astype(jnp.float32) / pixels


def log_frequencies(accumulated: jax.Array) -> jax.Array:
    """log π of accumulated shares, ``[classes]``; at most 0, and finite."""
    return jnp.log(accumulated / accumulated.sum())
