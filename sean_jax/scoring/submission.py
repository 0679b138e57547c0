"""Submissions to Cityscapes' benchmark server: a zip file of label images.

For each of the 1,525 test images ``CITY_SEQUENCE_FRAME_leftImg8bit.png`` it holds one 8-bit PNG of labelIds (not
trainIds), 2048×1024, whose name begins with ``CITY_SEQUENCE_FRAME``. ``evalPixelLevelSemanticLabeling.py`` of the
Cityscapes scripts reads this form.
"""

import contextlib
import io
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from sean_jax import atomic
from sean_jax.errors import UserError

SIZE = (1024, 2048)  # height, width
IMAGES = 1525
_NAME = re.compile(r"([A-Za-z-]+_\d{6}_\d{6})_leftImg8bit")


def names(images: Sequence[pathlib.Path]) -> list[str]:
    """The file name of each image's labels: ``CITY_SEQUENCE_FRAME_gtFine_labelIds.png``.

    Raises:
      UserError: an image is not named like those of Cityscapes, or two images have the same name.
    """
    taken: dict[str, pathlib.Path] = {}
    for image in images:
        match = _NAME.fullmatch(image.stem)
        if not match:
            raise UserError(
                f"--cityscapes_submission: {image} is not named like the images of Cityscapes; expected "
                "CITY_SEQUENCE_FRAME_leftImg8bit.png such as berlin_000000_000019_leftImg8bit.png"
            )
        name = f"{match[1]}_gtFine_labelIds.png"
        if name in taken:
            raise UserError(
                f"--cityscapes_submission: {taken[name]} and {image} have the same name; give only one of them"
            )
        taken[name] = image
    return list(taken)


@contextlib.contextmanager
def archive(path: str | None) -> Iterator[zipfile.ZipFile | None]:
    """A zip file to write to, which appears under its name once it is complete; None without a path."""
    if path is None:
        yield None
        return
    file = pathlib.Path(path)
    if not file.parent.is_dir():
        raise UserError(f"--cityscapes_submission={path}: the folder {file.parent} does not exist; create it first")
    # PNGs are compressed already.
    with atomic.replacing(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as opened:
        yield opened


def png(label_ids: np.ndarray) -> bytes:
    """A PNG file of a uint8 ``[height, width]`` image."""
    buffer = io.BytesIO()
    Image.fromarray(label_ids).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
