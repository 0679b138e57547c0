"""A prepared data set: ArrayRecord files of one split at one size, read by index, and extra arrays beside them."""

import dataclasses
import functools
import json
import re
import zlib
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import tensorflow_datasets as tfds  # imports no TensorFlow

from sean_jax import atomic
from sean_jax.errors import UserError

# What TFDS writes last but for renaming the folder; it holds our facts.
METADATA_FILE = "metadata.json"
# What may hinder the reading of a sound set → what helps.
_SOUND = {
    "Permission denied": "ask its owner for the right to read it",
    "Too many open files": "allow more open files (ulimit -n)",
    "Cannot allocate memory": "free memory",
}
_EXTRA_NAME = re.compile(r"[A-Za-z0-9_]+")


class MissingExtraError(UserError):
    """A prepared set lacks an array that is stored beside it."""


def folder_name(*, dataset: str, split: str, width: int, height: int, labels: str, digest: str, **_: Any) -> str:
    """The name of a prepared set's folder, from its metadata."""
    return f"{dataset}-{split}-{width}x{height}-{labels}-{digest}"


class Record(TypedDict):
    """One example as it is stored: PNG bytes."""

    name: str
    image: bytes
    label: NotRequired[bytes]


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """Examples of one split at one size, in the order of their names. Cheap to pickle; opened on first use.

    ``image`` is an RGB PNG of ``height`` × ``width``. ``label`` is a one-channel PNG of the data set's raw ids,
    of the same size (labels ``resized``) or its own (``original``), or absent (``none``). Extras are arrays with one
    row for each example, stored later by :func:`write_extra`.

    Attributes:
      directory: the folder of the TFDS version that holds the files.
    """

    directory: Path

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory}  # what is cached below is opened anew where it is unpickled

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """What preparation noted: dataset, split, height, width, labels, digest, names, part_length, statistics."""
        try:
            content = json.loads((self.directory / METADATA_FILE).read_text(encoding="utf-8"))
            if folder_name(**content) == self.directory.parent.name and content["names"] and content["part_length"]:
                return content
        except OSError as error:
            raise self._damaged(f"{METADATA_FILE}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            pass
        raise self._damaged(f"{METADATA_FILE} is unreadable")

    @property
    def names(self) -> list[str]:
        """The examples' names, sorted: paths of their images in the data set's folder."""
        return self.metadata["names"]

    @property
    def labels(self) -> str:
        """``none``, ``resized`` or ``original``."""
        return self.metadata["labels"]

    @property
    def height(self) -> int:
        return self.metadata["height"]

    @property
    def width(self) -> int:
        return self.metadata["width"]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Record:
        """The example at an index; safe to call from several threads.

        Raises:
          IndexError: there is none.
          UserError: the files are damaged, or hold another example than was noted at preparation.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        part, index_in_part = divmod(index, self.metadata["part_length"])
        try:
            example = self._parts[part][index_in_part]  # ArrayRecord compares what it reads with checksums
            if example["name"] is None:  # what it gives where a file is cut short
                raise ValueError("it is empty")
            record = Record(name=example["name"].decode(), image=example["image"])
            if self.labels != "none":
                record["label"] = example["label"]
        except (UserError, MemoryError):
            raise
        except Exception as error:
            # Whatever ArrayRecord and TFDS raise here is about files that they wrote themselves.
            raise self._damaged(f"example {index} cannot be read: {error}") from None
        if record["name"] != self.names[index]:
            raise self._damaged(f"example {index} is {record['name']}, expected {self.names[index]}")
        return record

    def has_extra(self, name: str) -> bool:
        """Whether an extra of that name is stored."""
        return self._extra_file(name).is_file()

    def extra(self, name: str) -> "Extra":
        """A stored extra: [examples, ...], in the order of :attr:`names`.

        Raises:
          MissingExtraError: it is missing.
          UserError: it is damaged, or has not one row for each example.
        """
        file = self._extra_file(name)
        try:
            extra = Extra(file)
        except FileNotFoundError:
            stored = ", ".join(sorted(other.stem for other in file.parent.glob("[!.]*.npy"))) or "none"
            raise MissingExtraError(
                f"the prepared set {self.directory} has no extra {name!r}; it has: {stored}"
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"the extra {file} is damaged ({error}); delete it and have it computed anew") from None
        if extra.shape[:1] != (len(self),):
            raise UserError(
                f"the extra {file} has shape {extra.shape}; expected {len(self)} rows, one for each example; "
                "delete it and have it computed anew"
            )
        return extra

    def _extra_file(self, name: str) -> Path:
        if not _EXTRA_NAME.fullmatch(name):
            raise ValueError(f"an extra cannot be called {name!r}; expected letters, digits and underscores")
        return self.directory / "extras" / f"{name}.npy"

    @functools.cached_property
    def _parts(self) -> list[Any]:
        """One TFDS data source for each part, which return the encoded bytes; none of this needs TensorFlow."""
        undecoded = {"image": tfds.decode.SkipDecoding()}
        if self.labels != "none":
            undecoded["label"] = tfds.decode.SkipDecoding()
        try:
            sources = tfds.builder_from_directory(self.directory).as_data_source(decoders=undecoded)
        except Exception as error:
            # Whatever TFDS raises here is about files that it wrote itself.
            raise self._damaged(str(error)) from None
        return [sources[part] for part in sorted(sources)]

    def _damaged(self, reason: str) -> UserError:
        for text, way_out in _SOUND.items():
            if text in reason:
                return UserError(f"the prepared set {self.directory} cannot be read ({reason}); {way_out}")
        return UserError(f"the prepared set {self.directory} is damaged ({reason}); delete it to have it prepared anew")


class Extra:
    """An array with one row for each example, mapped into memory, read-only. Rows are checked as they are read.

    Its file holds two arrays, one after the other: the rows, and a CRC-32 of each. Files of earlier versions hold the
    first only.
    """

    def __init__(self, file: Path):
        """Opens the file.

        Raises:
          OSError, ValueError, EOFError: it is missing or damaged.
        """
        self._file = file
        self._rows = np.load(file, mmap_mode="r", allow_pickle=False)
        self._checksums = None
        with file.open("rb") as stream:
            if stream.seek(self._rows.offset + self._rows.nbytes) < file.stat().st_size:
                self._checksums = np.load(stream, allow_pickle=False)
        self.dtype, self.shape = self._rows.dtype, self._rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> np.ndarray:
        """One row, [...].

        Raises:
          IndexError: there is none.
          UserError: it is damaged.
        """
        row = self._rows[index]
        if self._checksums is not None and zlib.crc32(row.tobytes()) != self._checksums[index]:
            raise UserError(f"the extra {self._file} is damaged (row {index}); delete it and have it computed anew")
        return row

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows, [examples, ...]."""
        return np.array([self[index] for index in range(len(self))], dtype or self.dtype).reshape(self.shape)


def write_extra(prepared: PreparedSet, name: str, array: np.ndarray) -> None:
    """Stores an array beside a prepared set, whole or not at all; one of the same name is replaced.

    Args:
      prepared: the set.
      name: letters, digits and underscores.
      array: [examples, ...] in the order of the set's names, of a numeric dtype.

    Raises:
      ValueError: another number of rows, another kind of name, or an array of objects.
      OSError: it cannot be written.
    """
    if array.shape[:1] != (len(prepared),):
        raise ValueError(f"extra {name!r} has shape {array.shape}; expected {len(prepared)} rows, one for each example")
    file = prepared._extra_file(name)
    file.parent.mkdir(exist_ok=True)
    with atomic.replacing(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        np.save(stream, np.array([zlib.crc32(row.tobytes()) for row in array], np.uint32))
