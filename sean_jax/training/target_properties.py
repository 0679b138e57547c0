"""Losses on properties of target images: weights of pixels, and label distributions.

Used by curriculum domain adaptation (Zhang et al., ICCV 2017). The numbers are those of its published training code.
"""

import jax
import jax.numpy as jnp

_SMALLEST_SHARE = 1e-7  # Keras's epsilon, to which it clips a distribution before the logarithm


def count_ids(ids: jax.Array, length: int) -> jax.Array:
    """Counts the pixels of each id in each image: ``[b, H, W]`` → ``[b, length]`` float32; larger ids do not count."""

    def count(ids: jax.Array) -> jax.Array:
        return jnp.zeros(length, jnp.int32).at[ids.ravel().astype(jnp.int32)].add(1, mode="drop")

    return jax.vmap(count)(ids).astype(jnp.float32)


def class_balance(labels: jax.Array, num_classes: int) -> jax.Array:
    """The weight of each class in each image: mean count of the classes that are present / (its count + 0.1).

    Args:
      labels: ``[b, H, W]``, class index or ``IGNORE_LABEL``.

    Returns:
      ``[b, num_classes]`` float32; 0 for an image without labels. The 0.1 is the authors' code's.
    """
    counts = count_ids(labels, num_classes)
    present = jnp.sum(counts > 0, axis=-1, keepdims=True).clip(1)
    return counts.sum(-1, keepdims=True) / present.astype(jnp.float32) / (counts + 0.1)


def area_weights(superpixels: jax.Array, length: int) -> jax.Array:
    """The weight of each pixel that makes superpixels count alike: the mean area of an image's superpixels / its own's.

    Args:
      superpixels: ids below ``length``, ``[b, H, W]``; ids without a pixel do not enter the mean.

    Returns:
      ``[b, H, W]`` float32; 1 on average over an image.
    """
    areas = count_ids(superpixels, length)
    mean_area = areas.sum(-1, keepdims=True) / jnp.sum(areas > 0, axis=-1, keepdims=True).astype(jnp.float32)
    return of_pixels(mean_area / areas.clip(1), superpixels)


def soft_label_distribution(logits: jax.Array, exponent: float | jax.Array) -> jax.Array:
    """The label distribution of an image that a prediction amounts to: the mean of (p / max p)^K, normalised.

    A large exponent K counts the pixels of each class that the argmax chooses; a small one has better gradients.

    Args:
      logits: ``[b, H, W, classes]``.
      exponent: K.

    Returns:
      ``[b, classes]``, sums to 1 for each image.
    """
    # p / max p is the exponential of the difference of logits, which does not overflow.
    scores = jnp.exp(exponent * (logits - logits.max(-1, keepdims=True))).mean((1, 2))
    return scores / scores.sum(-1, keepdims=True)


def distribution_losses(distribution: jax.Array, target: jax.Array) -> jax.Array:
    """The cross-entropy of each image's predicted label distribution with the inferred one, ``[b]``.

    Args:
      distribution: predicted, ``[b, classes]``; shares below 1e-7 count as 1e-7 and have no gradient, as in Keras.
      target: inferred, ``[b, classes]``; an image of zeros has a loss of 0.
    """
    return -jnp.sum(target * jnp.log(distribution.clip(_SMALLEST_SHARE, 1 - _SMALLEST_SHARE)), axis=-1)


def of_pixels(values: jax.Array, ids: jax.Array) -> jax.Array:
    """``values[image, ids[image, y, x]]`` of ``values`` ``[b, length]``; 0 where an id is not below ``length``."""
    flat = ids.reshape(len(ids), -1).astype(jnp.int32)
    return jnp.take_along_axis(values, flat, 1, mode="fill", fill_value=0).reshape(ids.shape)
