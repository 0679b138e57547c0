"""``python -m sean_jax.predict``: segments images of any size; no labels are needed."""

import contextlib
import glob
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

from sean_jax import atomic
from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache
from sean_jax.data import image_files as labels
from sean_jax.data.catalogue import load_dataset
from sean_jax.errors import UserError
from sean_jax.models.network import MIN_SIZE
from sean_jax.run.trained import open_network
from sean_jax.scoring import submission, visualize
from sean_jax.scoring.predictor import Predictor

WORKDIR = flags.DEFINE_string("workdir", None, "run directory")
WEIGHTS = flags.DEFINE_string("weights", None, "weights file with its metadata, instead of --workdir")
NETWORK = flags.DEFINE_string("network", None, "which of the run's networks; default: the one that counts")
INPUT = flags.DEFINE_string("input", None, "image file, folder (searched through) or glob pattern")
OUTPUT = flags.DEFINE_string("output", None, "folder for the results")
OVERLAY = flags.DEFINE_bool("overlay", False, "also write the colours blended over the image")
ATTENTION = flags.DEFINE_bool("attention", False, "also write the attention map, from blue (0) to red (1)")
LABEL_IDS = flags.DEFINE_bool("label_ids", False, "also write Cityscapes labelIds, as its server wants them")
SUBMISSION = flags.DEFINE_string("cityscapes_submission", None, "zip file for Cityscapes' benchmark server")
NATIVE_SIZE = flags.DEFINE_bool("native_size", False, "run the network at the image's own size, not the training size")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


class Job(NamedTuple):
    """An image and the path of its results without their endings."""

    image: pathlib.Path
    result: pathlib.Path

    def file(self, ending: str) -> pathlib.Path:
        """The result of that ending."""
        return self.result.with_name(self.result.name + ending)


def main() -> None:
    if not INPUT.value or not (OUTPUT.value or SUBMISSION.value):
        raise UserError("--input (file, folder or glob) and --output (folder) are needed; see --help")
    wanted = {"_overlay.png": OVERLAY.value, "_attention.png": ATTENTION.value, "_labelIds.png": LABEL_IDS.value}
    endings = [".png", *(ending for ending, asked in wanted.items() if asked)] if OUTPUT.value else []
    jobs = find_images(INPUT.value, pathlib.Path(OUTPUT.value or os.devnull), endings)
    names = submission.names([job.image for job in jobs]) if SUBMISSION.value else []
    for job in jobs:
        check_image(job.image)

    compilation_cache.enable()
    opened = open_network(WORKDIR.value, WEIGHTS.value, NETWORK.value)
    space = opened.experiment.label_space
    table = _label_id_table(space.classes) if LABEL_IDS.value or SUBMISSION.value else np.zeros(0, np.uint8)
    segment = Predictor(opened.experiment, opened.params, native_size=NATIVE_SIZE.value)

    def save_results(job: Job, image: Image.Image) -> None:
        classes, maps = segment(image)
        job.result.parent.mkdir(parents=True, exist_ok=True)
        _save(visualize.palette_image(classes, space.palette), job.file(".png"))
        if OVERLAY.value:
            colors = visualize.colorize(classes, space.palette)
            _save(Image.fromarray(visualize.overlay(np.asarray(image), colors)), job.file("_overlay.png"))
        if ATTENTION.value:
            if "attention" not in maps:
                raise UserError(f"--attention: the network of {opened.origin} has no attention map; leave it out")
            _save(Image.fromarray(visualize.heat_map(maps["attention"])), job.file("_attention.png"))
        if LABEL_IDS.value:
            _save(Image.fromarray(table[classes]), job.file("_labelIds.png"))

    with submission.archive(SUBMISSION.value) as archive:
        for i, job in enumerate(tqdm(jobs, unit="image")):
            image = read_image(job.image)
            if OUTPUT.value:
                save_results(job, image)
            if archive is not None:
                archive.writestr(names[i], submission.png(table[segment(image, submission.SIZE).classes]))
    places = " and ".join(place for place in (OUTPUT.value, SUBMISSION.value) if place)
    print(f"{len(jobs)} image(s) segmented by {opened.origin}: {places}")
    if SUBMISSION.value and len(jobs) != submission.IMAGES:
        print(f"the server wants all {submission.IMAGES} test images; these are {len(jobs)}", file=sys.stderr)


def find_images(pattern: str, output: pathlib.Path, endings: Sequence[str] = (".png",)) -> list[Job]:
    """The images that ``--input`` means, with where their results go: the folder's structure is kept.

    In a folder, hidden files are passed over and so is what lies in ``output``: results of an earlier call.

    Args:
      pattern: a file, a folder or a glob pattern.
      output: folder of the results.
      endings: what is appended to an image's name, without its own extension, for each of its results.

    Raises:
      UserError: there is none, or two would be written to one file, or one over an image.
    """
    path = pathlib.Path(pattern)
    if path.is_dir():
        root, results = path, None if output.resolve() == path.resolve() else output.resolve()
        found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        files = sorted(p for p in found if results not in p.resolve().parents)
    elif path.is_file():
        root, files = path.parent, [path]
    else:
        files = sorted(pathlib.Path(p) for p in glob.glob(pattern, recursive=True) if pathlib.Path(p).is_file())
        root = None
    if not files:
        raise UserError(
            f"--input={pattern} names no image; expected a file, a folder or a glob of {', '.join(SUFFIXES)}"
        )
    jobs = [Job(p, output / (p.relative_to(root) if root else pathlib.Path(p.name)).with_suffix("")) for p in files]
    inputs = {p.resolve() for p in files}
    seen: dict[pathlib.Path, pathlib.Path] = {}
    for job in jobs:
        for ending in endings:
            written = job.file(ending)
            other = seen.setdefault(written, job.image)
            if other != job.image:
                raise UserError(f"{other} and {job.image} would both be written to {written}; predict them apart")
            if written.resolve() in inputs:
                raise UserError(f"--output={output} would overwrite {written}; choose another folder")
    return jobs


def check_image(path: pathlib.Path) -> None:
    """Looks at a file's first bytes only, so that many can be checked before the first is segmented.

    Raises:
      UserError: it is no image that we can read, or smaller than the network bears.
    """
    with _image_errors(path), Image.open(path) as image:
        width, height = image.size
        labels.check_range(image)
    if min(width, height) < MIN_SIZE:
        raise UserError(f"{path} is {width}x{height} pixels; expected at least {MIN_SIZE}x{MIN_SIZE}")


def read_image(path: pathlib.Path) -> Image.Image:
    """An image as RGB, turned as its camera says.

    Raises:
      UserError: it cannot be read.
    """
    with _image_errors(path), Image.open(path) as file:
        return labels.to_rgb(file)


@contextlib.contextmanager
def _image_errors(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, labels.BadFileError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}); mend or remove it") from None


def _label_id_table(classes: tuple[str, ...]) -> np.ndarray:
    ids = {name: label_id for label_id, name in load_dataset("cityscapes").label_ids.items()}
    unknown = [name for name in classes if name not in ids]
    if unknown:
        raise UserError(f"labelIds need Cityscapes' classes; this network has {', '.join(unknown)}")
    return np.array([ids[name] for name in classes], np.uint8)


def _save(picture: Image.Image, path: pathlib.Path) -> None:
    with atomic.replacing(path) as temporary:
        picture.save(temporary, format="PNG")


if __name__ == "__main__":
    cli.run(main, "sean_jax.predict", computes=True)
