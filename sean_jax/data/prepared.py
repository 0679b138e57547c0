"""A prepared set: ArrayRecord files of one split at one size, read by index."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from sean_jax.errors import UserError

# What TFDS writes last but for renaming the folder; it holds our facts.
METADATA_FILE = "metadata.json"


class Record(TypedDict):
    """One example as it is stored: PNG bytes."""

    name: str
    image: bytes
    label: NotRequired[bytes]


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """Examples of one split at one size, in the order of their names. Cheap to pickle; opened on first use.

    ``image`` is an RGB PNG of ``height`` × ``width``. ``label`` is a one-channel PNG of the data set's raw ids,
    of the same size (labels ``resized``) or its own (``original``), or absent (``none``).

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
            return json.loads((self.directory / METADATA_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise self._damaged(f"{METADATA_FILE} is missing or unreadable") from None

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
        """The example of that place; safe to call from several threads.

        Raises:
          IndexError: no such place.
          UserError: the files are damaged, or hold another example there than was noted at preparation.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        part, place = divmod(index, self.metadata["part_length"])
        try:
            example = self._parts[part][place]
        except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
            raise self._damaged(f"example {index} cannot be read: {error}") from None
        if example["name"] is None:  # what ArrayRecord gives where a file is cut short
            raise self._damaged(f"example {index} is empty")
        name = example["name"].decode()
        if name != self.names[index]:
            raise self._damaged(f"example {index} is {name}, expected {self.names[index]}")
        record = Record(name=name, image=example["image"])
        if self.labels != "none":
            record["label"] = example["label"]
        return record

    @functools.cached_property
    def _parts(self) -> list[Any]:
        """One TFDS data source a part, which hand out the encoded bytes; none of this needs TensorFlow."""
        import tensorflow_datasets as tfds

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
        return UserError(f"the prepared set {self.directory} is damaged ({reason}); delete it to have it prepared anew")
