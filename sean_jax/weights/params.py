"""Converts between named PyTorch tensors and the Flax parameter tree, and reports which tensors were loaded.

PyTorch stores a convolution as ``[out, in, height, width]`` (OIHW), Flax as ``[height, width, in, out]`` (HWIO).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sean_jax.errors import UserError
from sean_jax.models import NETWORKS
from sean_jax.weights import names
from sean_jax.weights.files import WeightsFile

Params = dict[str, Any]  # {"trunk": {"conv1_1": {"kernel": HWIO, "bias": [out]}, ...}, "head": {"fc6": ..., ...}}
Modules = Mapping[tuple[str, ...], str]  # see sean_jax.models.network.Network.TORCH_MODULES
_LEAVES = {"kernel": "weight", "bias": "bias"}


@dataclass(frozen=True)
class Report:
    """Lists the loaded, missing and unexpected tensors.

    Attributes:
      kind: see :func:`sean_jax.weights.identify`.
      loaded: tensors of the file that were used, under the file's names.
      missing: parameters of the network that the file lacks, under PyTorch's names; they keep their initial values.
      unexpected: tensors of the file that the network does not have, under the file's names.
      metadata: see :func:`sean_jax.weights.metadata`.
      evidence: what tells the input convention, and which of the file's networks was read if there are several.
    """

    kind: str
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
    evidence: str = ""

    def lines(self) -> list[str]:
        """Returns one line about the file and one for each of the three lists."""
        groups = (("loaded", self.loaded), ("missing", self.missing), ("unexpected", self.unexpected))
        return [
            f"{self.kind}, input convention {self.metadata.get('input_convention') or 'unknown'}{self.evidence}",
            *(f"{title} ({len(group)}): {', '.join(group) or 'none'}" for title, group in groups),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def sean_tensors(file: WeightsFile) -> tuple[dict[str, np.ndarray], Report]:
    """Returns the tensors of a file that SEAN uses, under the authors' names, and a report.

    Of a file that this project wrote of another network: all of that network's tensors, under its own names.
    """
    kind = names.identify(file)
    if kind in NETWORKS:
        renamed, expected = names.network_names(kind, list(file.tensors), NETWORKS[kind].TORCH_MODULES), []
    else:
        renamed, expected = names.authors_names(kind, list(file.tensors)), names.AUTHORS_TENSORS
    tensors = {renamed[name]: value for name, value in file.tensors.items() if name in renamed}
    return tensors, Report(
        kind,
        loaded=list(renamed),
        missing=[name for name in expected if name not in tensors],
        unexpected=[name for name in file.tensors if name not in renamed],
        metadata=names.metadata(file),
        evidence=_evidence(file, kind),
    )


def into_params(
    file: WeightsFile, params: Mapping[str, Any], modules: Modules = names.AUTHORS_MODULES
) -> tuple[Params, Report]:
    """Loads a file's tensors into a parameter tree.

    Args:
      file: weights of SEAN or VGG-16 (see :func:`sean_jax.weights.identify`).
      params: initial parameters, a nested mapping of arrays; not modified.
      modules: module path in ``params`` → module name in PyTorch.

    Returns:
      A new tree with a float32 NumPy array for each tensor in the file and the leaves of ``params`` elsewhere, and a
      report. A complete network must supply every parameter, but ``"deeplab_vgg16"`` leaves the attention missing. A
      VGG-16 leaves the head missing, except for ``fc6`` and ``fc7`` of networks that have these layers as VGG-16 has
      them.

    Raises:
      UserError: the file holds neither VGG-16 nor a network of this project, a tensor's shape differs from the
        network's, or a complete network lacks one of its tensors.
    """
    kind = names.identify(file)
    fitting = _fitting(file, kind, params)
    tensors = {
        torch_name: (name, fitting[name])
        for name, torch_name in names.network_names(kind, list(fitting), modules).items()
    }
    loaded, missing = [], []

    def convert(tree: Mapping[str, Any], path: tuple[str, ...]) -> Params:
        return {
            key: convert(value, (*path, key)) if isinstance(value, Mapping) else load(value, (*path, key))
            for key, value in tree.items()
        }

    def load(leaf: Any, path: tuple[str, ...]) -> Any:
        authors = _torch_name(path, modules)
        if authors not in tensors:
            missing.append(authors or "/".join(path))
            return leaf
        name, tensor = tensors[authors]
        shape = tuple(leaf.shape[axis] for axis in (3, 2, 0, 1)) if leaf.ndim == 4 else tuple(leaf.shape)
        if tensor.shape != shape:
            raise UserError(
                f"{file.path}: {name} has shape {tensor.shape}, the network needs {shape} (PyTorch's layout, output "
                "channels first); choose the --classes and --width_multiplier that the file was made with, or other "
                "weights"
            )
        loaded.append(name)
        return np.array(tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor, np.float32, order="C")

    tree = convert(params, ())
    lacking = [name for name in missing if kind == "sean" or kind in NETWORKS or name in names.tensors_of(kind)]
    if kind in names.COMPLETE and lacking:
        raise UserError(
            f"{file.path} holds weights of {kind} but lacks {', '.join(lacking[:3])}, which the network needs; "
            "choose the architecture that the file was made with, or download or save it again"
        )
    unexpected = [name for name in file.tensors if name not in set(loaded)]
    return tree, Report(kind, loaded, missing, unexpected, names.metadata(file), _evidence(file, kind))


def _evidence(file: WeightsFile, kind: str) -> str:
    _, evidence = names.convention_and_evidence(file, kind)
    return f" ({evidence})" + f"; {file.origin}" * bool(file.origin)


def _fitting(file: WeightsFile, kind: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A file's tensors, without VGG-16's fully connected layers that do not fit the network's.

    Those of linear layers ``[out, in·height·width]`` that fit become convolutions ``[out, in, height, width]``.
    """
    tensors = dict(file.tensors)
    for module, (part, layer) in names.FULLY_CONNECTED.get(kind, {}).items():
        weight = tensors.get(f"{module}.weight")
        if weight is None:
            continue
        kernel = params[part][layer]["kernel"] if layer in params.get(part, {}) else np.empty((0, 0, 0, 0))
        shape = tuple(kernel.shape[axis] for axis in (3, 2, 0, 1))
        if weight.shape in (shape, (shape[0], math.prod(shape[1:]))):
            tensors[f"{module}.weight"] = weight.reshape(shape)
        else:
            tensors = {name: value for name, value in tensors.items() if not name.startswith(f"{module}.")}
    return tensors


def from_params(params: Mapping[str, Any], modules: Modules = names.AUTHORS_MODULES) -> dict[str, np.ndarray]:
    """Returns parameters under PyTorch's names and layouts, in the order of ``modules``; float32, contiguous.

    The inverse of :func:`into_params`. ``load_state_dict`` of the authors' network accepts the arrays as tensors.

    Raises:
      ValueError: ``modules`` does not name one of the leaves.
    """
    tensors: dict[str | None, np.ndarray] = {}
    for path, leaf in _leaves(params):
        array = np.asarray(leaf, np.float32)
        authors = _torch_name(path, modules)
        if authors is None:
            raise ValueError(f"{'/'.join(path)} is not a parameter of the PyTorch network")
        tensors[authors] = np.array(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array, order="C")
    order = [f"{module}.{leaf}" for module in modules.values() for leaf in _LEAVES.values()]
    return {name: tensors[name] for name in order if name in tensors}


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _torch_name(path: tuple[str, ...], modules: Modules) -> str | None:
    *module, leaf = path
    if tuple(module) not in modules or leaf not in _LEAVES:
        return None
    return f"{modules[tuple(module)]}.{_LEAVES[leaf]}"
