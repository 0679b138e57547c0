"""Parameter names: identifies the network that a file belongs to and maps its names to the authors'.

torchvision and timm keep five poolings in VGG-16's ``features``; the authors keep three. The last three convolutions
are therefore ``features.{24,26,28}`` in torchvision and ``features.{23,25,27}`` in the authors' code.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sean_jax.errors import UserError
from sean_jax.models import NETWORKS
from sean_jax.models.deeplab import DeepLab
from sean_jax.models.vgg import CONVOLUTIONS
from sean_jax.weights import conventions
from sean_jax.weights.files import WeightsFile

_TORCHVISION = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), CONVOLUTIONS, strict=True))

AUTHORS_MODULES = DeepLab.TORCH_MODULES
_ATTENTION = "aconv"
# The authors' tensors, in the order of their ``state_dict()``; the attention convolution has no bias.
AUTHORS_TENSORS = [
    f"{module}.{leaf}"
    for module in AUTHORS_MODULES.values()
    for leaf in ("weight", "bias")
    if (module, leaf) != (_ATTENTION, "bias")
]
_AUTHORS_VGG16 = [AUTHORS_MODULES["trunk", layer] for layer in CONVOLUTIONS]
_AUTHORS_FEATURES = [module for module in AUTHORS_MODULES.values() if module.startswith("features.")]

# Kind of file → {module name in the file: module name in the authors' code}, in the order of the layers.
_TO_AUTHORS: dict[str, dict[str, str]] = {
    "sean": {name: name for name in AUTHORS_MODULES.values()},
    "deeplab_vgg16": {name: name for name in AUTHORS_MODULES.values() if name != _ATTENTION},
    "vgg16_sean": {name: name for name in _AUTHORS_VGG16},
    "vgg16_torchvision": {
        f"features.{index}": AUTHORS_MODULES["trunk", layer] for index, layer in _TORCHVISION.items()
    },
    "vgg16_caffe": {layer: AUTHORS_MODULES["trunk", layer] for layer in CONVOLUTIONS},
}

# Kind of file → {module name in the file: module path in our parameters} of VGG-16's fully connected layers, which
# networks with the same fc6 and fc7 start from. timm writes them as convolutions under names of its own.
FULLY_CONNECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "vgg16_torchvision": {
        **{"classifier.0": ("head", "fc6"), "classifier.3": ("head", "fc7")},
        **{"pre_logits.fc1": ("head", "fc6"), "pre_logits.fc2": ("head", "fc7")},
    },
    "vgg16_caffe": {"fc6": ("head", "fc6"), "fc7": ("head", "fc7")},
}

# Kinds of complete networks; the others are a VGG-16 alone.
COMPLETE = ("sean", "deeplab_vgg16", *NETWORKS)

# Kind of file → the input normalisation it was trained with: "bgr_mean" (Caffe and the authors: BGR, 0–255, minus a
# mean) or "rgb_normalized" (torchvision and timm: RGB in [0, 1], minus a mean, divided by a standard deviation). None:
# the names do not tell (see :mod:`sean_jax.weights.conventions`).
INPUT_CONVENTIONS: dict[str, str | None] = {
    "sean": "bgr_mean",
    "deeplab_vgg16": "bgr_mean",
    "vgg16_sean": "bgr_mean",
    "vgg16_torchvision": None,
    "vgg16_caffe": "bgr_mean",
}


def identify(file: WeightsFile) -> str:
    """Identifies the network that a file holds by its tensor names and shapes.

    Returns:
      ``"sean"`` (the authors' complete network, or one written by this project), ``"deeplab_vgg16"`` (the same
      without attention: AdaptSegNet, ADVENT and what is built on them), ``"vgg16_sean"`` (its 13 VGG convolutions
      alone, as ``port_weights`` writes them), ``"vgg16_torchvision"`` (torchvision or timm) or ``"vgg16_caffe"``
      (``fcn8s_from_caffe``). For a file that this project wrote of another network, its name in
      :data:`sean_jax.models.NETWORKS`, such as ``"fcn8s"``.

    Raises:
      UserError: unknown names, batch normalisation, missing tensors, or shapes that do not fit VGG-16.
    """
    tensors = file.tensors
    if (architecture := other_architecture(file)) is not None:
        return architecture
    normalised = next((name for name in tensors if name.endswith((".running_mean", ".running_var"))), None)
    if normalised is not None:
        raise UserError(
            f"{file.path} is a network with batch normalisation ({normalised}); the backbone has none: "
            "use VGG-16, with (torchvision's vgg16_bn) or without batch normalisation"
        )
    kind = _identify_modules(file)
    weights = [f"{module}.weight" for module in _TO_AUTHORS[kind]]
    # The head may lack layers (fewer branches). The caller checks it against the network's settings.
    needed = [name for name in weights if kind not in COMPLETE or name.startswith("features.")]
    missing = [name for name in (*needed, *(name.replace("weight", "bias") for name in needed)) if name not in tensors]
    if missing:
        raise UserError(f"{file.path} looks like {kind} but lacks {', '.join(missing[:3])}; download or save it again")
    _check_chain(tensors, [name for name in weights if name in needed], file.path)
    return kind


def other_architecture(file: WeightsFile) -> str | None:
    """The network of a file that this project wrote, unless it is ``deeplab``, which the authors' names identify."""
    architecture = file.metadata.get("architecture")
    name = architecture.get("name") if isinstance(architecture, Mapping) else None
    return name if isinstance(name, str) and name in NETWORKS and name != "deeplab" else None


def _identify_modules(file: WeightsFile) -> str:
    if "conv1_1.weight" in file.tensors:
        return "vgg16_caffe"
    matches = (re.fullmatch(r"features\.([0-9]{1,3})\.weight", name) for name in file.tensors)
    indices = sorted(int(match[1]) for match in matches if match)
    layouts = {
        "sean": _AUTHORS_FEATURES,
        "vgg16_sean": _AUTHORS_VGG16,
        "vgg16_torchvision": list(_TO_AUTHORS["vgg16_torchvision"]),
    }
    for kind, modules in layouts.items():
        if [f"features.{index}" for index in indices] == modules:
            # Files of this project say themselves whether the network has attention.
            without_attention = kind == "sean" and f"{_ATTENTION}.weight" not in file.tensors and not file.metadata
            return "deeplab_vgg16" if without_attention else kind
    names = ", ".join(list(file.tensors)[:5]) or "no tensors"
    convolutions = f", convolutions at features.{indices}" if indices else ""
    raise UserError(
        f"{file.path} holds {names}{', …' if len(file.tensors) > 5 else ''}{convolutions}; expected the names of "
        f"SEAN ({', '.join(_AUTHORS_FEATURES)}), VGG-16 in torchvision or timm (features.{list(_TORCHVISION)}) "
        "or fcn8s_from_caffe (conv1_1 … conv5_3)"
    )


def _check_chain(tensors: dict[str, np.ndarray], weights: list[str], path: str) -> None:
    """Checks that convolutions are 3×3 and floating point, and that each takes the previous one's channels."""
    channels = 3
    for name in weights:
        weight, bias = tensors[name], tensors[name.replace("weight", "bias")]
        expected = (weight.shape[0] if weight.ndim else 1, channels, 3, 3)
        for key, value, shape in ((name, weight, expected), (name.replace("weight", "bias"), bias, expected[:1])):
            if value.shape != shape:
                raise UserError(
                    f"{path}: {key} has shape {value.shape}; a 3×3 convolution of {channels} channels has {shape}. "
                    "Choose a file of VGG-16 or SEAN weights"
                )
            if value.dtype != np.float32:
                raise UserError(f"{path}: {key} has dtype {value.dtype}; expected floating point")
        channels = weight.shape[0]


def authors_names(kind: str, names: list[str]) -> dict[str, str]:
    """Maps a file's tensor names to the authors' names; leaves out tensors that SEAN does not have."""
    modules = _TO_AUTHORS[kind]
    split = {name: name.rpartition(".") for name in names}
    renamed = {name: f"{modules.get(module)}.{leaf}" for name, (module, _, leaf) in split.items()}
    return {name: authors for name, authors in renamed.items() if authors in AUTHORS_TENSORS}


def network_names(kind: str, names: list[str], modules: Mapping[tuple[str, ...], str]) -> dict[str, str]:
    """Maps a file's tensor names to a network's; leaves out tensors that the network does not have.

    A complete network of another architecture gives its trunk only.

    Args:
      modules: of the network, see :attr:`sean_jax.models.network.Network.TORCH_MODULES`.
    """
    if kind in NETWORKS:
        paths = {module: path for path, module in NETWORKS[kind].TORCH_MODULES.items()}
    else:
        authors = {module: path for path, module in AUTHORS_MODULES.items()}
        paths = {module: authors[name] for module, name in _TO_AUTHORS[kind].items()} | FULLY_CONNECTED.get(kind, {})
    foreign_head = not kind.startswith("vgg16") and not set(paths.values()) <= modules.keys()
    found = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        path = paths.get(module, ())
        if path in modules and not (foreign_head and path[0] == "head") and leaf in ("weight", "bias"):
            found[name] = f"{modules[path]}.{leaf}"
    return found


def tensors_of(kind: str) -> set[str]:
    """The authors' names of the tensors that a file of that kind may hold."""
    modules = set(_TO_AUTHORS[kind].values())
    return {name for name in AUTHORS_TENSORS if name.rpartition(".")[0] in modules}


def metadata(file: WeightsFile) -> dict[str, Any]:
    """Returns a file's metadata, with what its tensors imply where it has none.

    They imply ``input_convention`` (what the user says of it comes first; None if unknown). Files of this project name
    their ``architecture`` as ``{"name": "deeplab", ...settings}``; for the authors' own checkpoint it is
    ``"reference"``, the preset that follows their code, and for the networks that their code is built on the same
    without attention.
    """
    kind = identify(file)
    implied: dict[str, Any] = {}
    if kind in COMPLETE and not file.metadata:
        without = {"name": "deeplab", **DeepLab.PRESETS["reference"], "attention": False}
        implied["architecture"] = "reference" if kind == "sean" else without
    convention, _ = convention_and_evidence(file, kind)
    return {**implied, **file.metadata, "input_convention": convention}


def is_complete(file: WeightsFile) -> bool:
    """Returns whether a file holds a whole segmentation network, and not only a VGG-16; errors as :func:`identify`."""
    return not identify(file).startswith("vgg16")


def input_convention(file: WeightsFile) -> str:
    """Returns the input normalisation that a file's network needs.

    Raises:
      UserError: it is unknown; the message asks for the flag.
    """
    convention, _ = convention_and_evidence(file, identify(file))
    if convention is None:
        raise conventions.ask(file.path)
    return convention


def convention_and_evidence(file: WeightsFile, kind: str) -> tuple[str | None, str]:
    """Returns the input normalisation that a file's network needs, None if unknown, and what tells so."""
    if file.input_convention:
        return file.input_convention, f"as given{_contradiction(file, kind)}"
    if "input_convention" in file.metadata:
        return file.metadata["input_convention"], "as the file says"  # unknown to port_weights: None
    known = INPUT_CONVENTIONS.get(kind)
    return (known, "by its names") if known else conventions.recognize(file.tensors["features.0.weight"], file.path)


def _contradiction(file: WeightsFile, kind: str) -> str:
    convention, evidence = convention_and_evidence(file._replace(input_convention=None), kind)
    return "" if convention in (None, file.input_convention) else f", but {evidence} it is {convention}"
