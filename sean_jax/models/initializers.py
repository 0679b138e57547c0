"""Initialisers of layers without pretrained weights."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers

INITIALIZATIONS = ("pretrained", "scratch")


class Initializers(NamedTuple):
    """Initialisers by kind of layer; ``bias`` takes the layer's fan-in, since Flax does not pass it on."""

    kernel: initializers.Initializer
    bias: Callable[[int], initializers.Initializer]
    classifier: initializers.Initializer
    attention: initializers.Initializer


def make_initializers(initialization: str, *, channels: int, branches: int, input_rms: float) -> Initializers:
    """Returns the initialisers of a network.

    ``pretrained`` follows the authors' code: the classifier is N(0, 0.01²), all other layers have PyTorch's default
    U(±1/√fan_in). A network trained from scratch would not learn with it, since activations vanish. ``scratch`` uses
    He-normal convolutions, which keep the mean square of the input (``input_rms``²) through every layer, and scales
    the heads so that initial logits have a standard deviation of about 1 and attention is near 0.5.

    Args:
      channels: channels of the last feature map, which set the fan-in of the heads.
      branches: number of classifier branches that are summed, each with 9 taps.
      input_rms: root mean square of the network's input.

    Raises:
      ValueError: ``initialization`` is unknown.
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
