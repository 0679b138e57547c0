"""Random numbers as a pure function of (seed, purpose, step, index of the example in the global batch).

No generator state is carried along, so neither interruptions nor the number of devices change what is drawn.
"""

import zlib

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.training.parallel import AXIS


def purpose_key(rng: jax.Array, purpose: str) -> jax.Array:
    """The key of everything drawn for one purpose, such as ``"source_noise"``. Renaming a purpose changes a run."""
    return jax.random.fold_in(rng, zlib.crc32(purpose.encode()))


def step_key(rng: jax.Array, purpose: str, step: jax.Array) -> jax.Array:
    """The key of a purpose at a step, equal on all devices."""
    return jax.random.fold_in(purpose_key(rng, purpose), step)


def example_keys(rng: jax.Array, purpose: str, step: jax.Array, examples: int) -> jax.Array:
    """One key for each of this device's ``examples``, by the example's index in the global batch; under ``pmap``."""
    indices = lax.axis_index(AXIS) * examples + jnp.arange(examples)
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key(rng, purpose, step), indices)
