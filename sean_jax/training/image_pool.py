"""CycleGAN's pool of translated images, from which a discriminator also sees those of earlier steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.training.parallel import AXIS


class Pool(NamedTuple):
    """The stored images: ``[size, ...]``, of which the first ``count`` are filled."""

    images: jax.Array
    count: jax.Array  # int32


def empty(size: int, shape: tuple[int, ...]) -> Pool:
    """A pool of ``size`` images of that shape, float32."""
    return Pool(jnp.zeros((size, *shape), jnp.float32), jnp.int32(0))


def query(pool: Pool, images: jax.Array, uniforms: jax.Array, indices: jax.Array) -> tuple[Pool, jax.Array]:
    """Stores images one after another and returns as many, from the pool or themselves.

    While the pool is not full, an image is stored and returned. Afterwards, with probability one half, it replaces
    a stored image, which is returned; otherwise it is returned and not stored.

    Args:
      pool: with room for at least one image.
      images: ``[b, ...]``, in the order in which they are stored.
      uniforms: ``[b]``, uniform in [0, 1); an image replaces a stored one where the number exceeds 0.5.
      indices: ``[b]``, which image it replaces.
    """
    size = len(pool.images)

    def one(pool: Pool, inputs: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Pool, jax.Array]:
        image, uniform, index = inputs
        full = pool.count >= size
        replaces = full & (uniform > 0.5)
        place = jnp.where(full, index, pool.count)
        stored = pool.images[place]
        written = jnp.where(full & ~replaces, stored, image)
        pool = Pool(pool.images.at[place].set(written), jnp.minimum(pool.count + 1, size))
        return pool, jnp.where(replaces, stored, image)

    return lax.scan(one, pool, (images, uniforms, indices))


def exchange(pool: Pool, images: jax.Array, key: jax.Array) -> tuple[Pool, jax.Array]:
    """Passes the images of the global batch through the pool and returns this device's share; under ``pmap``.

    Args:
      pool: equal on all devices, as is the returned one. A pool without room returns the images themselves.
      images: this device's, ``[b, ...]``.
      key: equal on all devices.
    """
    size = len(pool.images)
    if not size:
        return pool, images
    everywhere = lax.all_gather(images, AXIS, tiled=True)
    uniform_key, index_key = jax.random.split(key)
    uniforms = jax.random.uniform(uniform_key, (len(everywhere),))
    indices = jax.random.randint(index_key, (len(everywhere),), 0, size)
    pool, drawn = query(pool, everywhere, uniforms, indices)
    return pool, lax.dynamic_slice_in_dim(drawn, lax.axis_index(AXIS) * len(images), len(images))
