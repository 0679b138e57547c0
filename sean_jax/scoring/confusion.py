"""Confusion matrices on the device, in exact integers."""

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.data.label_spaces import IGNORE_LABEL

# Pixels that one product counts. Float32 sums of ones are exact up to 2²⁴; smaller blocks also need less memory for
# the one-hot matrices (40 MB for 19 classes, where a whole Cityscapes image needs 320 MB) and are faster on a CPU.
BLOCK = 2**18
MOST_PIXELS = 2**31 - 1  # of a batch: no int32 count can overflow


def confusion_matrix(predictions: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Pixels by true class (rows) and predicted class (columns), int32 ``[num_classes, num_classes]``.

    Products of one-hot matrices, which are faster than scattering on an accelerator.

    Args:
      predictions: ``[b, H, W]`` class indices.
      labels: ``[b, H, W]`` class indices; pixels with any other value (255) are not counted.

    Raises:
      ValueError: the batch has more pixels than an int32 can count.
    """
    if labels.size > MOST_PIXELS:
        raise ValueError(f"a batch of {labels.size} pixels; expected at most {MOST_PIXELS}: use a smaller batch")
    blocks = max(1, -(-labels.size // BLOCK))
    size = -(-labels.size // blocks)

    def split(classes: jax.Array) -> jax.Array:
        padded = jnp.pad(classes.ravel(), (0, blocks * size - classes.size), constant_values=IGNORE_LABEL)
        return padded.reshape(blocks, size)

    def count(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        truth, predicted = (jax.nn.one_hot(classes, num_classes, dtype=jnp.bfloat16) for classes in block)
        return jnp.einsum("nt,np->tp", truth, predicted, preferred_element_type=jnp.float32).astype(jnp.int32)

    return lax.map(count, (split(labels), split(predictions))).sum(0)
