"""Exports a trained network as one file that runs on JAX alone, without this project.

    python -m sean_jax.export --workdir=runs/gta5 --output=network.zip

The output is a zip archive. Its member ``network.jax_export`` is a StableHLO program with its weights, serialised by
``jax.export``. The program takes uint8 RGB images ``[b, height, width, 3]`` of one fixed size and any batch size b.
It normalises the images itself and returns a dictionary: ``classes``, uint8 ``[b, height, width]``; ``logits``,
float32 ``[b, h, w, classes]`` at the network's own resolution; and the network's other maps, such as ``attention``,
float32 ``[b, h, w]``. ``metadata.json`` holds the size, the classes with their colours, and the origin of the network.
"""

import dataclasses
import json
import os
import pathlib
import zipfile
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from absl import flags

import sean_jax
from sean_jax import atomic
from sean_jax.cli import command as cli
from sean_jax.errors import UserError
from sean_jax.models.inputs import CONVENTIONS
from sean_jax.ops import implementation
from sean_jax.run.trained import CONVENTION_HELP, TrainedNetwork, open_network
from sean_jax.scoring.predictor import at_size

PROGRAM, METADATA = "network.jax_export", "metadata.json"  # members of the archive
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # JAX's names

_NETWORK, _PROGRAM = "Network", "Exported program"
WORKDIR = flags.DEFINE_string("workdir", None, "run directory", module_name=_NETWORK)
WEIGHTS = flags.DEFINE_string("weights", None, "weights file, instead of --workdir", module_name=_NETWORK)
NETWORK = flags.DEFINE_string(
    "network", None, "which of the run's networks; default: the main one", module_name=_NETWORK
)
INPUT_CONVENTION = flags.DEFINE_enum(
    "input_convention", None, CONVENTIONS, f"of --weights: {CONVENTION_HELP}", module_name=_NETWORK
)
OUTPUT = flags.DEFINE_string("output", None, ".zip file to write", module_name=_PROGRAM, required=True)
HEIGHT = flags.DEFINE_integer(
    "height", None, "image height in pixels; default: the height trained at", lower_bound=16, module_name=_PROGRAM
)
WIDTH = flags.DEFINE_integer(
    "width", None, "image width in pixels; default: the width trained at", lower_bound=16, module_name=_PROGRAM
)
PLATFORM_LIST = flags.DEFINE_list(
    "platforms", "cpu,cuda", f"one or several of {', '.join(PLATFORMS)}; default: cpu,cuda", module_name=_PROGRAM
)
PRECISION = flags.DEFINE_enum(
    "precision", None, ["float32", "tf32", "bfloat16"], "arithmetic; default: the run's", module_name=_PROGRAM
)


def main() -> None:
    output = pathlib.Path(OUTPUT.value)
    _check_output(output)
    if not PLATFORM_LIST.value or not set(PLATFORM_LIST.value) <= set(PLATFORMS):
        given = ",".join(PLATFORM_LIST.value)
        raise UserError(f"--platforms={given}; expected one or several of {', '.join(PLATFORMS)}, separated by commas")
    # The other implementations depend on the batch size or the platform, which the exported program leaves open.
    os.environ[implementation.VARIABLE] = "plain"
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no source paths in the file

    trained = open_network(WORKDIR.value, WEIGHTS.value, NETWORK.value, INPUT_CONVENTION.value)
    given = {"height": HEIGHT.value, "width": WIDTH.value, "precision": PRECISION.value}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    config = dataclasses.replace(trained.experiment.config, **changes)
    trained = trained._replace(experiment=trained.experiment._replace(config=config))
    program = export(trained, tuple(dict.fromkeys(PLATFORM_LIST.value)))
    _write(output, program.serialize(), describe(trained, program))
    print(
        f"wrote {output}: {trained.origin}, images of {config.width}x{config.height}, "
        f"{output.stat().st_size / 1e6:.1f} MB, for {', '.join(program.platforms)}"
    )


def export(trained: TrainedNetwork, platforms: tuple[str, ...]) -> jax.export.Exported:
    """Returns a program of uint8 images ``[b, height, width, 3]`` that contains the network's parameters.

    The height, the width and the precision are those of the network's configuration. The plain implementation of the
    operations must have been chosen (see :mod:`sean_jax.ops.implementation`).
    """
    config, params = trained.experiment.config, jax.device_get(trained.params)
    network = trained.experiment.network()
    size = (config.height, config.width)

    @jax.jit
    def segment(images: jax.Array) -> dict[str, jax.Array]:
        prediction = network.predict(params, images)
        return {"classes": at_size(prediction, size).classes, "logits": prediction.logits, **prediction.maps}

    (batch,) = jax.export.symbolic_shape("b")
    return jax.export.export(segment, platforms=platforms)(jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8))


def describe(trained: TrainedNetwork, program: jax.export.Exported) -> dict[str, Any]:
    """Returns the content of ``metadata.json``."""
    config = trained.experiment.config
    return {
        "format": "sean_jax_export",
        "version": 1,
        "label_space": trained.experiment.label_space.to_dict(),
        "height": config.height,
        "width": config.width,
        "input": "uint8 RGB, resized to width x height (in training: bicubic); the program applies input_convention",
        "input_convention": config.input_convention,
        "outputs": {
            name: f"{aval.dtype} [{', '.join(map(str, aval.shape))}]"
            for name, aval in jax.tree.unflatten(program.out_tree, program.out_avals).items()
        },
        "precision": config.precision,
        "platforms": list(program.platforms),
        "network": trained.name,
        "step": trained.step,
        "architecture": {"name": config.architecture, **vars(config.network_settings)},
        **{name: getattr(config, name) for name in ("method", "seed", "selection")},
        "sean_jax_version": sean_jax.__version__,
        "jax_version": jax.__version__,
        "calling_convention_version": program.calling_convention_version,
    }


def _check_output(path: pathlib.Path) -> None:
    if path.suffix.lower() != ".zip":
        raise UserError(f"--output={path} has the extension {path.suffix!r}; expected a .zip file")
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"is in {path.parent}, which is not a folder"
        raise UserError(f"--output={path} {problem}; name a file in an existing folder")


def _write(path: pathlib.Path, program: bytearray, metadata: dict[str, Any]) -> None:
    # ZipInfo has a constant date, so that identical networks give identical files. Weights hardly compress.
    with atomic.replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(PROGRAM), program)
        archive.writestr(zipfile.ZipInfo(METADATA), json.dumps(metadata, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main, "sean_jax.export")
