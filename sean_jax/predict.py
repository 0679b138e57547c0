"""Segments images of any size with a trained network.

    python -m sean_jax.predict --workdir=runs/gta5 --input=photos --output=results --overlay

For each image, it writes a PNG file of class indices with a palette of the classes' colours, and what the flags under
Results add. With a folder as input, the results keep its structure.
"""

import os
import pathlib
import sys

import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

from sean_jax import atomic
from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache
from sean_jax.data.catalogue import load_dataset
from sean_jax.errors import UserError
from sean_jax.models.inputs import CONVENTIONS
from sean_jax.run.trained import CONVENTION_HELP, open_network
from sean_jax.scoring import submission, visualize
from sean_jax.scoring.input_images import Job, check_image, find_images, read_image
from sean_jax.scoring.predictor import Predictor

_NETWORK, _RESULTS = "Network", "Results"
INPUT = flags.DEFINE_string(
    "input", None, "image file, folder (subfolders are included) or glob pattern", module_name="Images"
)
WORKDIR = flags.DEFINE_string("workdir", None, "run directory", module_name=_NETWORK)
WEIGHTS = flags.DEFINE_string("weights", None, "weights file, instead of --workdir", module_name=_NETWORK)
NETWORK = flags.DEFINE_string(
    "network", None, "which of the run's networks; default: the main one", module_name=_NETWORK
)
INPUT_CONVENTION = flags.DEFINE_enum(
    "input_convention", None, CONVENTIONS, f"of --weights: {CONVENTION_HELP}", module_name=_NETWORK
)
NATIVE_SIZE = flags.DEFINE_bool(
    "native_size",
    False,
    "run the network at each image's own size, not at the size it was trained at",
    module_name=_NETWORK,
)
OUTPUT = flags.DEFINE_string("output", None, "folder for the results", module_name=_RESULTS)
OVERLAY = flags.DEFINE_bool(
    "overlay", False, "also write the class colours blended over the image", module_name=_RESULTS
)
ATTENTION = flags.DEFINE_bool(
    "attention", False, "also write the attention map, from blue (0) to red (1)", module_name=_RESULTS
)
LABEL_IDS = flags.DEFINE_bool(
    "label_ids", False, "also write Cityscapes labelIds, which its benchmark server expects", module_name=_RESULTS
)
SUBMISSION = flags.DEFINE_string(
    "cityscapes_submission", None, "zip file to write for Cityscapes' benchmark server", module_name=_RESULTS
)


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
    opened = open_network(WORKDIR.value, WEIGHTS.value, NETWORK.value, INPUT_CONVENTION.value)
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
    images = "1 image" if len(jobs) == 1 else f"{len(jobs)} images"
    print(f"{images} segmented with {opened.origin}: {places}")
    if SUBMISSION.value and len(jobs) != submission.IMAGES:
        print(f"the server expects all {submission.IMAGES} test images, not {len(jobs)}", file=sys.stderr)


def _label_id_table(classes: tuple[str, ...]) -> np.ndarray:
    """Returns Cityscapes' labelId of each class, uint8 ``[classes]``."""
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
