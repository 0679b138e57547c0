"""Losses of discriminators that tell two domains apart at each position, and of a network that confuses them.

Sums over a device's share of the batch; the caller divides them by counts over all devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sean_jax.data.label_spaces import IGNORE_LABEL

_NO_AREA = 5e-6  # added to the weights of an image, so that a class without area has a loss of 0 (CCA)


class Domains(NamedTuple):
    """One array for each domain."""

    source: jax.Array
    target: jax.Array


class DomainLosses(NamedTuple):
    """Sums over positions of both domains, float32 scalars."""

    loss: jax.Array  # cross-entropy with the true domains: trains the discriminator
    inverse: jax.Array  # cross-entropy with the other domains: trains the network to confuse it
    recognised: jax.Array  # positions whose domain the discriminator recognises


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


def count_recognised(logits: jax.Array, domain: int, weights: jax.Array | None = None) -> jax.Array:
    """Counts the positions whose larger logit is that of ``domain``, or sums their weights; float32 scalar."""
    recognised = jnp.argmax(logits, -1) == domain
    if weights is not None:
        return jnp.sum(jnp.where(recognised, weights, 0))
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


def domain_losses(logits: Domains, weights: Domains | None = None) -> DomainLosses:
    """The losses of a discriminator whose domain 0 is the source and 1 the target.

    Args:
      logits: ``[..., 2]`` float32 of each domain.
      weights: of the positions, ``[...]``; default: 1.
    """
    of_source, of_target = weights or (None, None)
    source, target = logits
    return DomainLosses(
        domain_cross_entropy(source, 0, of_source) + domain_cross_entropy(target, 1, of_target),
        domain_cross_entropy(source, 1, of_source) + domain_cross_entropy(target, 0, of_target),
        count_recognised(source, 0, of_source) + count_recognised(target, 1, of_target),
    )


def adaptation_factor(step: jax.Array, ramp_steps: jax.Array | float) -> jax.Array:
    """2 / (1 + exp(−10 t / T)) − 1 at step t, from 0 at step 0 and before to 1; float32.

    Ganin and Lempitsky's schedule (ICML 2015), which both methods apply to the learning rate of the confusion.
    """
    progress = step.astype(jnp.float32).clip(0) / ramp_steps
    return 2 / (1 + jnp.exp(-10 * progress)) - 1


def cell_means(values: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The mean of ``values`` over each cell of a feature map: ``[b, H, W, c] → [b, *size, c]``.

    A cell is a block of ⌊H/h⌋×⌊W/w⌋ positions; what the blocks do not cover at the bottom and on the right is left out.
    """
    (height, width), (rows, columns) = values.shape[1:3], size
    tall, wide = height // rows, width // columns
    covered = values[:, : rows * tall, : columns * wide]
    return covered.reshape(len(values), rows, tall, columns, wide, -1).mean((2, 4))


def label_shares(labels: jax.Array, num_classes: int, size: tuple[int, int], void: str) -> jax.Array:
    """The share of each class in each cell of a feature map, by ground truth; float32 ``[b, *size, classes]``.

    Args:
      labels: ``[b, H, W]`` class index or ``IGNORE_LABEL``.
      void: ``ignored``: ignored pixels count for no class; ``class_0``: they count as class 0 (CCA's public code).
    """
    labels = labels.astype(jnp.int32)
    if void == "class_0":
        labels = jnp.where(labels == IGNORE_LABEL, 0, labels)
    return cell_means(jax.nn.one_hot(labels, num_classes), size)


def without_moving_classes(probs: jax.Array, static: jax.Array, first_moving: int = 11) -> jax.Array:
    """CCA's static-object prior: suppresses the classes of moving objects where a scene does not change.

    It is for pairs of cities, whose prior comes from pictures of several years; the method here does not use it.

    Args:
      probs: ``[b, H, W, classes]``.
      static: ``[b, H, W]`` bool, where the scene does not change.
      first_moving: the first of Cityscapes' 19 classes that moves.
    """
    moving = jnp.arange(probs.shape[-1]) >= first_moving
    kept = jnp.where(static[..., None] & moving.reshape(1, 1, 1, -1), 0, probs)
    return kept / kept.sum(-1, keepdims=True)


def class_weights(shares: jax.Array) -> jax.Array:
    """Weights of the cells in the loss of each class, which add up to 1 in an image that contains the class.

    Args:
      shares: ``[b, h, w, classes]``.

    Returns:
      ``[classes, b, h, w]``.
    """
    weights = jnp.moveaxis(shares, -1, 0)
    return weights / (weights.sum((2, 3), keepdims=True) + _NO_AREA)
