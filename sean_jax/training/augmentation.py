"""Stochastic augmentation g(·) on the device: Gaussian noise as in the paper, and optional mirroring."""

import jax
import jax.numpy as jnp


def add_noise(keys: jax.Array, images: jax.Array, std: float) -> jax.Array:
    """Adds N(0, std²) to every value of ``images`` (``[b, H, W, 3]``, 0–255 scale), unclipped; float32."""
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))(keys)
    return images.astype(jnp.float32) + std * noise


def random_flips(keys: jax.Array) -> jax.Array:
    """Whether each example is mirrored, probability one half; bool ``[b]``."""
    return jax.vmap(jax.random.bernoulli)(keys)


def mirror(flips: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors ``images`` or labels (``[b, H, W, ...]``) left to right where ``flips`` says so."""
    return jnp.where(flips.reshape(-1, *[1] * (images.ndim - 1)), images[:, :, ::-1], images)
