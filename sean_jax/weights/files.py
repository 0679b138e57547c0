"""Reads files of named tensors (PyTorch's, ``.safetensors``, ``.npz``) and writes the last two kinds."""

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

from sean_jax import atomic, npz
from sean_jax.errors import UserError
from sean_jax.untrusted import parse_json
from sean_jax.weights import torch_pickle
from sean_jax.weights.batch_norm import fold_vgg16_bn, is_vgg16_bn
from sean_jax.weights.unwrap import unwrap

_SAFETENSORS_METADATA = "sean_jax"  # safetensors metadata maps strings to strings; ours is one JSON string
_NPZ_METADATA = "__sean_jax__"


class WeightsFile(NamedTuple):
    """The content of a weights file.

    Attributes:
      tensors: name → array; floating point is float32. Arrays may be read-only and share memory.
      metadata: a JSON object; ``{}`` if the file has none.
      path: the file, for error messages.
      origin: which of the file's networks it is, if that has to be told; see :mod:`sean_jax.weights.unwrap`.
      input_convention: what the user says of the input that the weights need; None to find out.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, Any]
    path: str = ""
    origin: str = ""
    input_convention: str | None = None


def read(path: str | os.PathLike[str], input_convention: str | None = None) -> WeightsFile:
    """Reads a file of PyTorch, ``.safetensors`` or ``.npz``; no code in the file is ever executed.

    What wraps the network (dictionaries, prefixes of names) is dropped, and batch normalisation in torchvision's
    ``vgg16_bn`` is folded into the convolutions.

    Args:
      path: the file.
      input_convention: what the weights need, if the user says so.

    Raises:
      UserError: the file is missing, has an unknown extension, is damaged, or holds no tensors or several networks.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} has the extension {path.suffix!r}; weights are read from {', '.join(_READERS)}")
    if not path.is_file():
        raise UserError(f"{path} is not a file; give an existing {', '.join(_READERS)} file")
    try:
        tensors, metadata, origin = reader(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle, archive or header can make its reader raise anything
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(
            f"{path} is damaged or not a {path.suffix} file ({reason}); download or save it again"
        ) from error
    if (odd := next((name for name in tensors if not name.isprintable()), None)) is not None:
        raise UserError(f"{path} names a tensor {odd!r:.200}, which no network has; save the network's weights again")
    tensors = {name: _to_float32(value) for name, value in tensors.items()}
    if is_vgg16_bn(tensors):
        tensors = _folded(tensors, path)
        metadata = {"input_convention": "rgb_normalized"} | metadata  # torchvision's; the folding changes the values
        origin = "; ".join(filter(None, (origin, "batch normalisation folded into the convolutions")))
    return WeightsFile(tensors, metadata, str(path), origin, input_convention)


def _folded(tensors: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    try:
        return fold_vgg16_bn(tensors)
    except KeyError as error:
        raise UserError(f"{path} looks like vgg16_bn but lacks {error.args[0]}; download or save it again") from None
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path} looks like vgg16_bn with other shapes ({error}); download or save it again") from None


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


_Content = tuple[dict[str, np.ndarray], dict[str, Any], str]  # tensors, metadata, origin


def _read_torch(path: Path) -> _Content:
    said = []

    def choose(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        found = unwrap(shapes, str(path))
        said.append(found.said)
        return found.names

    return torch_pickle.read(path, choose), {}, said[0]


def _read_safetensors(path: Path) -> _Content:
    with safetensors.safe_open(path, framework="numpy") as file:
        found = unwrap({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, str(path))  # noqa: SIM118
        tensors = {new: file.get_tensor(name) for name, new in found.names.items()}
        return tensors, _parse((file.metadata() or {}).get(_SAFETENSORS_METADATA)), found.said


def _read_npz(path: Path) -> _Content:
    arrays = npz.read(path)
    metadata = arrays.pop(_NPZ_METADATA, None)
    found = unwrap({name: array.shape for name, array in arrays.items()}, str(path))
    tensors = {new: arrays[name] for name, new in found.names.items()}
    return tensors, _parse(None if metadata is None else metadata.item()), found.said


def _parse(text: str | bytes | None) -> dict[str, Any]:
    metadata = {} if text is None else parse_json(text)
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


_READERS = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    # PyTorch's as Lightning, Hugging Face and training scripts (model_best.pth.tar) name them.
    **dict.fromkeys((".ckpt", ".bin", ".tar", ".pkl"), _read_torch),
}
_ENCODERS = {".safetensors": _encode_safetensors, ".npz": _encode_npz}
