"""Translates images into the look of the other domain with a trained CycleGAN.

    python -m sean_jax.translate --workdir=runs/cyclegan --input=gta5 --input_dir=FOLDER --output=gta5_translated

--input is a labelled data set, by its name or TOML file, or an image file, a folder or a glob pattern. Of a data set,
the command writes the translated images, copies of the labels, and ``dataset.toml``, with which the result is a data
set as it stands: ``python -m sean_jax.train --source=gta5_translated/dataset.toml``. Of images, it writes one PNG file
for each. An interrupted translation continues where it stopped if the same command is run again.
"""

import pathlib

from absl import flags

from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache
from sean_jax.data.catalogue import DATASETS, load_dataset
from sean_jax.data.folders import default_data_dir, resolve_source_dir
from sean_jax.errors import UserError
from sean_jax.run.trained import open_translators
from sean_jax.run.translation import claim, make_translation, translate_dataset, write_images
from sean_jax.scoring.input_images import check_image, find_images

_NETWORK, _IMAGES = "Network", "Images"
WORKDIR = flags.DEFINE_string("workdir", None, "run directory of --method=cyclegan", module_name=_NETWORK)
TO = flags.DEFINE_enum("to", "target", ["target", "source"], "domain whose look the images get", module_name=_NETWORK)
NATIVE_SIZE = flags.DEFINE_bool(
    "native_size",
    False,
    "run the network at each image's own size; otherwise images are resized to the size it was trained at, and back",
    module_name=_NETWORK,
)
PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ["float32", "tf32", "bfloat16"],
    "arithmetic of the network; default: the run's",
    module_name=_NETWORK,
)
INPUT = flags.DEFINE_string(
    "input", None, "data set by name or TOML file, or image file, folder or glob pattern", module_name=_IMAGES
)
INPUT_DIR = flags.DEFINE_string("input_dir", None, "folder of the data set, as downloaded", module_name=_IMAGES)
SPLIT = flags.DEFINE_string("split", None, "split of the data set; default: the first", module_name=_IMAGES)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    default_data_dir(),
    "where prepared data are kept; default: $SEAN_JAX_DATA_DIR or ~/sean_jax_data",
    module_name=_IMAGES,
)
OUTPUT = flags.DEFINE_string("output", None, "folder for the results, new or of the same command", module_name=_IMAGES)


def main() -> None:
    if not WORKDIR.value or not INPUT.value or not OUTPUT.value:
        raise UserError("--workdir (a run), --input (data set or images) and --output (folder) are needed; see --help")
    compilation_cache.enable()
    trained = open_translators(WORKDIR.value, PRECISION.value)
    translation = make_translation(trained, TO.value, native_size=NATIVE_SIZE.value)
    output = pathlib.Path(OUTPUT.value)
    if INPUT.value in DATASETS or INPUT.value.endswith(".toml"):
        config, dataset = trained.experiment.config, load_dataset(INPUT.value)
        folder = resolve_source_dir(
            dataset, INPUT_DIR.value, DATA_DIR.value, config.height, config.width, "--input_dir"
        )
        split = SPLIT.value or next(iter(dataset.splits))
        described = translate_dataset(
            translation, dataset, split, folder, output, data_dir=DATA_DIR.value, flag="--input_dir"
        )
        print(f"translated {dataset.name} {split}: {output}; use it as --source={described}")
        return
    if INPUT_DIR.value or SPLIT.value:
        raise UserError(f"--input={INPUT.value} names images; --input_dir and --split belong to a data set: omit them")
    jobs = find_images(INPUT.value, output)
    for job in jobs:
        check_image(job.image)
    claim(output, translation.facts | {"input": INPUT.value})
    write_images(translation, ((job.image, job.file(".png")) for job in jobs), len(jobs))
    print(f"translated {len(jobs)} image(s): {output}")


if __name__ == "__main__":
    cli.run(main, "sean_jax.translate", computes=True)
