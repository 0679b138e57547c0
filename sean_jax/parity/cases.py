"""Reads parity cases and compares recomputed values with theirs."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sean_jax import npz
from sean_jax.errors import UserError
from sean_jax.parity import seeded
from sean_jax.training.parallel import AXIS


class Case(dict[str, np.ndarray]):
    """The arrays of a case by name. A missing one raises a UserError.

    Attributes:
      path: the file.
    """

    path: str = ""

    def __missing__(self, name: str) -> np.ndarray:
        raise UserError(f"--case={self.path} lacks {name}; give a parity case")

    def require(self, names: Iterable[str]) -> None:
        """Raises a UserError if one of the arrays is missing; before a long computation rather than after it."""
        for name in names:
            self[name]

    def integer(self, name: str) -> int:
        """A setting that is a whole number, such as a seed or a size."""
        value = self._scalar(name)
        if not isinstance(value, int) or not 0 <= value < 2**32:
            raise UserError(f"--case={self.path}: {name} is {value}; expected a whole number; give a parity case")
        return value

    def number(self, name: str) -> float:
        """A setting that is a number."""
        return float(self._scalar(name))

    def settings(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the named settings that the case holds, as Python numbers."""
        return {name: self._scalar(name) for name in names if name in self}

    def _scalar(self, name: str) -> int | float:
        value = self[name]
        if value.ndim or value.dtype.kind not in "iuf" or not np.isfinite(value):
            raise UserError(f"--case={self.path}: {name} is {value!r:.100}, not a number; give a parity case")
        return value.item()


class Check(NamedTuple):
    """The largest relative error of one quantity, and its bound."""

    quantity: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.error <= self.bound  # False for NaN


def load_case(path: str) -> Case:
    """Reads an ``.npz`` parity case.

    Raises:
      UserError: the file is missing or is not an ``.npz`` file.
    """
    try:
        case = Case(npz.read(path))
    except UserError as error:
        raise UserError(f"--case={path} is not a parity case: {error}") from None
    case.path = path
    return case


def family_of(path: str) -> str:
    """What a case tests: its file name up to the last underscore, such as ``mcd`` for ``mcd_a.npz``."""
    return os.path.splitext(os.path.basename(path))[0].rpartition("_")[0]


def relative_error(x: Any, reference: Any) -> float:
    """Returns ‖x − reference‖ / ‖reference‖ of a tensor in float64; ‖x‖ if the reference is zero."""
    x, reference = np.asarray(x, np.float64), np.asarray(reference, np.float64)
    if x.shape != reference.shape:
        return float("inf")
    scale = np.linalg.norm(reference)
    return float(np.linalg.norm(x - reference) / (scale if scale > 0 else 1.0))


def check(case: Case, name: str, value: Any, bound: float) -> Check:
    """Compares a value with the array of that name."""
    return Check(name, relative_error(value, case[name]), bound)


def check_seeds(case: Case, drawn: Mapping[str, Any]) -> None:
    """Checks that the seeded tensors are those of the case, by their sums.

    Raises:
      UserError: a sum differs.
    """
    for name, expected in zip(case["check_names"], case["check_values"], strict=True):
        found = float(np.sum(drawn[str(name)], dtype=np.float64))
        if not np.isclose(found, expected, rtol=1e-6, atol=1e-6):
            raise UserError(f"{case.path}: the seeded tensor {name} sums to {found}, expected {expected}")


def check_tensors(
    case: Case, prefix: str, values: Mapping[str, Any], *, bounds: Mapping[str, float], skip: tuple[str, ...] = ()
) -> Iterator[Check]:
    """Compares tensors with what a case stores of them: norms, projections, and some of them whole.

    Args:
      prefix: of the arrays' names, such as ``A_grad_``: ``A_grad_norms`` and ``A_grad_projections`` follow the order of
        ``parameter_names``; every other array is the whole tensor that its name ends with.
      values: tensors by parameter name, in the layout of the case.
      bounds: of ``norms``, ``projections`` and ``tensors``.
      skip: parameters to leave out of norms and projections.
    """
    for key, reference in case.items():
        if not key.startswith(prefix):
            continue
        kind = key.removeprefix(prefix)
        if kind == "norms":
            yield Check(key, max(_norm_errors(case, values, reference, skip)), bounds["norms"])
        elif kind == "projections":
            norms = case[f"{prefix}norms"]
            yield Check(key, max(_projection_errors(case, values, reference, norms, skip)), bounds["projections"])
        elif kind in values:
            yield Check(key, relative_error(values[kind], reference), bounds["tensors"])


def _norm_errors(
    case: Case, values: Mapping[str, Any], reference: np.ndarray, skip: tuple[str, ...]
) -> Iterator[float]:
    negligible = 1e-9 * reference.max()  # such as the gradient of a bias in front of an instance normalisation
    for name, expected in zip(case["parameter_names"], reference, strict=True):
        if expected > negligible and name not in skip:
            yield abs(np.linalg.norm(np.float64(values[str(name)])) - expected) / expected


def _projection_errors(
    case: Case, values: Mapping[str, Any], reference: np.ndarray, norms: np.ndarray, skip: tuple[str, ...]
) -> Iterator[float]:
    for name, expected, norm in zip(case["parameter_names"], reference, norms, strict=True):
        if norm > 1e-9 * norms.max() and name not in skip:
            value = np.float64(values[str(name)])
            found = np.vdot(value, np.float64(seeded.direction(str(name), value.shape)))
            yield abs(found - expected) / norm


def on_one_device(function: Callable[..., Any], replicated: int) -> Callable[..., Any]:
    """Maps ``function(*replicated, view)`` over one device, since the losses sum over a mapped axis."""
    in_axes, devices = (*[None] * replicated, 0), jax.local_devices()[:1]
    mapped = jax.pmap(function, AXIS, in_axes=in_axes, out_axes=None, devices=devices)
    return lambda *args: mapped(*args[:-1], jax.tree.map(lambda x: x[None], args[-1]))
