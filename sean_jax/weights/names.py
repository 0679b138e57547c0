"""What the networks' parameters are called, and which network a file's names belong to.

The authors' names are the ones everything is converted to. torchvision's and timm's VGG-16 keeps five poolings in
its ``features``, the authors' three and what follows moves up by one place, so that their last three convolutions
are ``features.{24,26,28}`` and ``features.{23,25,27}``.
"""

import re
from typing import Any

import numpy as np

from sean_jax.errors import UserError
from sean_jax.models.deeplab import DeepLab
from sean_jax.models.vgg import CONVOLUTIONS
from sean_jax.weights.files import WeightsFile

_TORCHVISION = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), CONVOLUTIONS, strict=True))

AUTHORS_MODULES = DeepLab.TORCH_MODULES
# The authors' tensors, in the order of their ``state_dict()``; the attention's convolution has no bias.
AUTHORS_TENSORS = [
    f"{module}.{leaf}"
    for module in AUTHORS_MODULES.values()
    for leaf in ("weight", "bias")
    if (module, leaf) != ("aconv", "bias")
]
_AUTHORS_VGG16 = [AUTHORS_MODULES["trunk", layer] for layer in CONVOLUTIONS]
_AUTHORS_FEATURES = [module for module in AUTHORS_MODULES.values() if module.startswith("features.")]

# Each network's modules → the authors'. The order of the entries is the order of the layers.
_TO_AUTHORS: dict[str, dict[str, str]] = {
    "sean": {name: name for name in AUTHORS_MODULES.values()},
    "vgg16_sean": {name: name for name in _AUTHORS_VGG16},
    "vgg16_torchvision": {
        f"features.{index}": AUTHORS_MODULES["trunk", layer] for index, layer in _TORCHVISION.items()
    },
    "vgg16_caffe": {layer: AUTHORS_MODULES["trunk", layer] for layer in CONVOLUTIONS},
}

# What the networks were trained on: "bgr_mean", 0–255 minus a mean, channels reversed (Caffe, hence the authors), or
# "rgb_normalized", [0, 1] minus a mean over a standard deviation (torchvision, timm).
INPUT_CONVENTIONS = {
    "sean": "bgr_mean",
    "vgg16_sean": "bgr_mean",
    "vgg16_torchvision": "rgb_normalized",
    "vgg16_caffe": "bgr_mean",
}


def identify(file: WeightsFile) -> str:
    """Says whose names a file uses.

    Returns:
      ``"sean"`` (the authors' whole network, or one that we wrote), ``"vgg16_sean"`` (its 13 VGG convolutions alone,
      as ``port_weights`` writes them), ``"vgg16_torchvision"`` (timm's, too) or ``"vgg16_caffe"`` (those of
      ``fcn8s_from_caffe``).

    Raises:
      UserError: other names, batch normalisation, tensors that no VGG-16 has, or some of its tensors missing.
    """
    tensors = file.tensors
    normalised = next((name for name in tensors if name.endswith((".running_mean", ".running_var"))), None)
    if normalised is not None:
        raise UserError(
            f"{file.path} is a network with batch normalisation ({normalised}); the backbone has none: "
            "use plain VGG-16 (vgg16, not vgg16_bn)"
        )
    kind = _identify_modules(file)
    weights = [f"{module}.weight" for module in _TO_AUTHORS[kind]]
    # Of SEAN's layers the head's may be left out (no attention, fewer branches); the caller's network decides.
    needed = [name for name in weights if kind != "sean" or name.startswith("features.")]
    missing = [name for name in (*needed, *(name.replace("weight", "bias") for name in needed)) if name not in tensors]
    if missing:
        raise UserError(f"{file.path} looks like {kind} but lacks {', '.join(missing[:3])}; fetch or save it again")
    _check_chain(tensors, [name for name in weights if name in needed], file.path)
    return kind


def _identify_modules(file: WeightsFile) -> str:
    if "conv1_1.weight" in file.tensors:
        return "vgg16_caffe"
    matches = (re.fullmatch(r"features\.(\d+)\.weight", name) for name in file.tensors)
    indices = sorted(int(match[1]) for match in matches if match)
    layouts = {
        "sean": _AUTHORS_FEATURES,
        "vgg16_sean": _AUTHORS_VGG16,
        "vgg16_torchvision": list(_TO_AUTHORS["vgg16_torchvision"]),
    }
    for kind, modules in layouts.items():
        if [f"features.{index}" for index in indices] == modules:
            return kind
    names = ", ".join(list(file.tensors)[:5]) or "no tensors"
    convolutions = f", convolutions at features.{indices}" if indices else ""
    raise UserError(
        f"{file.path} holds {names}{', …' if len(file.tensors) > 5 else ''}{convolutions}; expected the names of "
        f"SEAN ({', '.join(_AUTHORS_FEATURES)}), of VGG-16 in torchvision or timm (features.{list(_TORCHVISION)}) "
        "or of fcn8s_from_caffe (conv1_1 … conv5_3)"
    )


def _check_chain(tensors: dict[str, np.ndarray], weights: list[str], path: str) -> None:
    """Checks that convolutions are 3×3, of floating point, and each takes the channels that the last one gives."""
    channels = 3
    for name in weights:
        weight, bias = tensors[name], tensors[name.replace("weight", "bias")]
        expected = (weight.shape[0] if weight.ndim else 1, channels, 3, 3)
        for key, value, shape in ((name, weight, expected), (name.replace("weight", "bias"), bias, expected[:1])):
            if value.shape != shape:
                raise UserError(
                    f"{path}: {key} has shape {value.shape}, a 3×3 convolution of {channels} channels has {shape}; "
                    "choose a file of VGG-16 or SEAN"
                )
            if value.dtype != np.float32:
                raise UserError(f"{path}: {key} is of type {value.dtype}, expected floating point")
        channels = weight.shape[0]


def authors_names(kind: str, names: list[str]) -> dict[str, str]:
    """Maps those of a file's tensor names that the network uses to the authors' names."""
    modules = _TO_AUTHORS[kind]
    split = {name: name.rpartition(".") for name in names}
    renamed = {name: f"{modules.get(module)}.{leaf}" for name, (module, _, leaf) in split.items()}
    return {name: authors for name, authors in renamed.items() if authors in AUTHORS_TENSORS}


def metadata(file: WeightsFile) -> dict[str, Any]:
    """Returns the metadata a file carries or else implies.

    Of a file without any: ``input_convention`` (``"bgr_mean"`` or ``"rgb_normalized"``) by whose weights they are, and
    for the authors' whole network ``architecture: "reference"``, the preset that is their code's.
    """
    kind = identify(file)
    implied = {"input_convention": INPUT_CONVENTIONS[kind]}
    if kind == "sean" and not file.metadata:
        implied["architecture"] = "reference"
    return {**implied, **file.metadata}
