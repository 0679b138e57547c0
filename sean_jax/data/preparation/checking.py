"""Reads, checks and resizes one pair of image and label."""

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from sean_jax.data import image_files
from sean_jax.data.orientation import turn
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
      turned: how the label was turned: ``shown`` or ``stored`` (see :func:`align`) if only one of them fits, else "".
    """

    example: Example
    size: str
    record: dict[str, Any]
    pixels: np.ndarray | None = None
    encoding: str = ""
    turned: str = ""

    @property
    def num_bytes(self) -> int:
        """Size of the stored record."""
        return sum(value.getbuffer().nbytes for name, value in self.record.items() if name != "name")


def align(
    label: np.ndarray, own: int, images: int, size: tuple[int, int], choice: str | None
) -> tuple[np.ndarray, str]:
    """Turns a label so that it lies on its upright image.

    Where orientation tags differ there are two readings: the label's pixels are to be turned by its own tag, as viewers
    show it (``shown``), or lie on the image's pixels as both are stored (``stored``). Their sizes may tell.

    Args:
      label: ``[height, width]`` as stored.
      own: its orientation tag.
      images: its image's.
      size: (width, height) of the upright image.
      choice: the reading, if it is known.

    Returns:
      The label, and the reading if only that one fits, else "".

    Raises:
      BadFileError: both fit.
    """
    shown, stored = turn(label, own), turn(label, images)
    if own == images:
        return shown, ""
    fitting = {name: x for name, x in (("shown", shown), ("stored", stored)) if x.shape[::-1] == size}
    if len(fitting) == 1:
        return next(iter(fitting.values())), next(iter(fitting))
    if not fitting or np.array_equal(shown, stored):
        return shown, ""
    if choice is None:
        raise image_files.BadFileError(
            f"its orientation tag ({own}) differs from its image's ({images}), and both ways of turning it fit; choose "
            "by `prepare --label_orientation=shown` (as viewers show it) or =stored (pixel on pixel as stored)"
        )
    return fitting[choice], ""


def check(
    example: Example, size: tuple[int, int], labels: str, reader: LabelReader, orientation: str | None = None
) -> Checked | Problem:
    """Reads and checks a pair and resizes it as the reference does: Pillow's bicubic, and nearest for labels.

    Args:
      example: image and label.
      size: (width, height) wanted.
      labels: ``none``, ``resized`` or ``original``.
      reader: of its label.
      orientation: how labels are turned, if that is known; see :func:`align`.
    """
    file = example.image
    try:
        image, turned = image_files.read_turned(file)
        resized = image.resize(size, Image.Resampling.BICUBIC)
        record = {"name": example.name, "image": io.BytesIO(image_files.encode_png(resized))}
        text = f"{image.width}x{image.height}"
        if example.label is None:
            return Checked(example, text, record)
        file = example.label
        opened = reader.open(file)
        ids, encoding = reader.ids(opened, file)
        ids, told = align(ids, opened.turned, turned, image.size, orientation)
        label = Image.fromarray(np.ascontiguousarray(ids))
        if label.size != image.size:
            raise image_files.BadFileError(
                f"the label is {label.width}x{label.height} and its image {example.name} {text}; expected equal sizes"
            )
        pixels = np.array(label.histogram())
        if labels == "resized":
            label = label.resize(size, Image.Resampling.NEAREST)
        record["label"] = io.BytesIO(image_files.encode_png(label))
        return Checked(example, text, record, pixels, encoding, told)
    except image_files.BadFileError as error:
        return Problem(str(file), str(error))
