"""Pooling of feature maps ``[batch, height, width, channels]``."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def max_pool_2x2(x: jax.Array, *, round_up: bool = False) -> jax.Array:
    """Maximum over 2×2 windows, stride 2.

    An odd last row or column is dropped, as PyTorch's default does; with ``round_up`` it is a window of its own
    (PyTorch's ``ceil_mode``).

    Computed as a maximum over two axes of the reshaped map, whose backward pass takes half the time of XLA's own
    pooling on an NVIDIA GPU and a third on a CPU. If several values of a window are the largest, each gets an equal
    part of the gradient; PyTorch gives all of it to the first. Both are valid subgradients. Most ties are zeros after
    a ReLU, which passes no gradient on; in bfloat16 positive ties occur too.
    """
    if round_up:
        odd = ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))
        x = jnp.pad(x, odd, constant_values=-jnp.inf)
    return _max_pool(x)


@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
    return _windows(x).max((2, 4))


def _max_pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _max_pool(x)
    return y, (x, y)


def _max_pool_backward(stored: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    # JAX's own derivative of a maximum, which would store where the largest values are.
    x, y = stored
    largest = _windows(x) == y[:, :, None, :, None]
    part = gradient / largest.sum((2, 4), dtype=gradient.dtype)
    parts = jnp.where(largest, part[:, :, None, :, None], jnp.zeros((), gradient.dtype))
    batch, rows, _, columns, _, channels = parts.shape
    parts = parts.reshape(batch, 2 * rows, 2 * columns, channels)
    odd = ((0, 0), (0, x.shape[1] - 2 * rows), (0, x.shape[2] - 2 * columns), (0, 0))
    return (jnp.pad(parts, odd),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _windows(x: jax.Array) -> jax.Array:
    """``[b, h, w, c]`` → ``[b, h // 2, 2, w // 2, 2, c]``."""
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    return x[:, : 2 * rows, : 2 * columns].reshape(batch, rows, 2, columns, 2, channels)


def average_pool_2x2(x: jax.Array) -> jax.Array:
    """Average over 2×2 windows, stride 2; odd sizes are rounded up and divided by the cells that exist."""
    height, width = x.shape[1:3]
    padding: Any = ((0, height % 2), (0, width % 2))  # Flax's annotation allows names only
    return nn.avg_pool(x, (2, 2), strides=(2, 2), padding=padding, count_include_pad=False)


def average_pool_3x3(x: jax.Array) -> jax.Array:
    """Average over 3×3 windows, stride 2, padding 1, sizes rounded up.

    The authors' ``AvgPool2d(3, stride=2, padding=1, ceil_mode=True)``.
    On an axis of length n, window i starts at s = 2i − 1 and is divided by min(s + 3, n + 1) − s: one padded
    row counts on every side, nothing beyond it. A map of 64×128 pools to 33×65.
    """

    def axis(n: int) -> tuple[int, np.ndarray]:
        starts = 2 * np.arange(n // 2 + 1) - 1
        overhang = int(starts[-1]) + 3 - n
        return overhang, np.minimum(starts + 3, n + 1) - starts

    (below, rows), (right, columns) = axis(x.shape[1]), axis(x.shape[2])
    sums = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, below), (1, right), (0, 0)))
    return sums / jnp.asarray(np.outer(rows, columns)[None, ..., None], x.dtype)
