"""Class mixing: half of the classes of a source image are pasted onto a target image (ClassMix; DACS)."""

import jax
import jax.numpy as jnp

from sean_jax.data.label_spaces import IGNORE_LABEL


def class_mask(key: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
    """Draws half of the classes that a label image holds, rounded up; ignored pixels count as one class.

    Args:
      label: ``[H, W]`` integers, class index or ``IGNORE_LABEL``.

    Returns:
      bool ``[H, W]``: where the label is one of the drawn classes.
    """
    classes = jnp.where(label == IGNORE_LABEL, num_classes, label).astype(jnp.int32)
    present = jnp.zeros(num_classes + 1, bool).at[classes.ravel()].set(True)
    # The present classes in random order come first.
    order = jnp.argsort(jnp.where(present, jax.random.uniform(key, present.shape), 2.0))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(num_classes + 1))
    drawn = present & (2 * rank < jnp.sum(present, dtype=jnp.int32))
    return drawn[classes]


def paste(mask: jax.Array, pasted: jax.Array, background: jax.Array) -> jax.Array:
    """``pasted`` where the mask ``[b, H, W]`` is True, else ``background``; images or maps ``[b, H, W, ...]``."""
    return jnp.where(mask.reshape(*mask.shape, *[1] * (pasted.ndim - 3)), pasted, background.astype(pasted.dtype))
