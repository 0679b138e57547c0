"""Losses of a discriminator that tells two domains apart by position, and of a network that confuses it.

Sums over a device's share of the batch; the caller divides them by counts over all devices.
"""

import jax
import jax.numpy as jnp
import optax


def domain_cross_entropy(logits: jax.Array, domain: int, weights: jax.Array | None = None) -> jax.Array:
    """Sums the cross-entropy of domain logits with one domain at all positions.

    Args:
      logits: ``[..., 2]`` float32.
      domain: 0 or 1, the domain that the logits are compared with. The true one trains the discriminator; the other
        one trains a network to confuse it.
      weights: of the positions, ``[...]``; default: 1.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.full(logits.shape[:-1], domain, jnp.int32))
    return jnp.sum(losses if weights is None else weights * losses)


def count_recognised(logits: jax.Array, domain: int) -> jax.Array:
    """Counts the positions whose larger logit is that of ``domain``; float32 scalar."""
    recognised = jnp.argmax(logits, -1) == domain
    return jnp.sum(recognised, dtype=jnp.int32).astype(jnp.float32)  # an int32 count is exact


def add_to_window(margins: jax.Array, step: jax.Array, margin: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Puts a step's margin into the window of the latest ones, and returns the window and the mean over it.

    A margin is the discriminator's accuracy minus the threshold, in percent: near zero, where the sign of the mean
    decides, float32 resolves it better than the accuracy itself.

    Args:
      margins: ``[window]`` float32, where the margin of step i (0 first) is at i modulo the window's length.
      step: steps before this one. In the first steps, the mean is over the margins that there are.
      margin: of this step.
    """
    margins = margins.at[step % margins.size].set(margin)
    filled = jnp.arange(margins.size) <= step
    return margins, jnp.mean(margins, where=filled)
