"""The losses of equations 3 to 5, as sums over a device's share of the batch.

The caller divides them by counts over all devices: a mean of device means would weight pixels unequally.
"""

import jax
import jax.numpy as jnp
import optax

from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.ops.resize import resize_bilinear


def count_labelled(labels: jax.Array) -> jax.Array:
    """Counts the pixels of ``labels`` (``[b, H, W]``, class index or ``IGNORE_LABEL``) with a class; float32 scalar."""
    return _count(labels != IGNORE_LABEL)


def segmentation_loss(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None, adjustment: jax.Array | None = None
) -> jax.Array:
    """Sums the cross-entropy over labelled pixels: equation 3 without its division.

    Args:
      logits: ``[b, h, w, classes]`` float32; upsampled bilinearly (corners not aligned) to the size of the labels.
      labels: ``[b, H, W]`` integers, class index or ``IGNORE_LABEL``.
      weights: of the pixels, ``[b, H, W]``; default: 1.
      adjustment: added to the upsampled logits, of a shape that broadcasts to theirs; default: nothing. See
        :mod:`sean_jax.training.logit_adjustment`.
    """
    _, height, width = labels.shape
    logits = resize_bilinear(logits, (height, width))
    if adjustment is not None:
        logits = logits + adjustment
    labelled = labels != IGNORE_LABEL
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(labelled, labels, 0).astype(jnp.int32))
    return jnp.sum(jnp.where(labelled, losses if weights is None else weights * losses, 0))


def attention_mask(attention: jax.Array, threshold: float) -> jax.Array:
    """Returns the consistency mask M of equation 5: 1 where the attention exceeds the threshold τ, else 0; float32."""
    return (attention > threshold).astype(jnp.float32)


def count_kept(mask: jax.Array) -> jax.Array:
    """Counts the ones in a consistency mask (``[b, h, w]``, 0 or 1); float32 scalar."""
    return _count(mask != 0)


def _count(condition: jax.Array) -> jax.Array:
    # A float32 sum of ones can stop growing at 2²⁴, which a few large images exceed. An int32 count is rounded once.
    return jnp.sum(condition, dtype=jnp.int32).astype(jnp.float32)


def consistency_loss(student_logits: jax.Array, teacher_logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Sums the squared difference of class probabilities over mask and classes: equation 4 without its division.

    The minus sign in the paper's equation 4 is a slip, since training minimises the distance.

    Args:
      student_logits, teacher_logits: ``[b, h, w, classes]`` float32.
      mask: the consistency mask, ``[b, h, w]`` float32, 0 or 1.
    """
    difference = jax.nn.softmax(student_logits) - jax.nn.softmax(teacher_logits)
    return jnp.sum(mask[..., None] * difference**2)


def consistency_normaliser(mask: jax.Array, num_classes: int, reduction: str) -> jax.Array:
    """Returns this device's part of the divisor of :func:`consistency_loss`; float32 scalar.

    ``all_positions`` counts all H·W positions (equation 4); ``kept_positions`` counts positions inside the mask times
    classes (the authors' code), which may be 0.

    Raises:
      ValueError: the reduction is unknown.
    """
    if reduction == "all_positions":
        return jnp.float32(mask.size)
    if reduction == "kept_positions":
        return count_kept(mask) * num_classes
    raise ValueError(f"unknown consistency reduction {reduction!r}; expected all_positions or kept_positions")
