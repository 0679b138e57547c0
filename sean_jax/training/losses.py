"""The losses of equations 3 to 5, as sums: who calls divides by counts taken over all devices."""

import jax
import jax.numpy as jnp
import optax

from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.ops.resize import resize_bilinear


def count_labelled(labels: jax.Array) -> jax.Array:
    """Number of pixels in ``labels`` (``[b, H, W]``, class index or 255) that carry a class; float32 scalar."""
    return _count(labels != IGNORE_LABEL)


def segmentation_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy summed over labelled pixels, equation 3 before its mean.

    Args:
      logits: ``[b, h, w, classes]`` float32; upsampled bilinearly (corners not aligned) to the labels' size.
      labels: ``[b, H, W]`` integers, class index, or 255 for pixels without a class.
    """
    _, height, width = labels.shape
    logits = resize_bilinear(logits, (height, width))
    labelled = labels != IGNORE_LABEL
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(labelled, labels, 0).astype(jnp.int32))
    return jnp.sum(jnp.where(labelled, losses, 0))


def attention_mask(attention: jax.Array, threshold: float) -> jax.Array:
    """M of equation 5: 1 where the teacher's attention exceeds the threshold τ, else 0; float32."""
    return (attention > threshold).astype(jnp.float32)


def count_kept(mask: jax.Array) -> jax.Array:
    """Number of positions that ``mask`` (``[b, h, w]``, 0 or 1) keeps; float32 scalar."""
    return _count(mask != 0)


def _count(condition: jax.Array) -> jax.Array:
    # A float32 sum of ones can stop at 2²⁴, which a few large images exceed. An int32 count is rounded once.
    return jnp.sum(condition, dtype=jnp.int32).astype(jnp.float32)


def consistency_loss(student_logits: jax.Array, teacher_logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Squared distance of the class probabilities summed over kept positions and classes; equation 4 before its mean.

    (The minus sign in the paper's equation 4 is a slip: it is a distance to be minimised.)

    Args:
      student_logits, teacher_logits: ``[b, h, w, classes]`` float32.
      mask: ``[b, h, w]`` float32, 1 for positions that are kept.
    """
    difference = jax.nn.softmax(student_logits) - jax.nn.softmax(teacher_logits)
    return jnp.sum(mask[..., None] * difference**2)


def consistency_normaliser(mask: jax.Array, num_classes: int, reduction: str) -> jax.Array:
    """What :func:`consistency_loss` is divided by on this device, before the sum over devices; float32 scalar.

    ``all_positions`` is equation 4 (mean over H·W positions, kept or not); ``kept_positions`` is the authors'
    code (mean over kept positions × classes, which may be 0).
    """
    if reduction == "all_positions":
        return jnp.float32(mask.size)
    if reduction == "kept_positions":
        return count_kept(mask) * num_classes
    raise ValueError(f"unknown consistency reduction {reduction!r}; expected all_positions or kept_positions")
