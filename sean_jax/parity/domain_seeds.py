"""Specifications of the seeded networks of FCNs in the Wild and CCA, under their code's names, and where they belong.

Kernels are in TensorFlow's layout ``[height, width, in, out]``, which is also that of this project's parameters.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sean_jax.models.dilated import bilinear_kernel
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case

# Mean intensity by channel, RGB, of the two data sets. The public code subtracts each from the images of its domain.
MEAN_RGB = {"source": (80.35, 70.81, 63.31), "target": (73.16, 82.91, 72.39)}  # SYNTHIA, Cityscapes

_DISCRIMINATOR = ((4096, 1024), (1024, 1024), (1024, 2))


def dilated_spec(num_classes: int) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """The network; ``upsample`` is the diagonal of its kernel, less the bilinear kernel."""
    fan_in = 3
    for block, channels in enumerate(seeded.VGG_BLOCKS, 1):
        for i, out in enumerate(channels, 1):
            yield f"conv{block}_{i}.filter", (3, 3, fan_in, out), (2.0 / (9 * fan_in)) ** 0.5
            yield f"conv{block}_{i}.biases", (out,), 0.1
            fan_in = out
    yield "fc6.filter", (7, 7, 512, 4096), (2.0 / (49 * 512)) ** 0.5
    yield "fc6.biases", (4096,), 0.1
    yield "fc7.weights", (1, 1, 4096, 4096), (2.0 / 4096) ** 0.5
    yield "fc7.biases", (4096,), 0.1
    yield "final.weights", (1, 1, 4096, num_classes), 0.3 / 4096**0.5
    yield "final.biases", (num_classes,), 0.1
    yield "upsample", (16, 16, num_classes), 0.01


def discriminator_spec(name: str) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """A discriminator: ``GA``, or ``CA0`` and so on by class."""
    for layer, (fan_in, out) in enumerate(_DISCRIMINATOR, 1):
        yield f"{name}_adnn{layer}.weights", (1, 1, fan_in, out), (2.0 / fan_in) ** 0.5
        yield f"{name}_adnn{layer}.biases", (out,), 0.1


def seeded_tensors(case: Case, discriminators: list[str]) -> dict[str, np.ndarray]:
    """All tensors of a case by name, as drawn."""
    spec = [*dilated_spec(case.integer("num_classes"))]
    for name in discriminators:
        spec += discriminator_spec(name)
    return seeded.weights(case.integer("seed"), spec)


def network_params(drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The drawn network as this project's parameters."""
    params: dict[str, Any] = {"trunk": {}, "head": {}}
    for name, value in drawn.items():
        layer, _, leaf = name.partition(".")
        if "adnn" in layer:
            continue
        part = params["trunk" if layer.startswith("conv") else "head"]
        part.setdefault({"final": "score"}.get(layer, layer), {})["bias" if leaf == "biases" else "kernel"] = value
    diagonal = params["head"]["upsample"]["kernel"] + bilinear_kernel(16)[..., None]
    params["head"]["upsample"]["kernel"] = diagonal[..., None] * np.eye(diagonal.shape[-1], dtype=np.float32)
    params["trunk"]["conv1_1"]["kernel"] = params["trunk"]["conv1_1"]["kernel"] / np.float32(64)
    return params


def discriminator_params(drawn: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """A drawn discriminator as this project's parameters."""
    return {
        f"conv{layer}": {"kernel": drawn[f"{name}_adnn{layer}.weights"], "bias": drawn[f"{name}_adnn{layer}.biases"]}
        for layer in range(1, len(_DISCRIMINATOR) + 1)
    }


def network_tensors(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters of the network, or their gradients, under the names of the public code."""
    layers = {**params["trunk"], **{{"score": "final"}.get(name, name): x for name, x in params["head"].items()}}
    tensors = {}
    for layer, leaves in layers.items():
        kernel = "filter" if layer.startswith(("conv", "fc6")) else "weights"
        name = layer if layer == "upsample" else f"{layer}.{kernel}"
        tensors[name] = np.asarray(leaves["kernel"])
        if "bias" in leaves:
            tensors[f"{layer}.biases"] = np.asarray(leaves["bias"])
    return tensors


def discriminator_tensors(params: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """Parameters of a discriminator, or their gradients, under the names of the public code."""
    return {
        f"{name}_adnn{layer.removeprefix('conv')}.{'biases' if leaf == 'bias' else 'weights'}": np.asarray(value)
        for layer, leaves in params.items()
        for leaf, value in leaves.items()
    }
