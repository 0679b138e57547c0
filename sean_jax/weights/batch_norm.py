"""Folds batch normalisation into the convolutions before it: the same function of an image, without the layer.

w' = w · γ / √(σ² + ε) and b' = (b − μ) · γ / √(σ² + ε) + β, with the running mean μ and variance σ² of the file.
"""

import re
from collections.abc import Mapping

import numpy as np

EPSILON = 1e-5  # PyTorch's default, which torchvision uses

# Indices of VGG-16's convolutions in torchvision's ``features``, with and without batch normalisation.
_PLAIN = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_NORMALISED = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)


def is_vgg16_bn(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether these are torchvision's ``vgg16_bn`` (or timm's): 13 convolutions, each with a batch normalisation."""
    means = [re.fullmatch(r"features\.([0-9]{1,3})\.running_mean", name) for name in tensors]
    found = sorted(int(match[1]) for match in means if match)
    return found == [index + 1 for index in _NORMALISED]


def fold_vgg16_bn(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of ``vgg16_bn`` as those of the ``vgg16`` that computes the same, under torchvision's names.

    Args:
      tensors: of a file for which :func:`is_vgg16_bn` holds; others, such as the classifier's, are kept.

    Raises:
      KeyError: a tensor of a convolution or normalisation is missing; its name.
    """
    folded = {name: value for name, value in tensors.items() if not name.startswith("features.")}
    for old, new in zip(_NORMALISED, _PLAIN, strict=True):
        norm = f"features.{old + 1}"
        scale = np.asarray(tensors[f"{norm}.weight"], np.float64) / np.sqrt(
            np.asarray(tensors[f"{norm}.running_var"], np.float64) + EPSILON
        )
        weight = np.asarray(tensors[f"features.{old}.weight"], np.float64)
        bias = np.asarray(tensors.get(f"features.{old}.bias", np.zeros(len(weight))), np.float64)
        shifted = (bias - tensors[f"{norm}.running_mean"]) * scale + tensors[f"{norm}.bias"]
        folded[f"features.{new}.weight"] = (weight * scale[:, None, None, None]).astype(np.float32)
        folded[f"features.{new}.bias"] = shifted.astype(np.float32)
    return folded
