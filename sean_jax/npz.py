"""Reads ``.npz`` archives that anybody may have made: no objects, and no memory that the file only asks for."""

import io
import math
import os
import zipfile
from typing import Any

import numpy as np

from sean_jax.errors import UserError

# Trained weights hardly compress, constant arrays do; an archive that unpacks to more than this times its size and
# these bytes is taken for a bomb.
_RATIO, _SMALL = 50, 1 << 26
_LONGEST_HEADER = 500  # characters; NumPy parses it as Python, for which long ones are too deep


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an archive by name; they are read-only.

    Raises:
      UserError: the file is missing or damaged, is another kind of file, holds objects, or unpacks to far more than
        its size.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members, size = archive.infolist(), os.fstat(file.fileno()).st_size
            if not {member.compress_type for member in members} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError("a compression that NumPy does not write")  # others ask for memory themselves
            if sum(member.compress_size for member in members) > size:
                raise ValueError("it declares more than it holds")
            if (unpacked := sum(member.file_size for member in members)) > _RATIO * size + _SMALL:
                raise ValueError(f"it unpacks to {unpacked} bytes, more than {_RATIO} times its size")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged archive or header can make its reader raise anything
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"{path} is damaged or not an .npz file ({reason}); download or save it again") from error


def _array(content: bytes) -> np.ndarray:
    """The array in an ``.npy`` file; its memory is that of ``content``."""
    file = io.BytesIO(content)
    version: Any = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, is_fortran, dtype = header(file, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    count = math.prod(shape)
    flat = np.frombuffer(content, dtype, count, file.tell()) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")
