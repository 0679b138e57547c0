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

Params = dict[str, Any]  # {"backbone": {"conv1_1": {"kernel": HWIO, "bias": [out]}, ...}, "attention", "classifier"}
_LEAVES = {"kernel": "weight", "bias": "bias"}


@dataclass(frozen=True)
class Report:
    """What became of a file's tensors. Loaded and left over go by the file's names, fresh by the authors'."""

    kind: str
    loaded: list[str]
    fresh: list[str]
    left_over: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Returns one line about the file and one for each of the three lists."""
        groups = (("loaded", self.loaded), ("initialised afresh", self.fresh), ("left over", self.left_over))
        return [
            f"{self.kind}, input convention {self.metadata.get('input_convention', 'unknown')}",
            *(f"{title} ({len(group)}): {', '.join(group) or 'none'}" for title, group in groups),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def sean_tensors(file: WeightsFile) -> tuple[dict[str, np.ndarray], Report]:
    """Returns those of a file's tensors that SEAN uses, under the authors' names; fresh are those it lacks."""
    kind = names.identify(file)
    renamed = names.authors_names(kind, list(file.tensors))
    tensors = {renamed[name]: value for name, value in file.tensors.items() if name in renamed}
    return tensors, Report(
        kind,
        loaded=list(renamed),
        fresh=[name for name in names.AUTHORS_TENSORS if name not in tensors],
        left_over=[name for name in file.tensors if name not in renamed],
        metadata=names.metadata(file),
    )


def into_params(file: WeightsFile, params: Mapping[str, Any]) -> tuple[Params, Report]:
    """Puts a file's tensors into a tree of parameters.

    Args:
      file: SEAN's or VGG-16's weights (see :func:`sean_jax.weights.identify`).
      params: freshly initialised parameters, a nested mapping of arrays; it is not changed.

    Returns:
      A new tree of the same structure: float32 NumPy arrays where the file has the tensor, else what was there. Of a
      whole network nothing stays fresh. And the report.

    Raises:
      UserError: not weights of SEAN or VGG-16, a tensor of another shape than the network's, or SEAN's weights
        without one of the network's tensors.
    """
    kind = names.identify(file)
    tensors = {
        authors: (name, file.tensors[name]) for name, authors in names.authors_names(kind, list(file.tensors)).items()
    }
    loaded, fresh = [], []

    def convert(tree: Mapping[str, Any], path: tuple[str, ...]) -> Params:
        return {
            key: convert(value, (*path, key)) if isinstance(value, Mapping) else load(value, (*path, key))
            for key, value in tree.items()
        }

    def load(leaf: Any, path: tuple[str, ...]) -> Any:
        authors = _authors_name(path)
        if authors not in tensors:
            fresh.append(authors or "/".join(path))
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
    if kind == "sean" and fresh:
        raise UserError(
            f"{file.path} holds SEAN's weights but lacks {', '.join(fresh[:3])}, which the network needs; "
            "choose the architecture the file was made with, or fetch or save it again"
        )
    left_over = [name for name in file.tensors if name not in set(loaded)]
    return tree, Report(kind, loaded, fresh, left_over, names.metadata(file))


def from_params(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns parameters under the authors' names and layouts, in the order of their network; float32, contiguous.

    ``load_state_dict`` of the authors' network takes them (as tensors), and :func:`into_params` returns ``params``.

    Raises:
      ValueError: a leaf that is no parameter of SEAN.
    """
    tensors: dict[str | None, np.ndarray] = {}
    for path, leaf in _leaves(params):
        array = np.asarray(leaf, np.float32)
        authors = _authors_name(path)
        if authors is None:
            raise ValueError(f"{'/'.join(path)} is no parameter of the authors' network")
        tensors[authors] = np.array(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array, order="C")
    return {name: tensors[name] for name in names.AUTHORS_TENSORS if name in tensors}


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _authors_name(path: tuple[str, ...]) -> str | None:
    if len(path) != 3 or path[:2] not in names.AUTHORS_MODULES or path[2] not in _LEAVES:
        return None
    return f"{names.AUTHORS_MODULES[path[0], path[1]]}.{_LEAVES[path[2]]}"
