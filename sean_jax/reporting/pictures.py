"""A run's pictures as part of a page: a selection of steps, small enough to be embedded."""

import base64
import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from sean_jax.data import image_files
from sean_jax.reporting.tables import hex_color
from sean_jax.scoring.visualize import evenly_spaced, heat_map

SHOWN = 4  # steps of a run
# Pixels: 320 for each of a panel's five pictures. A full-size panel of Cityscapes has 5136 pixels and 10 MB.
WIDEST = 1600


class Picture(NamedTuple):
    """A panel at a step: a ``data:`` address, or None where the file cannot be read."""

    step: int
    address: str | None
    width: int = 0
    height: int = 0
    shrunk: bool = False


def selection(steps: Sequence[int]) -> list[int]:
    """At most :data:`SHOWN` of the steps, evenly spaced from the first to the last."""
    return [steps[index] for index in evenly_spaced(len(steps), SHOWN)]


def embed(step: int, path: pathlib.Path) -> Picture:
    """The picture in a file: unchanged if it is small enough, otherwise scaled down to :data:`WIDEST`."""
    try:
        picture, content = image_files.open_image(path)
        with image_files.explained():
            if picture.format == "PNG" and picture.width <= WIDEST:
                picture.load()
                return Picture(step, _address("png", content), *picture.size)
            size = min(WIDEST, picture.width), max(1, round(picture.height * min(1, WIDEST / picture.width)))
            file = io.BytesIO()
            picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "WEBP", quality=88)
            return Picture(step, _address("webp", file.getvalue()), *size, shrunk=True)
    except image_files.BadFileError:  # one that was cut off when its process was killed
        return Picture(step, None)


def heat_colors(count: int = 13) -> list[str]:
    """The colours of attention from 0 to 1, evenly spaced, as ``#rrggbb``."""
    return [hex_color(color) for color in heat_map(np.linspace(0, 1, count)[None])[0].tolist()]


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
