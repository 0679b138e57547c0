"""Seeded weights of CycleGAN's networks, and the digit classifier of its semantic model, which no run trains."""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sean_jax.models.network import Network, Prediction
from sean_jax.models.translator import to_signed
from sean_jax.parity import seeded
from sean_jax.weights import from_params

Modules = Mapping[tuple[str, ...], str]  # path in our parameters → name of the module in the authors' code

DISCRIMINATOR: Modules = {(f"conv{i + 1}",): f"model.{index}" for i, index in enumerate((0, 2, 5, 8, 11))}
CLASSIFIER: Modules = {
    **{("trunk", f"conv{i + 1}"): f"before_linear.{index}" for i, index in enumerate((0, 2, 5, 8))},
    **{("trunk", f"norm{i + 2}"): f"before_linear.{index}" for i, index in enumerate((3, 6, 9))},
    **{("head", f"linear{i + 1}"): f"after_linear.{i}" for i in range(2)},
}


def generator(blocks: int) -> Modules:
    """The modules of a generator, numbered without dropout layers."""
    names: dict[tuple[str, ...], str] = {("first",): "model.1", ("down1",): "model.4", ("down2",): "model.7"}
    for i in range(blocks):
        for conv, index in (("conv1", 1), ("conv2", 5)):
            names[f"block{i + 1}", conv] = f"model.{10 + i}.conv_block.{index}"
    last = 10 + blocks
    return names | {("up1",): f"model.{last}", ("up2",): f"model.{last + 3}", ("last",): f"model.{last + 7}"}


def spec(blocks: int, width: int = 64) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Names, shapes and standard deviations of all tensors that a case draws, the classifier's included."""
    w, last = width, 10 + blocks
    for who in ("G_A", "G_B"):
        yield from seeded.conv(f"{who}.model.1", w, 3, 7)
        yield from seeded.conv(f"{who}.model.4", 2 * w, w, 3)
        yield from seeded.conv(f"{who}.model.7", 4 * w, 2 * w, 3)
        for block in range(10, last):
            for index in (1, 5):
                yield from seeded.conv(f"{who}.model.{block}.conv_block.{index}", 4 * w, 4 * w, 3)
        for index, fan_in in ((last, 4 * w), (last + 3, 2 * w)):
            yield f"{who}.model.{index}.weight", (fan_in, fan_in // 2, 3, 3), (2.0 / (2.25 * fan_in)) ** 0.5
            yield f"{who}.model.{index}.bias", (fan_in // 2,), 0.1
        yield from seeded.conv(f"{who}.model.{last + 7}", 3, w, 7, gain=1.0)
    for who in ("D_A", "D_B"):
        for index, out, fan_in in ((0, w, 3), (2, 2 * w, w), (5, 4 * w, 2 * w), (8, 8 * w, 4 * w)):
            yield from seeded.conv(f"{who}.model.{index}", out, fan_in, 4)
        yield from seeded.conv(f"{who}.model.11", 1, 8 * w, 4, gain=1.0)
    for index, out, fan_in in ((0, w, 3), (2, w, w), (5, 2 * w, w), (8, 4 * w, 2 * w)):
        yield from seeded.conv(f"CLS.before_linear.{index}", out, fan_in, 3)
        if index:
            yield f"CLS.before_linear.{index + 1}.weight", (out,), 0.1
            yield f"CLS.before_linear.{index + 1}.bias", (out,), 0.1
    for index, out, fan_in in ((0, 1024, 4 * w), (1, 10, 1024)):
        yield f"CLS.after_linear.{index}.weight", (out, fan_in), fan_in**-0.5
        yield f"CLS.after_linear.{index}.bias", (out,), 0.1


def to_tree(tensors: Mapping[str, np.ndarray], modules: Modules) -> dict[str, Any]:
    """A network's parameters from its tensors by the authors' names; a bias without tensor is left out."""
    tree: dict[str, Any] = {}
    for path, name in modules.items():
        leaves: dict[str, Any] = tree
        for key in path:
            leaves = leaves.setdefault(key, {})
        weight = tensors[f"{name}.weight"]
        leaves["kernel"] = jnp.asarray(weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T)
        if f"{name}.bias" in tensors:
            leaves["bias"] = jnp.asarray(tensors[f"{name}.bias"])
    return tree


def to_tensors(tree: Mapping[str, Any], modules: Modules) -> dict[str, np.ndarray]:
    """The inverse of :func:`to_tree`."""
    return {name: x.T if x.ndim == 2 else x for name, x in from_params(tree, modules).items()}


class _Convolutions(nn.Module):
    """Four convolutions of stride 2; the last three are followed by normalisation over the batch."""

    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = to_signed(images)
        for i, channels in enumerate((self.width, self.width, 2 * self.width, 4 * self.width), 1):
            conv = nn.Conv(channels, (3, 3), (2, 2), "VALID", use_bias=i == 1, precision="highest", name=f"conv{i}")
            x = conv(x)
            x = nn.leaky_relu(_BatchNorm(name=f"norm{i}")(x) if i > 1 else x, 0.2)
        return x


class _BatchNorm(nn.Module):
    """Normalisation by the statistics of the batch, in training and in prediction alike."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale, bias = (self.param(name, nn.initializers.zeros, x.shape[-1:]) for name in ("kernel", "bias"))
        centred = x - x.mean((0, 1, 2), keepdims=True)
        normal = centred * lax.rsqrt(jnp.square(centred).mean((0, 1, 2), keepdims=True) + 1e-5)
        return normal * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


class _Linear(nn.Module):
    @nn.compact
    def __call__(self, features: jax.Array, dropout: jax.Array | None = None) -> Prediction:
        del dropout
        hidden = nn.Dense(1024, precision="highest", name="linear1")(features)
        return Prediction(nn.Dense(10, precision="highest", name="linear2")(hidden), features, {})


class Classifier(Network):
    """The digit classifier as a segmentation network of one position."""

    def trunk_module(self) -> nn.Module:
        return _Convolutions()

    def head_module(self) -> nn.Module:
        return _Linear()
