"""Initial values of new layers: PyTorch's over pretrained weights, He-normal with calm heads from scratch."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers

INITIALIZATIONS = ("pretrained", "scratch")


class Initializers(NamedTuple):
    """Initialisers by layer; ``bias`` makes one from its layer's fan-in, which Flax does not tell it."""

    kernel: initializers.Initializer
    bias: Callable[[int], initializers.Initializer]
    classifier: initializers.Initializer
    attention: initializers.Initializer


def make_initializers(initialization: str, *, channels: int, branches: int, input_rms: float) -> Initializers:
    """The initialisers of a network whose last features have ``channels`` channels.

    ``pretrained`` is the reference's: classifier N(0, 0.01), everything else PyTorch's default
    U(±1/√fan_in). Without pretrained weights that does not train (activations vanish); hence ``scratch``:
    He-normal convolutions keep the mean square of the input (``input_rms``²) through every layer, so the
    heads are scaled for initial logits with a standard deviation of about 1 and attention near 0.5.

    Args:
      channels: channels of the last feature map; a head's fan-in follows from it.
      branches: classifier branches that are summed, each with 9 taps.
      input_rms: root mean square of the network's input.
    """
    if initialization == "pretrained":
        uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return Initializers(uniform, _torch_bias, initializers.normal(0.01), uniform)
    if initialization == "scratch":
        he_normal = initializers.variance_scaling(2.0, "fan_in", "normal")
        attended_rms = 1.5 * input_rms  # (1 + A)·F with A near 0.5
        classifier = initializers.normal(1 / (attended_rms * math.sqrt(9 * channels * branches)))
        attention = initializers.normal(0.5 / (input_rms * math.sqrt(channels)))
        return Initializers(he_normal, lambda fan_in: initializers.zeros_init(), classifier, attention)
    raise ValueError(f"unknown initialization {initialization!r}; expected one of {', '.join(INITIALIZATIONS)}")


def _torch_bias(fan_in: int) -> initializers.Initializer:
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
