"""Reads the tensors of a file written by ``torch.save``, without PyTorch and without running what it asks for.

Two formats exist (https://pytorch.org/docs/stable/notes/serialization.html). Since PyTorch 1.6 the file is a zip
archive: ``<root>/data.pkl`` is a pickle in which each storage is a persistent id, ``<root>/data/<key>`` its bytes.
Before, it was a stream: magic number, protocol, system information, the pickle, the storages' keys, and for each
key the number of elements and the bytes. A pickle is a program; the one run here can name only what tensors
consist of, and each name stands for something of ours, never for the object that PyTorch has under it.
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

# Element types by the name of PyTorch's storage class; PyTorch writes little-endian on all but a few machines.
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

# Training checkpoints hold the weights one level down; of several networks the one that is evaluated comes first.
_WRAPPERS = ("teacher", "ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network", "student")

# A view that repeats elements (stride 0) can be larger than its storage, but a few bytes must not ask for gigabytes.
_LARGEST_EXPANDED_VIEW = 2**24


class _Storage(NamedTuple):
    kind: str
    key: str
    numel: int


class _View(NamedTuple):
    """A tensor not read yet: the elements of a storage at an offset with strides, all counted in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict):
    """Stands for ``OrderedDict``; the attributes a state dict carries (``_metadata``) are dropped."""

    def __setstate__(self, state: object) -> None:
        del state


class _Function:
    """Something a pickle may call but, unlike a Python function, not alter (the BUILD opcode sets attributes)."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it alters a function")


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_) -> _View:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _View(storage, operator.index(offset), tuple(map(operator.index, size)), tuple(map(operator.index, stride)))


def _rebuild_parameter(data: _View, *_) -> _View:
    return data


# All that a pickle may name. Storage classes and dtypes become their names: strings can be neither called nor changed.
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
        super().__init__(file, encoding="utf-8")  # of the byte strings in a file written by Python 2
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        # A look-up of the whole name: a dotted one ("FloatStorage.__init__") is never walked.
        if (module, name) not in _ALLOWED:
            raise UserError(
                f"{self.path} asks for {f'{module}.{name}'!r}, which tensors do not need, and was not opened; where "
                "you trust the file, load it in PyTorch and save only the weights: torch.save(model.state_dict(), ...)"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), _, int(numel), *view) if kind in _DTYPES and view in ([], [None]):
                storage = _Storage(kind, key, numel)
                self.storages.setdefault(key, storage)
                return storage
        raise pickle.UnpicklingError("a storage of an unknown kind")


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the state dict in a ``.pth`` or ``.pt`` file: name → array of the tensor's shape and dtype.

    A wrapper around the state dict (``{"state_dict": ...}``, ``{"teacher": ..., "optimizer": ...}``) is opened.
    Arrays are views, possibly of one another where tensors shared a storage, and must not be written to.

    Raises:
      UserError: the file asks for something that tensors do not need, or holds no state dict.
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
            raise UserError(f"{path} is a zip archive, but not one that torch.save writes (no data.pkl in it)")
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
        raise pickle.UnpicklingError("its first bytes are not those that torch.save writes")
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
            raise pickle.UnpicklingError(f"storage {key} should have {size} bytes and the file ends before")
        storages[key] = file.read(size)
    return {name: _array(view, storages[view.storage.key]) for name, view in views.items()}


def _state_dict(tree: object, path: Path) -> dict[str, _View]:
    """Returns the innermost dictionary of tensors, one or more wrappers down."""
    found = tree
    while isinstance(found, dict):
        tensors = {name: view for name, view in found.items() if isinstance(name, str) and isinstance(view, _View)}
        if tensors:
            return tensors
        inner = next((name for name in _WRAPPERS if isinstance(found.get(name), dict)), None)
        if inner is None:
            break
        found = found.pop(inner)  # popped, so that a dictionary that contains itself comes to an end
    got = f"a dictionary of {', '.join(map(repr, list(found)[:5]))}" if isinstance(found, dict) else "something else"
    raise UserError(
        f"{path} holds {got[:200]}, not a state dict (name → tensor), nor one under {', '.join(_WRAPPERS)}; "
        "save the network's weights with torch.save(model.state_dict(), ...)"
    )


def _array(view: _View, content: bytes) -> np.ndarray:
    """Returns the view's elements; refuses one that reaches outside its storage."""
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
