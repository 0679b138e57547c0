"""Reads, checks and resizes one pair of image and label."""

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from sean_jax.data import image_files
from sean_jax.data.preparation.encodings import LabelReader
from sean_jax.data.preparation.listing import Example, Problem


@dataclasses.dataclass(frozen=True)
class Checked:
    """A good pair.

    Attributes:
      example: the pair.
      size: its image's, as ``WIDTHxHEIGHT``.
      record: what is stored of it: its name and encoded PNGs.
      pixels: int64 [256], pixels by raw id at the label's own size; None without label.
      encoding: what its label file holds.
    """

    example: Example
    size: str
    record: dict[str, Any]
    pixels: np.ndarray | None = None
    encoding: str = ""

    @property
    def num_bytes(self) -> int:
        """Size of the stored record."""
        return sum(value.getbuffer().nbytes for name, value in self.record.items() if name != "name")


def check(example: Example, size: tuple[int, int], labels: str, reader: LabelReader) -> Checked | Problem:
    """Reads and checks a pair and resizes it as the reference does: Pillow's bicubic, and nearest for labels.

    Args:
      example: image and label.
      size: (width, height) wanted.
      labels: ``none``, ``resized`` or ``original``.
      reader: of its label.
    """
    file = example.image
    try:
        image = image_files.read_image(file)
        resized = image.resize(size, Image.Resampling.BICUBIC)
        record = {"name": example.name, "image": io.BytesIO(image_files.encode_png(resized))}
        text = f"{image.width}x{image.height}"
        if example.label is None:
            return Checked(example, text, record)
        file = example.label
        ids, encoding = reader.read(file)
        label = Image.fromarray(ids)
        if label.size != image.size:
            raise image_files.BadFileError(
                f"the label is {label.width}x{label.height} and its image {example.name} {text}; expected equal sizes"
            )
        pixels = np.bincount(ids.ravel(), minlength=256)
        if labels == "resized":
            label = label.resize(size, Image.Resampling.NEAREST)
        record["label"] = io.BytesIO(image_files.encode_png(label))
        return Checked(example, text, record, pixels, encoding)
    except image_files.BadFileError as error:
        return Problem(str(file), str(error))
