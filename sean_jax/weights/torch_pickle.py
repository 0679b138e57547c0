"""Reads the tensors of a file written by ``torch.save`` without PyTorch and without executing code in the file.

Two formats exist (https://pytorch.org/docs/stable/notes/serialization.html). Since PyTorch 1.6 the file is a zip
archive: ``<root>/data.pkl`` is a pickle that refers to storages by persistent ids, and ``<root>/data/<key>`` holds
the bytes of a storage. Older files are a stream: magic number, protocol, system information, the pickle, the keys of
the storages, and for each key the number of elements and the bytes.

Nothing in the file is believed: sizes are compared with the file's before memory is taken, and the pickle is run by
:mod:`sean_jax.weights.unpickler`.
"""

import math
import mmap
import os
import pickle
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from sean_jax.errors import UserError
from sean_jax.weights.unpickler import STORAGES, Unknown, Unpickler, View
from sean_jax.weights.unwrap import NESTED

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# PyTorch's storage class → element type; big-endian files are refused.
_ELEMENTS = ("<f4", "<f2", ml_dtypes.bfloat16, "<f8", "<i8", "<i4", "<i2", "i1", "u1", "?", "<c8", "<c16")
_DTYPES = {kind: np.dtype(elements) for kind, elements in zip(STORAGES, _ELEMENTS, strict=True)}

# File name → shapes: chooses the tensors to read; name in the file → name in the result.
Choose = Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, str]]

# Tensors that lie deeper, or whose place has a longer name, are no network's; nor are there more of them.
_DEEPEST, _LONGEST, _MOST_TENSORS = 32, 300, 2**16
# Views may repeat and share elements, as tied weights do. All of a network's together may have so many elements, so
# that a file of a few bytes cannot take gigabytes: a few times those of the storages, and some where those are small.
_SHARED, _REPEATED = 4, 2**22


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
    _check_elements(views.values())
    return {name: _array(view, storages[view.storage.key]) for name, view in views.items()}


def _read_zip(file: BinaryIO, path: Path, choose: Choose) -> tuple[dict[str, View], dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        # Members that are read are not compressed, so both of their sizes are that in the file.
        declared = sum(max(member.compress_size, member.file_size) for member in archive.infolist())
        if declared > os.fstat(file.fileno()).st_size:
            raise pickle.UnpicklingError("it declares more than it holds")
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
        views = _chosen(Unpickler(BytesIO(content("data.pkl"))).load(), path, choose)
        keys = {view.storage.key for view in views.values()}
        return views, {key: content(f"data/{key}") for key in keys}


def _read_legacy(file: BinaryIO, path: Path, choose: Choose) -> tuple[dict[str, View], dict[str, bytes]]:
    # A file's own read() allocates what is asked for; that of a map, what is there.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if Unpickler(content).load() != _LEGACY_MAGIC or Unpickler(content).load() != _LEGACY_PROTOCOL:
            raise pickle.UnpicklingError("it does not start as files of torch.save do")
        if not Unpickler(content).load()["little_endian"]:
            raise UserError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
        unpickler = Unpickler(content)
        views = _chosen(unpickler.load(), path, choose)
        keys = {view.storage.key for view in views.values()}
        storages = {}
        for key in Unpickler(content).load():
            numel = int.from_bytes(content.read(8), "little", signed=True)
            size = numel * _DTYPES[unpickler.storages[key].kind].itemsize
            if not 0 <= size <= len(content) - content.tell():
                raise pickle.UnpicklingError(f"storage {key} should have {size} bytes, but the file ends before")
            if key in keys:
                storages[key] = content.read(size)
            else:
                content.seek(size, os.SEEK_CUR)
    return views, storages


def _chosen(tree: object, path: Path, choose: Choose) -> dict[str, View]:
    views: dict[str, View] = {}
    for name, view in _views(tree):
        views[name] = view
        if len(views) > _MOST_TENSORS:
            raise UserError(f"{path} holds more than {_MOST_TENSORS} tensors; save the network's weights by themselves")
    if not views:
        raise UserError(
            f"{path} holds {_describe(tree)[:200]}; expected a state dict (name → tensor), by itself or in other "
            "dictionaries. Save the network's weights with torch.save(model.state_dict(), ...)"
        )
    return {new: views[name] for name, new in choose({name: view.size for name, view in views.items()}).items()}


def _views(tree: object) -> Iterator[tuple[str, View]]:
    """All tensors in nested dictionaries and lists, with the keys and indices that lead to them, in their order."""
    seen: set[int] = set()
    waiting: list[tuple[str, int, object]] = [("", 0, tree)]
    while waiting:
        place, depth, found = waiting.pop()
        if isinstance(found, View):
            yield place, found
        elif isinstance(found, dict | list | tuple) and depth < _DEEPEST:
            states = found.states if isinstance(found, Unknown) else []
            parts = {id(part): part for part in (found, *states) if id(part) not in seen}
            seen.update(parts)  # parts may be in several places, even in themselves
            for key, value in reversed([entry for part in parts.values() for entry in _entries(part)]):
                inner = f"{place}{NESTED}{key}" if depth else str(key)
                if len(inner) <= _LONGEST:
                    waiting.append((inner, depth + 1, value))


def _entries(part: dict | list | tuple) -> Iterable[tuple[object, object]]:
    return part.items() if isinstance(part, dict) else enumerate(part)


def _describe(tree: object) -> str:
    if isinstance(tree, dict) and not isinstance(tree, Unknown):
        return f"a dictionary of {', '.join(f'{key!r}{_origin(value)}' for key, value in [*tree.items()][:5])}"
    return f"something else{_origin(tree)}"


def _origin(found: object) -> str:
    origin = getattr(found, "origin", None)
    return f" ({origin}, which was not loaded)" if origin else ""


def _check_elements(views: Collection[View]) -> None:
    """Raises an error if the views together have far more elements than their storages."""
    held = sum({view.storage.key: view.storage.numel for view in views}.values())
    if sum(_count(view) for view in views) > _SHARED * held + _REPEATED:
        raise pickle.UnpicklingError("tensors that are far larger than what the file holds")


def _count(view: View) -> int:
    return math.prod(view.size)


def _array(view: View, content: bytes) -> np.ndarray:
    """Returns the view's elements; raises an error if it reaches outside its storage."""
    (kind, key, numel), offset, size, stride = view
    if kind not in _DTYPES:
        raise pickle.UnpicklingError(f"storage {key} is of an unknown type")
    dtype = _DTYPES[kind]
    if len(content) != numel * dtype.itemsize:
        raise pickle.UnpicklingError(f"storage {key} has {len(content)} bytes, not {numel} elements of {dtype}")
    if len(size) != len(stride):
        raise pickle.UnpicklingError(f"a tensor of size {size} and stride {stride}")
    if _count(view) == 0:
        return np.zeros(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= numel:
        raise pickle.UnpicklingError(
            f"a tensor of size {size}, stride {stride} and offset {offset} does not fit {numel} elements"
        )
    flat = np.frombuffer(content, dtype)[offset:]
    return np.lib.stride_tricks.as_strided(flat, size, [step * dtype.itemsize for step in stride], writeable=False)
