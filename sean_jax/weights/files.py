"""Reads files of named tensors (``.pth``, ``.pt``, ``.safetensors``, ``.npz``) and writes the last two kinds."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sean_jax import atomic
from sean_jax.errors import UserError
from sean_jax.weights import torch_pickle

_SAFETENSORS_METADATA = "sean_jax"  # safetensors metadata maps strings to strings; ours is one JSON string
_NPZ_METADATA = "__sean_jax__"
_PREFIXES = ("module.", "model.")  # added by DataParallel and by wrapper modules


class WeightsFile(NamedTuple):
    """The content of a weights file.

    Attributes:
      tensors: name → array; floating point is float32. Arrays may be read-only and share memory.
      metadata: a JSON object; ``{}`` if the file has none.
      path: the file, for error messages.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, Any]
    path: str = ""


def read(path: str | os.PathLike[str]) -> WeightsFile:
    """Reads ``.pth``, ``.pt``, ``.safetensors`` or ``.npz``; no code in the file is ever executed.

    A prefix ``module.`` or ``model.`` is dropped if all names have it; names are not changed otherwise.

    Raises:
      UserError: the file is missing, has an unknown extension, is damaged, or is a pickle that refers to more than
        tensors.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} has the extension {path.suffix!r}; weights are read from {', '.join(_READERS)}")
    if not path.is_file():
        raise UserError(f"{path} is not a file; give an existing {', '.join(_READERS)} file")
    try:
        tensors, metadata = reader(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle, archive or header can make its reader raise anything
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(
            f"{path} is damaged or not a {path.suffix} file ({reason}); download or save it again"
        ) from error
    while prefix := next((p for p in _PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return WeightsFile({name: _to_float32(value) for name, value in tensors.items()}, metadata, str(path))


def check_output(path: str | os.PathLike[str]) -> None:
    """Checks, before any work is done, that :func:`write` can create ``path``.

    Raises:
      UserError: the extension is unknown, ``path`` is a folder, or its parent folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in _ENCODERS:
        load = "; in PyTorch, load_state_dict(safetensors.torch.load_file(...)) loads it" if path.suffix else ""
        raise UserError(
            f"{path} has the extension {path.suffix!r}; weights are written as {' or '.join(_ENCODERS)}{load}"
        )
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"is in {path.parent}, which is not a folder"
        raise UserError(f"{path} {problem}; name a file in an existing folder")


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes ``.safetensors`` or ``.npz`` atomically: a failure leaves the previous file unchanged.

    Args:
      path: the extension chooses the format.
      tensors: name → array, stored contiguously with its dtype.
      metadata: a JSON object; stored beside the tensors unless empty.

    Raises:
      UserError: see :func:`check_output`.
      OSError: the file cannot be written, for example because the disk is full.
    """
    check_output(path)
    path = Path(path)
    # The libraries may store the memory of a transposed array in its present order.
    contiguous = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    content = _ENCODERS[path.suffix.lower()](contiguous, json.dumps(metadata) if metadata else None)
    atomic.write(path, content)


def _to_float32(value: np.ndarray) -> np.ndarray:
    is_float = value.dtype.kind == "f" or value.dtype == ml_dtypes.bfloat16
    return value.astype(np.float32 if is_float else value.dtype.newbyteorder("="), order="C", copy=False)


def _read_torch(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return torch_pickle.read(path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return tensors, _parse((file.metadata() or {}).get(_SAFETENSORS_METADATA))


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with path.open("rb") as file:  # NumPy does not close a damaged file that it opened itself
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            tensors = {name: archive[name] for name in archive.files}
    metadata = tensors.pop(_NPZ_METADATA, None)
    return tensors, _parse(None if metadata is None else metadata.item())


def _parse(text: str | bytes | None) -> dict[str, Any]:
    metadata = {} if text is None else json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is not a JSON object")
    return metadata


def _encode_safetensors(tensors: dict[str, np.ndarray], metadata: str | None) -> bytes:
    return safetensors.numpy.save(tensors, None if metadata is None else {_SAFETENSORS_METADATA: metadata})


def _encode_npz(tensors: dict[str, np.ndarray], metadata: str | None) -> bytes:
    buffer = io.BytesIO()
    extra = {} if metadata is None else {_NPZ_METADATA: np.array(metadata)}
    np.savez(buffer, **tensors, **extra)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


_READERS = {".pth": _read_torch, ".pt": _read_torch, ".safetensors": _read_safetensors, ".npz": _read_npz}
_ENCODERS = {".safetensors": _encode_safetensors, ".npz": _encode_npz}
