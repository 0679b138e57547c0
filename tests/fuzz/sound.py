"""Sound files of every kind, to be damaged."""

import functools
import io
import json
import pathlib
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
import safetensors.numpy
from PIL import Image

from sean_jax import parity, weights
from sean_jax.config import from_flat_settings
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.experiment import Experiment
from sean_jax.scoring.protocols import score

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "weights" / "fixtures"


PARITY = pathlib.Path(parity.__file__).parent


@functools.cache
def fixtures(*names: str) -> Sequence[bytes]:
    return [(FIXTURES / name).read_bytes() for name in names]


torch_zip = partial(fixtures, "sean.pth", "odd.pth", "checkpoint.pth", "vgg16_torchvision.pth", "whole_module.pth")


torch_legacy = partial(fixtures, "sean_legacy.pth", "odd_legacy.pth", "checkpoint_legacy.pth", "vgg16_caffe_legacy.pth")


npz = partial(fixtures, "sean.npz", "odd.npz", "checkpoint.npz")


safetensors_files = partial(
    fixtures,
    *("sean_bfloat16.safetensors", "vgg16_bn.safetensors", "vgg16_caffe.safetensors", "vgg16_torchvision.safetensors"),
)


@functools.cache
def described_weights() -> Sequence[bytes]:
    """A complete network with this project's metadata."""
    shared = {"input_convention": "bgr_mean", "initialization": "scratch", "steps": 1}
    config = from_flat_settings(shared | {"width_multiplier": 1 / 64, "fc_channels": 64})
    experiment = Experiment(config, LABEL_SPACES["19"])
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), experiment.network().abstract_params())
    tensors = weights.from_params(params, experiment.network().TORCH_MODULES)
    metadata = experiment.weights_metadata() | {"network": "teacher", "step": 1}
    return [safetensors.numpy.save(tensors, {"sean_jax": json.dumps(metadata)})]


@functools.cache
def cases() -> Sequence[bytes]:
    return [p.read_bytes() for p in sorted(PARITY.glob("*.npz")) if p.stat().st_size < 50_000]


@functools.cache
def pictures(labels: bool) -> Sequence[bytes]:
    """Small files in each format, mode and orientation that images, or labels, come in."""
    rng = np.random.default_rng(0)
    ids = np.array((7, 8, 11, 21, 23, 24, 26, 33), np.uint8)[rng.integers(0, 8, (6, 8))].repeat(4, 0).repeat(4, 1)
    grey = Image.fromarray(ids)
    palette = grey.convert("P")
    palette.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    colors = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    deep = Image.fromarray(ids.astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    made: list[tuple[Image.Image, str, dict]] = [
        *(
            (image, "PNG", {"exif": exif})
            for image in (grey, palette, colors, deep, grey.convert("LA"), colors.convert("RGBA"))
        ),
        *((grey.convert("1"), "PNG", {}), (colors, "WEBP", {"lossless": True, "exif": exif}), (colors, "GIF", {})),
        *(
            (grey, "TIFF", {"compression": name})
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
        *(
            (image, "TIFF", {"exif": exif})
            for image in (palette, colors, deep, colors.convert("CMYK"), colors.convert("LAB"))
        ),
        *((colors.convert("F"), "TIFF", {}), (colors.convert("I"), "TIFF", {}), (colors, "BMP", {}), (grey, "PPM", {})),
    ]
    if not labels:
        made += [(colors, "JPEG", {"exif": exif}), (colors, "JPEG", {"progressive": True}), (grey, "JPEG", {})]
        made += [(colors.convert("CMYK"), "JPEG", {}), (colors, "WEBP", {"exif": exif}), (colors, "JPEG2000", {})]
        made += [(colors, "AVIF", {})]
    files = []
    for image, form, options in made:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        files.append(buffer.getvalue())
    return files


images, labels = partial(pictures, labels=False), partial(pictures, labels=True)


@functools.cache
def descriptions() -> Sequence[bytes]:
    folder = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "datasets"
    own = """name = "own"
ignored_ids = [255]
[splits.train]
images = "images/*.png"
labels = "labels/*.png"
frames = [0, 1]
[[classes]]
name = "road"
ids = [7, 8]
color = [1, 2, 3]
includes = ["street"]
"""
    return [own.encode(), *(p.read_bytes() for p in sorted(folder.glob("*.toml")))]


def data_set(root: pathlib.Path) -> pathlib.Path:
    """A folder that the first description fits, with a name that takes long to match."""
    for path in ("images/a.png", "labels/a.png", f"images/{'a' * 200}.png", f"labels/{'a' * 200}.png"):
        if not (root / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(labels()[0])
    return root


@functools.cache
def run_files() -> dict[str, bytes]:
    """The files of a run directory, without a run: a configuration, lines and scores."""
    space = LABEL_SPACES["19"]
    settings = {"steps": 4, "source": "gta5", "target": "cityscapes", "initialization": "scratch"}
    config = from_flat_settings(
        settings | {"input_convention": "bgr_mean", "width_multiplier": 1 / 32, "classes": "19"}
    )
    confusion = np.random.default_rng(0).integers(0, 1000, (19, 19))
    stamp = {
        "network": "teacher",
        "checkpoint": "step 4",
        "step": 4,
        "seed": 0,
        "dataset": "cityscapes",
        "split": "val",
    }
    stamp |= {"images": 5, "input_size": "32x16", "resolution": "own", "interpolation": "x", "selection": "last"}
    stamp |= {"classes": list(space.classes), "confusion_matrix": confusion.tolist(), "method": "sean"}
    entry = score(confusion, space.classes, "all") | stamp
    content = {"version": "1", **Experiment(config, space).to_json(), "data": {"source": "x", "target": "y"}}
    lines = [{"step": i, "train/loss": 1.5, "val/mean_iou": 10.0 + i, "train/kept_pixels": 0.5} for i in range(1, 5)]
    times = [{"step": i, "images_per_second": 3.0, "training_seconds": 2.0} for i in range(1, 5)]
    files = {"config.json": content, "evaluation.json": {"teacher": entry, "student": entry}, "scores.json": entry}
    made = {name: json.dumps(value).encode() for name, value in files.items()}
    for name, values in (("metrics.jsonl", lines), ("timing.jsonl", times)):
        made[name] = "".join(json.dumps(line) + "\n" for line in values).encode()
    return made


def run_file(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [run_files()[name]]
