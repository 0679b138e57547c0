"""Between the authors' tensors and our parameter tree: names, layouts, and what became of each tensor.

PyTorch stores a convolution as ``[out, in, height, width]`` (OIHW), Flax as ``[height, width, in, out]`` (HWIO).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sean_jax.errors import UserError
from sean_jax.weights import names
from sean_jax.weights.files import WeightsFile

Params = dict[str, Any]  # {"trunk": {"conv1_1": {"kernel": HWIO, "bias": [out]}, ...}, "head": {"fc6": ..., ...}}
Modules = Mapping[tuple[str, ...], str]  # see sean_jax.models.network.Network.TORCH_MODULES
_LEAVES = {"kernel": "weight", "bias": "bias"}


@dataclass(frozen=True)
class Report:
    """Which tensors were loaded. Loaded and unexpected ones go by the file's names, missing ones by the authors'."""

    kind: str
    loaded: list[str]
    missing: list[str]  # of the network, initialised afresh
    unexpected: list[str]  # of the file, not used
    metadata: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Returns one line about the file and one for each of the three lists."""
        groups = (("loaded", self.loaded), ("missing", self.missing), ("unexpected", self.unexpected))
        return [
            f"{self.kind}, input convention {self.metadata.get('input_convention', 'unknown')}",
            *(f"{title} ({len(group)}): {', '.join(group) or 'none'}" for title, group in groups),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def sean_tensors(file: WeightsFile) -> tuple[dict[str, np.ndarray], Report]:
    """Returns those of a file's tensors that SEAN uses, under the authors' names; missing are those it lacks."""
    kind = names.identify(file)
    renamed = names.authors_names(kind, list(file.tensors))
    tensors = {renamed[name]: value for name, value in file.tensors.items() if name in renamed}
    return tensors, Report(
        kind,
        loaded=list(renamed),
        missing=[name for name in names.AUTHORS_TENSORS if name not in tensors],
        unexpected=[name for name in file.tensors if name not in renamed],
        metadata=names.metadata(file),
    )


def into_params(
    file: WeightsFile, params: Mapping[str, Any], modules: Modules = names.AUTHORS_MODULES
) -> tuple[Params, Report]:
    """Puts a file's tensors into a tree of parameters.

    Args:
      file: SEAN's or VGG-16's weights (see :func:`sean_jax.weights.identify`).
      params: freshly initialised parameters, a nested mapping of arrays; it is not changed.
      modules: module path in ``params`` → name in PyTorch.

    Returns:
      A new tree of the same structure: float32 NumPy arrays where the file has the tensor, else what was there. Of a
      whole network nothing is missing. And the report.

    Raises:
      UserError: not weights of SEAN or VGG-16, a tensor of another shape than the network's, or SEAN's weights
        without one of the network's tensors.
    """
    kind = names.identify(file)
    tensors = {
        authors: (name, file.tensors[name]) for name, authors in names.authors_names(kind, list(file.tensors)).items()
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
                "channels first); choose the label space (--classes) and the width (--width_multiplier) the file was "
                "made with, or other weights"
            )
        loaded.append(name)
        return np.array(tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor, np.float32, order="C")

    tree = convert(params, ())
    if kind == "sean" and missing:
        raise UserError(
            f"{file.path} holds SEAN's weights but lacks {', '.join(missing[:3])}, which the network needs; "
            "choose the architecture the file was made with, or fetch or save it again"
        )
    unexpected = [name for name in file.tensors if name not in set(loaded)]
    return tree, Report(kind, loaded, missing, unexpected, names.metadata(file))


def from_params(params: Mapping[str, Any], modules: Modules = names.AUTHORS_MODULES) -> dict[str, np.ndarray]:
    """Returns parameters under PyTorch's names and layouts, in the order of ``modules``; float32, contiguous.

    ``load_state_dict`` of the authors' network takes them (as tensors), and :func:`into_params` returns ``params``.

    Raises:
      ValueError: a leaf that ``modules`` does not name.
    """
    tensors: dict[str | None, np.ndarray] = {}
    for path, leaf in _leaves(params):
        array = np.asarray(leaf, np.float32)
        authors = _torch_name(path, modules)
        if authors is None:
            raise ValueError(f"{'/'.join(path)} is no parameter of the PyTorch network")
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
