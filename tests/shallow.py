"""A network of two layers for tests of methods: a step on it compiles in a third of the time of the thinnest DeepLab.

Methods see only what every :class:`~sean_jax.models.Network` offers, so what holds on this network holds on any. It
has what methods rely on: output stride 8, features, logits that depend on neighbouring positions, attention, dropout.
"""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from sean_jax.models import Network, Prediction
from sean_jax.models.layers import dropout
from sean_jax.settings import setting, settings


class Trunk(nn.Module):
    """Images ``[b, H, W, 3]`` → features ``[b, H/8, W/8, 8]``, one 8×8 patch to a position."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.relu(nn.Conv(8, (8, 8), strides=8, name="conv")(images.astype(jnp.float32) / 64 - 2))


class Head(nn.Module):
    """Features → a prediction with logits from 3×3 positions, after dropout, and attention from one."""

    num_classes: int
    attention: bool

    @nn.compact
    def __call__(self, features: jax.Array, keys: jax.Array | None = None) -> Prediction:
        logits = nn.Conv(self.num_classes, (3, 3), name="classifier")(dropout(features, 0.25, keys))
        maps = {}
        if self.attention:
            maps["attention"] = nn.sigmoid(nn.Conv(1, (1, 1), use_bias=False, name="attention")(features))[..., 0]
        return Prediction(logits, features, maps)


@settings
class ShallowSettings:
    attention: bool = setting(True, "predict attention")


class Shallow(Network):
    Settings: ClassVar[type] = ShallowSettings
    TORCH_MODULES: ClassVar[Mapping[tuple[str, ...], str]] = {
        ("trunk", "conv"): "conv",
        ("head", "classifier"): "classifier",
        ("head", "attention"): "attention",
    }

    def trunk_module(self) -> Trunk:
        return Trunk()

    def head_module(self) -> Head:
        return Head(self.num_classes, self.settings.attention)
