"""Reads the tensors of a file written by ``torch.save`` without PyTorch and without executing code in the file.

Two formats exist (https://pytorch.org/docs/stable/notes/serialization.html). Since PyTorch 1.6 the file is a zip
archive: ``<root>/data.pkl`` is a pickle that refers to storages by persistent ids, and ``<root>/data/<key>`` holds
the bytes of a storage. Older files are a stream: magic number, protocol, system information, the pickle, the keys of
the storages, and for each key the number of elements and the bytes.

A pickle is a program that can import and call anything. The unpickler here resolves only the names on an allow list
(:data:`_ALLOWED`), and each resolves to a harmless stand-in from this module, never to PyTorch's own object.
"""

import math
import operator
import os
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from sean_jax.errors import UserError

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# PyTorch's storage class → element type; big-endian files are refused.
_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}

# Keys under which training checkpoints store the weights. If several are present, the first in this order is read:
# the network that is usually evaluated.
_WRAPPERS = ("teacher", "ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network", "student")

# Elements. A view that repeats elements (stride 0) may be larger than its storage; the limit keeps a file of a few
# bytes from allocating gigabytes.
_LARGEST_EXPANDED_VIEW = 2**24


class _Storage(NamedTuple):
    kind: str
    key: str
    numel: int


class _View(NamedTuple):
    """A tensor that is not read yet: a strided view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict):
    """Replaces ``OrderedDict`` and drops the attributes of a state dict (``_metadata``)."""

    def __setstate__(self, state: object) -> None:
        del state


class _Function:
    """A callable that a pickle cannot modify; the BUILD opcode could set attributes of a Python function."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it modifies a function")


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_) -> _View:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _View(storage, operator.index(offset), tuple(map(operator.index, size)), tuple(map(operator.index, stride)))


def _rebuild_parameter(data: _View, *_) -> _View:
    return data


# The names that a pickle may use. Storage classes and dtypes resolve to strings, which cannot be called or modified.
_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuild_tensor),  # up to PyTorch 0.3
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_rebuild_parameter),
    **{("torch", kind): kind for kind in _DTYPES},
    **{
        ("torch", dtype): dtype
        for dtype in ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
    },
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, path: Path):
        super().__init__(file, encoding="utf-8")  # for byte strings written by Python 2
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        # Looks up the name as a whole: the attributes of a dotted name ("FloatStorage.__init__") are not followed.
        if (module, name) not in _ALLOWED:
            raise UserError(
                f"{self.path} refers to {f'{module}.{name}'!r}, which tensors do not need, and was not loaded; if you "
                "trust the file, load it in PyTorch and save only the weights: torch.save(model.state_dict(), ...)"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), _, int(numel), *view) if kind in _DTYPES and view in ([], [None]):
                storage = _Storage(kind, key, numel)
                self.storages.setdefault(key, storage)
                return storage
        raise pickle.UnpicklingError("a storage of an unknown type")


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the state dict in a ``.pth`` or ``.pt`` file: name → array of the tensor's shape and dtype.

    The state dict may be nested in a dictionary (``{"state_dict": ...}``, ``{"teacher": ..., "optimizer": ...}``).
    Arrays are read-only views; tensors that shared a storage share memory.

    Raises:
      UserError: the file refers to something that tensors do not need, or holds no state dict.
      Exception: the file is damaged; a damaged pickle can raise anything.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        file.seek(0)
        return _read_zip(file, path) if is_zip else _read_legacy(file, path)


def _read_zip(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise UserError(
                f"{path} is a zip archive that torch.save did not write (it has no data.pkl); give a PyTorch file"
            )
        (root,) = roots

        def content(name: str) -> bytes:
            if archive.getinfo(root + name).compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError(f"{name} is compressed, which torch.save does not do")
            return archive.read(root + name)

        if root + "byteorder" in names and content("byteorder") != b"little":
            raise UserError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
        tree = _Unpickler(BytesIO(content("data.pkl")), path).load()
        views = _state_dict(tree, path)
        keys = {view.storage.key for view in views.values()}
        storages = {key: content(f"data/{key}") for key in keys}
    return {name: _array(view, storages[view.storage.key]) for name, view in views.items()}


def _read_legacy(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    if _Unpickler(file, path).load() != _LEGACY_MAGIC or _Unpickler(file, path).load() != _LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("it does not start as files of torch.save do")
    if not _Unpickler(file, path).load()["little_endian"]:
        raise UserError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
    unpickler = _Unpickler(file, path)
    views = _state_dict(unpickler.load(), path)
    end = os.fstat(file.fileno()).st_size
    storages = {}
    for key in _Unpickler(file, path).load():
        numel = int.from_bytes(file.read(8), "little", signed=True)
        size = numel * _DTYPES[unpickler.storages[key].kind].itemsize
        if not 0 <= size <= end - file.tell():
            raise pickle.UnpicklingError(f"storage {key} should have {size} bytes, but the file ends before")
        storages[key] = file.read(size)
    return {name: _array(view, storages[view.storage.key]) for name, view in views.items()}


def _state_dict(tree: object, path: Path) -> dict[str, _View]:
    """Returns the dictionary of tensors, which may be nested in other dictionaries."""
    found = tree
    while isinstance(found, dict):
        tensors = {name: view for name, view in found.items() if isinstance(name, str) and isinstance(view, _View)}
        if tensors:
            return tensors
        inner = next((name for name in _WRAPPERS if isinstance(found.get(name), dict)), None)
        if inner is None:
            break
        found = found.pop(inner)  # removed, so that the loop ends if a dictionary contains itself
    got = f"a dictionary of {', '.join(map(repr, list(found)[:5]))}" if isinstance(found, dict) else "something else"
    raise UserError(
        f"{path} holds {got[:200]}; expected a state dict (name → tensor), or one under {', '.join(_WRAPPERS)}. "
        "Save the network's weights with torch.save(model.state_dict(), ...)"
    )


def _array(view: _View, content: bytes) -> np.ndarray:
    """Returns the view's elements; raises an error if it reaches outside its storage."""
    (kind, key, numel), offset, size, stride = view
    dtype = _DTYPES[kind]
    if len(content) != numel * dtype.itemsize:
        raise pickle.UnpicklingError(f"storage {key} has {len(content)} bytes, not {numel} elements of {dtype}")
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError(f"a tensor of size {size}, stride {stride} and offset {offset}")
    count = math.prod(size)
    if count == 0:
        return np.zeros(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= numel or count > max(numel, _LARGEST_EXPANDED_VIEW):
        raise pickle.UnpicklingError(
            f"a tensor of size {size}, stride {stride} and offset {offset} does not fit {numel} elements"
        )
    flat = np.frombuffer(content, dtype)[offset:]
    return np.lib.stride_tricks.as_strided(flat, size, [step * dtype.itemsize for step in stride], writeable=False)
