"""Reads the tensors of a file written by ``torch.save`` without PyTorch and without executing code in the file.

Two formats exist (https://pytorch.org/docs/stable/notes/serialization.html). Since PyTorch 1.6 the file is a zip
archive: ``<root>/data.pkl`` is a pickle that refers to storages by persistent ids, and ``<root>/data/<key>`` holds
the bytes of a storage. Older files are a stream: magic number, protocol, system information, the pickle, the keys of
the storages, and for each key the number of elements and the bytes.

A pickle is a program that can import and call anything. The unpickler here imports nothing: the names on a list
(:data:`_KNOWN`) resolve to harmless replacements from this module, and any other name resolves to a dictionary that
ignores what it is called with (:class:`_Unknown`). So the tensors of a checkpoint are found beside any other objects.
"""

import math
import operator
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from sean_jax.errors import UserError
from sean_jax.weights.unwrap import NESTED

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
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
}

# File name → shapes: chooses the tensors to read; name in the file → name in the result.
Choose = Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, str]]

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


def _rebuild_from_type(rebuild: object, _type: object, arguments: tuple, *_) -> object:
    """A tensor with attributes, or of a subclass."""
    return rebuild(*arguments) if isinstance(rebuild, _Function) else None


class _Unknown(dict):
    """Replaces an object of a class, or the result of a function, that is not known.

    It keeps items (as of ``defaultdict`` and other subclasses of ``dict``) and attributes (as of
    ``argparse.Namespace`` and ``torch.nn.Module``), since weights may be among them, and ignores everything else.
    """

    origin = ""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return id(self)  # it may be a key of a dictionary or a member of a set

    def __eq__(self, other: object) -> bool:
        return self is other

    def __new__(cls, *_args, **_attributes):
        return super().__new__(cls)

    def __init__(self, *_args, **_attributes):
        super().__init__()

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(part)

    def append(self, _item: object) -> None:
        """Ignores an item of a list's subclass."""

    extend = add = append


# The names that have a meaning here. Storage classes and dtypes resolve to strings, which cannot be called or modified.
_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuild_tensor),  # up to PyTorch 0.3
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_rebuild_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): _Function(_rebuild_from_type),
    **{("torch", kind): kind for kind in _DTYPES},
    **{
        ("torch", dtype): dtype
        for dtype in ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
    },
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")  # for byte strings written by Python 2
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        # Looks up the name as a whole: the attributes of a dotted name ("FloatStorage.__init__") are not followed.
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        return type("Unknown", (_Unknown,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: object) -> object:
        match pid:
            case ("storage", kind, str(key), _, int(numel), *view) if view in ([], [None]):
                # A tensor of an unknown element type may lie beside the weights.
                storage = _Storage(kind if isinstance(kind, str) else "", key, numel)
                return self.storages.setdefault(key, storage)
            case ("module", module, *_):  # with the module's source code, which older versions stored
                return module
        raise pickle.UnpicklingError("a storage of an unknown type")


def read(path: Path, choose: Choose) -> dict[str, np.ndarray]:
    """Returns tensors of a file written by ``torch.save``, as arrays of the tensors' shapes and dtypes.

    The name of a tensor joins the keys of nested dictionaries by :data:`~sean_jax.weights.unwrap.NESTED`. Only the
    storages of the chosen tensors are read. Arrays are read-only views; tensors that shared a storage share memory.

    Args:
      path: the file.
      choose: the shapes of all tensors by name → the tensors to read and their names in the result.

    Raises:
      UserError: the file holds no tensors with names.
      Exception: the file is damaged; a damaged pickle can raise anything.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        file.seek(0)
        views, storages = _read_zip(file, path, choose) if is_zip else _read_legacy(file, path, choose)
    return {name: _array(view, storages[view.storage.key]) for name, view in views.items()}


def _read_zip(file: BinaryIO, path: Path, choose: Choose) -> tuple[dict[str, _View], dict[str, bytes]]:
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
        views = _chosen(_Unpickler(BytesIO(content("data.pkl"))).load(), path, choose)
        keys = {view.storage.key for view in views.values()}
        return views, {key: content(f"data/{key}") for key in keys}


def _read_legacy(file: BinaryIO, path: Path, choose: Choose) -> tuple[dict[str, _View], dict[str, bytes]]:
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("it does not start as files of torch.save do")
    if not _Unpickler(file).load()["little_endian"]:
        raise UserError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
    unpickler = _Unpickler(file)
    views = _chosen(unpickler.load(), path, choose)
    keys = {view.storage.key for view in views.values()}
    end = os.fstat(file.fileno()).st_size
    storages = {}
    for key in _Unpickler(file).load():
        numel = int.from_bytes(file.read(8), "little", signed=True)
        size = numel * _DTYPES[unpickler.storages[key].kind].itemsize
        if not 0 <= size <= end - file.tell():
            raise pickle.UnpicklingError(f"storage {key} should have {size} bytes, but the file ends before")
        if key in keys:
            storages[key] = file.read(size)
        else:
            file.seek(size, os.SEEK_CUR)
    return views, storages


def _chosen(tree: object, path: Path, choose: Choose) -> dict[str, _View]:
    views = dict(_views(tree))
    if not views:
        raise UserError(
            f"{path} holds {_describe(tree)[:200]}; expected a state dict (name → tensor), by itself or in other "
            "dictionaries. Save the network's weights with torch.save(model.state_dict(), ...)"
        )
    return {new: views[name] for name, new in choose({name: view.size for name, view in views.items()}).items()}


def _views(tree: object) -> Iterator[tuple[str, _View]]:
    """All tensors in nested dictionaries and lists, with the keys and indices that lead to them, in their order."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], object]] = [((), tree)]
    while waiting:
        keys, found = waiting.pop()
        if isinstance(found, _View):
            yield NESTED.join(keys), found
        elif isinstance(found, dict | list | tuple) and id(found) not in seen:  # a dictionary may contain itself
            seen.add(id(found))
            entries = list(found.items() if isinstance(found, dict) else enumerate(found))
            waiting += [((*keys, str(key)), value) for key, value in reversed(entries)]


def _describe(tree: object) -> str:
    if isinstance(tree, dict) and not isinstance(tree, _Unknown):
        return f"a dictionary of {', '.join(f'{key!r}{_origin(value)}' for key, value in [*tree.items()][:5])}"
    return f"something else{_origin(tree)}"


def _origin(found: object) -> str:
    unknown = found if isinstance(found, type) else type(found)
    return f" ({unknown.origin}, which was not loaded)" if issubclass(unknown, _Unknown) else ""


def _array(view: _View, content: bytes) -> np.ndarray:
    """Returns the view's elements; raises an error if it reaches outside its storage."""
    (kind, key, numel), offset, size, stride = view
    if kind not in _DTYPES:
        raise pickle.UnpicklingError(f"storage {key} is of an unknown type")
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
