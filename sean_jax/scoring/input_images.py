"""The images that ``predict`` segments: finds, checks and reads them, and plans where their results go."""

import collections
import contextlib
import glob
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from sean_jax.data import image_files
from sean_jax.data.folders import is_foreign, walk
from sean_jax.data.image_files import SUFFIXES
from sean_jax.errors import UserError
from sean_jax.models.network import MIN_SIZE

# Photographs that cannot be read: a folder of them would be passed over without a word.
_OTHER_IMAGES = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".gif", ".jxl")


class Job(NamedTuple):
    """An image to segment.

    Attributes:
      image: its file.
      result: the path of its results, without their endings.
    """

    image: pathlib.Path
    result: pathlib.Path

    def file(self, ending: str) -> pathlib.Path:
        """Returns the path of the result with that ending, such as ``_overlay.png``."""
        return self.result.with_name(self.result.name + ending)


def find_images(pattern: str, output: pathlib.Path, endings: Sequence[str] = (".png",)) -> list[Job]:
    """Finds the images of ``--input`` and plans their results, which keep the structure of an input folder.

    In a folder, hidden files, what other programs keep there, and the contents of an ``output`` inside it (results of
    an earlier call) are skipped; links to folders are followed.

    Args:
      pattern: a file, a folder or a glob pattern.
      output: folder of the results.
      endings: an image's results are named after it, with each of these endings in place of its extension.

    Raises:
      UserError: there is no image, two results would have the same path, or a result would overwrite an image.
    """
    path = pathlib.Path(pattern)
    if path.is_dir():
        root, skipped = path, output if path.resolve() in output.resolve().parents else None
        found = list(walk(path, skipped))
        files = sorted(p for p in found if p.suffix.lower() in SUFFIXES)
        _warn_about_others(found)
    elif path.is_file():
        root, files = path.parent, [path]
    else:
        found = sorted(p for p in map(pathlib.Path, glob.glob(pattern, recursive=True)) if p.is_file())
        files = [p for p in found if not any(is_foreign(part) and part not in pattern for part in p.parts)]
        root = None
    if not files:
        raise UserError(
            f"--input={pattern} matches no image; expected a file, a folder or a glob of {', '.join(SUFFIXES)}"
        )
    jobs = [Job(p, output / (p.relative_to(root) if root else pathlib.Path(p.name)).with_suffix("")) for p in files]
    inputs = {p.resolve() for p in files}
    seen: dict[pathlib.Path, pathlib.Path] = {}
    for job in jobs:
        for ending in endings:
            written = job.file(ending)
            other = seen.setdefault(written, job.image)
            if other != job.image:
                raise UserError(f"{other} and {job.image} would both be written to {written}; predict them separately")
            if written.resolve() in inputs:
                raise UserError(f"--output={output} would overwrite {written}; choose another folder")
    return jobs


def _warn_about_others(files: Sequence[pathlib.Path]) -> None:
    others = collections.Counter(p.suffix for p in files if p.suffix.lower() in _OTHER_IMAGES)
    if others:
        listed = ", ".join(f"{count} of {suffix}" for suffix, count in sorted(others.items()))
        print(f"files of other formats are skipped: {listed}; convert them to PNG or JPEG", file=sys.stderr)


def check_image(path: pathlib.Path) -> None:
    """Checks an image file by its header alone, which is fast enough to check all files before the first is segmented.

    Raises:
      UserError: it is not an image that can be read, or it is too small for the network.
    """
    with _image_errors(path):
        width, height = image_files.check_header(path)
    if min(width, height) < MIN_SIZE:
        raise UserError(f"{path} is {width}x{height} pixels; expected at least {MIN_SIZE}x{MIN_SIZE}")


def read_image(path: pathlib.Path) -> Image.Image:
    """Reads an image as RGB, rotated according to its EXIF orientation.

    Raises:
      UserError: it cannot be read.
    """
    with _image_errors(path):
        return image_files.read_image(path)


@contextlib.contextmanager
def _image_errors(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except image_files.BadFileError as error:
        raise UserError(f"{path} cannot be read as an image ({error}); replace it or leave it out") from None
