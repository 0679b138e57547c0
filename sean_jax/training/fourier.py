"""Fourier domain adaptation: a source image in the colours of a target image (Yang and Soatto, FDA, CVPR 2020)."""

import jax
import jax.numpy as jnp
from jax import lax


def with_amplitudes_of(source: jax.Array, target: jax.Array, beta: jax.Array | float) -> jax.Array:
    """Replaces the amplitudes of the lowest frequencies of each source image by those of a target image.

    The phases, which hold the shapes, stay the source's. Each colour channel is transformed on its own.

    Args:
      source: ``[b, H, W, 3]``, 0–255 scale.
      target: images of the same shape.
      beta: half the side of the replaced square of frequencies as a fraction of the image's shorter side, rounded down
        (``beta`` of the paper, which takes 0.01 to 0.09); 0 replaces the mean colour only.

    Returns:
      The source images in float32, clipped to 0–255.
    """
    height, width = source.shape[1:3]
    reach = jnp.floor(jnp.minimum(height, width) * jnp.float32(beta))
    rows = jnp.abs(jnp.fft.fftfreq(height, 1 / height)) <= reach
    columns = jnp.abs(jnp.fft.rfftfreq(width, 1 / width)) <= reach
    low = (rows[:, None] & columns[None, :])[None, :, :, None]
    ours, theirs = (jnp.fft.rfft2(x.astype(jnp.float32), axes=(1, 2)) for x in (source, target))
    amplitude = jnp.where(low, jnp.abs(theirs), jnp.abs(ours))
    phase = jnp.angle(ours)
    mixed = lax.complex(amplitude * jnp.cos(phase), amplitude * jnp.sin(phase))
    return jnp.clip(jnp.fft.irfft2(mixed, s=(height, width), axes=(1, 2)), 0, 255)
