"""``python -m sean_jax.predict``: segments images of any size; no labels are needed."""

import contextlib
import glob
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image, ImageOps

from sean_jax import cli, visualize
from sean_jax.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "run directory")
WEIGHTS = flags.DEFINE_string("weights", None, "weights file with its metadata, instead of --workdir")
NETWORK = flags.DEFINE_enum("network", "teacher", ["teacher", "student"], "which network of the run")
INPUT = flags.DEFINE_string("input", None, "image file, folder (searched through) or glob pattern")
OUTPUT = flags.DEFINE_string("output", None, "folder for the results")
OVERLAY = flags.DEFINE_bool("overlay", False, "also write the colours blended over the image")
ATTENTION = flags.DEFINE_bool("attention", False, "also write the attention map, from blue (0) to red (1)")
LABEL_IDS = flags.DEFINE_bool("label_ids", False, "also write Cityscapes labelIds, as its server wants them")
NATIVE_SIZE = flags.DEFINE_bool("native_size", False, "run the network at the image's own size, not the training size")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


class Job(NamedTuple):
    """An image and the path of its results without their endings."""

    image: pathlib.Path
    result: pathlib.Path


def main() -> None:
    if not INPUT.value or not OUTPUT.value:
        raise UserError("--input (file, folder or glob) and --output (folder) are needed; see --help")
    jobs = find_images(INPUT.value, pathlib.Path(OUTPUT.value))

    import jax
    from tqdm import tqdm

    from sean_jax.evaluation import predict
    from sean_jax.networks import open_network

    opened = open_network(WORKDIR.value, WEIGHTS.value, NETWORK.value)
    network, config, space = opened.run.network(), opened.run.config, opened.run.label_space
    table = _label_id_table(space.classes) if LABEL_IDS.value else None
    apply = jax.jit(lambda params, image, size: predict(network, params, image, size), static_argnums=2)

    for job in tqdm(jobs, unit="image"):
        image = read_image(job.image)
        size = image.size if NATIVE_SIZE.value else (config.width, config.height)
        inputs = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        prediction = apply(opened.params, inputs[None], (image.height, image.width))
        classes, attention = (np.asarray(x[0]) for x in prediction)
        job.result.parent.mkdir(parents=True, exist_ok=True)
        _save(visualize.palette_image(classes, space.palette), job.result, ".png")
        if OVERLAY.value:
            colors = visualize.colorize(classes, space.palette)
            _save(Image.fromarray(visualize.overlay(np.asarray(image), colors)), job.result, "_overlay.png")
        if ATTENTION.value:
            _save(Image.fromarray(visualize.heat_map(attention)), job.result, "_attention.png")
        if table is not None:
            _save(Image.fromarray(table[classes]), job.result, "_labelIds.png")
    print(f"{len(jobs)} image(s) segmented by the {NETWORK.value} of {opened.origin}: {OUTPUT.value}")


def find_images(pattern: str, output: pathlib.Path) -> list[Job]:
    """The images that ``--input`` means, with where their results go: the folder's structure is kept.

    Raises:
      UserError: there is none, or two would be written to one file.
    """
    path = pathlib.Path(pattern)
    if path.is_dir():
        root, files = path, sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
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
    seen: dict[pathlib.Path, pathlib.Path] = {}
    for job in jobs:
        other = seen.setdefault(job.result, job.image)
        if other != job.image:
            raise UserError(f"{other} and {job.image} would both be written to {job.result}.png; predict them apart")
        if job.result.with_suffix(".png").resolve() == job.image.resolve():
            raise UserError(f"--output={output} would overwrite {job.image}; choose another folder")
    return jobs


def read_image(path: pathlib.Path) -> Image.Image:
    """An image as RGB, turned as its camera says.

    Raises:
      UserError: it cannot be read, or is smaller than the network bears.
    """
    from sean_jax.models.segmenter import MIN_SIZE

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}); mend or remove it") from None
    if min(image.size) < MIN_SIZE:
        raise UserError(f"{path} is {image.width}x{image.height} pixels; expected at least {MIN_SIZE}x{MIN_SIZE}")
    return image


def _label_id_table(classes: tuple[str, ...]) -> np.ndarray:
    from sean_jax.data.datasets import load_dataset

    ids = {name: label_id for label_id, name in load_dataset("cityscapes").label_ids.items()}
    unknown = [name for name in classes if name not in ids]
    if unknown:
        raise UserError(f"--label_ids needs Cityscapes' classes; this network has {', '.join(unknown)}")
    return np.array([ids[name] for name in classes], np.uint8)


def _save(picture: Image.Image, result: pathlib.Path, ending: str) -> None:
    path = result.with_name(result.name + ending)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        picture.save(temporary, format="PNG")
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


if __name__ == "__main__":
    cli.run(main, "sean_jax.predict")
