"""Bilinear interpolation with either of the two conventions of PyTorch code."""

import jax
import jax.numpy as jnp


def resize_bilinear(x: jax.Array, size: tuple[int, int], *, align_corners: bool = False) -> jax.Array:
    """Bilinear interpolation of ``[batch, height, width, channels]`` to ``size`` (height, width), without antialiasing.

    Args:
      align_corners: False puts pixel centres at half-integers (the usual convention today); True maps the
        centres of the corner pixels onto each other, as the attention upsampling in the authors' code does.
    """
    batch, height, width, channels = x.shape
    shape = (batch, *size, channels)
    if not align_corners:
        return jax.image.resize(x, shape, "bilinear", antialias=False)
    scale = jnp.array([_aligned_scale(height, size[0]), _aligned_scale(width, size[1])], jnp.float32)
    # scale_and_translate samples input position (o + 0.5 - t) / s - 0.5; this t makes that o / s.
    translation = 0.5 - 0.5 * scale
    return jax.image.scale_and_translate(x, shape, (1, 2), scale, translation, "bilinear", antialias=False)


def resize_map(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """``[b, h, w]`` → ``[b, *size]``, bilinear, corners not aligned."""
    return resize_bilinear(x[..., None], size)[..., 0]


def _aligned_scale(length: int, out: int) -> float:
    # One input cell: any finite scale repeats it, since positions beyond the last centre clamp to it.
    return (out - 1) / (length - 1) if length > 1 and out > 1 else float(out)
