"""Random numbers as a pure function of (seed, purpose, step, place of the example in the global batch).

Neither interruptions nor the number of devices change what is drawn: no generator is carried along.
"""

import enum

import jax
import jax.numpy as jnp
from jax import lax


class Purpose(enum.IntEnum):
    """What a random number is for; the numbers are part of a run's meaning and must not be reassigned."""

    INIT = 0
    SOURCE_NOISE = 1
    STUDENT_NOISE = 2
    TEACHER_NOISE = 3
    SOURCE_FLIP = 4
    TARGET_FLIP = 5


def example_keys(rng: jax.Array, step: jax.Array, purpose: Purpose, examples: int, axis_name: str) -> jax.Array:
    """One key for each of this device's ``examples``; place counts through the devices along ``axis_name``."""
    key = jax.random.fold_in(jax.random.fold_in(rng, purpose), step)
    places = lax.axis_index(axis_name) * examples + jnp.arange(examples)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)
