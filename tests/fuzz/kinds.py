"""The kinds of files that users hand over: sound ones to start from, what reads them, and how they are damaged."""

import functools
import io
import json
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import hostile
import jax
import numpy as np
import pickles
import safetensors.numpy
from guard import Bound
from mutate import damaged, in_json, in_png, in_safetensors, in_zip
from PIL import Image

from sean_jax import atomic, weights
from sean_jax.config import from_flat_settings
from sean_jax.data import descriptions
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import label_map
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.data.preparation.checking import check
from sean_jax.data.preparation.encodings import LabelReader, detect
from sean_jax.data.preparation.listing import BadFilesError, Example, Problem, find_pairs
from sean_jax.experiment import Experiment
from sean_jax.parity.cases import load_case
from sean_jax.port_weights import port
from sean_jax.reporting.page import findings, render
from sean_jax.reporting.rundata import load_runs
from sean_jax.run import directory
from sean_jax.run.trained import open_network
from sean_jax.scoring.input_images import check_image, read_image
from sean_jax.scoring.metrics import format_table
from sean_jax.scoring.protocols import PROTOCOLS, score
from sean_jax.scoring.scorer import describe
from sean_jax.scoring.stored import rescore, score_table

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "weights" / "fixtures"
PARITY = pathlib.Path(directory.__file__).parents[1] / "parity"
_MIB = 1 << 20


class Kind(NamedTuple):
    """One kind of file.

    Attributes:
      suffixes: of the files; one is chosen.
      seeds: sound files.
      craft: makes a hostile file from nothing.
      inside: damages a part of a sound file and keeps its frame intact; None if the frame is all there is.
      read: what commands do with such a file; the second argument is the folder it may write to.
      bound: the memory it may take.
      tokens: bytes with a meaning in the format.
    """

    suffixes: Sequence[str]
    seeds: Callable[[], Sequence[bytes]]
    craft: Callable[[random.Random], bytes]
    inside: Callable[[random.Random, bytes, Callable[[bytes], bytes]], bytes] | None
    read: Callable[[pathlib.Path, pathlib.Path], None]
    bound: Bound
    tokens: Sequence[bytes] = ()

    def make(self, rng: random.Random) -> tuple[bytes, str]:
        """A file, crafted or damaged, and its suffix."""
        seeds = self.seeds()
        content = rng.choice(seeds)

        def change(part: bytes) -> bytes:
            return damaged(rng, part, seeds, self.tokens)

        way = rng.random()
        if way < 0.3:
            made = self.craft(rng)
        elif way < 0.65 and self.inside is not None:
            made = self.inside(rng, content, change)
        else:
            made = change(content)
        return made, rng.choice(self.suffixes)


def _fixtures(*patterns: str) -> Callable[[], Sequence[bytes]]:
    @functools.cache
    def found() -> Sequence[bytes]:
        return [p.read_bytes() for pattern in patterns for p in sorted(FIXTURES.glob(pattern))]

    return found


@functools.cache
def _torch(legacy: bool) -> Sequence[bytes]:
    return [p.read_bytes() for p in sorted(FIXTURES.glob("*.pth")) if p.stem.endswith("_legacy") == legacy]


def _port(file: pathlib.Path, output: pathlib.Path) -> None:
    """As ``port_weights`` and, where a file says what network it is, as ``evaluate --weights`` begin."""
    port(str(file), str(output / f"weights{random.Random(file.stat().st_size).choice(('.npz', '.safetensors'))}"))
    if weights.read(file).metadata:
        open_network(weights_file=str(file))


@functools.cache
def _described_weights() -> Sequence[bytes]:
    """A complete network with this project's metadata."""
    shared = {"input_convention": "bgr_mean", "initialization": "scratch", "steps": 1}
    config = from_flat_settings(shared | {"width_multiplier": 1 / 64, "fc_channels": 64})
    experiment = Experiment(config, LABEL_SPACES["19"])
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), experiment.network().abstract_params())
    tensors = weights.from_params(params, experiment.network().TORCH_MODULES)
    metadata = experiment.weights_metadata() | {"network": "teacher", "step": 1}
    return [safetensors.numpy.save(tensors, {"sean_jax": json.dumps(metadata)})]


def _in_metadata(rng: random.Random, content: bytes, _: Callable[[bytes], bytes]) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    said = header["__metadata__"]["sean_jax"]
    header["__metadata__"]["sean_jax"] = (
        in_json(rng, said.encode()).decode() if rng.random() < 0.95 else hostile.metadata(rng)
    )
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@functools.cache
def _cases() -> Sequence[bytes]:
    return [p.read_bytes() for p in sorted(PARITY.glob("*.npz")) if p.stat().st_size < 50_000]


def _case(file: pathlib.Path, _: pathlib.Path) -> None:
    load_case(str(file))


@functools.cache
def _image_files(labels: bool) -> Sequence[bytes]:
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


def _in_image(rng: random.Random, content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return in_png(rng, content, change) if content.startswith(b"\x89PNG") else change(content)


def _image(file: pathlib.Path, _: pathlib.Path) -> None:
    check_image(file)
    read_image(file)


@functools.cache
def _readers() -> Sequence[LabelReader]:
    """Of every encoding, and of none that is known."""
    pairs = [("gta5", "ids"), ("gta5", "rgb"), ("gta5", "train_ids"), ("gta5", None), ("synthia", "red16")]
    return [LabelReader(DATASETS[name], encoding) for name, encoding in pairs]


def _label(file: pathlib.Path, _: pathlib.Path) -> None:
    """As preparation does, with the file as its own image, too."""
    reader = _readers()[file.stat().st_size % len(_readers())]
    detect([file], DATASETS["cityscapes"])
    result = check(Example("x", file, file), (32, 24), "original", reader)
    if isinstance(result, Problem):
        raise BadFilesError([result], "")


@functools.cache
def _descriptions() -> Sequence[bytes]:
    folder = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "datasets"
    return [p.read_bytes() for p in sorted(folder.glob("*.toml"))]


@functools.cache
def _folder() -> pathlib.Path:
    """A data set with a name that is hard to match."""
    import tempfile

    root = pathlib.Path(tempfile.mkdtemp(prefix="sean_jax_fuzz_set_"))
    for path in ("images/a.png", "labels/a.png", "labels/b.png", f"images/{'a' * 200}.png", "day_train/images/1.jpg"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(_image_files(True)[0])
    return root


def _toml(file: pathlib.Path, _: pathlib.Path) -> None:
    """As commands do before they read an image."""
    descriptions.read_label_space(str(file))
    dataset = descriptions.read_dataset(str(file))
    label_map(dataset, dataset.label_space)
    json.dumps(dataset.identity())
    for split in dataset.splits:
        find_pairs(dataset, split, _folder(), dataset.splits[split].labels is not None)


@functools.cache
def _run_files() -> dict[str, bytes]:
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


def _in_one_json(rng: random.Random, content: bytes, _: Callable[[bytes], bytes]) -> bytes:
    return in_json(rng, content)


def _scores(file: pathlib.Path, output: pathlib.Path) -> None:
    """As ``evaluate --from``."""
    for protocol in PROTOCOLS:
        if protocol in ("all", "16-of-19", "cca-13"):
            scores = rescore(str(file), protocol)
            describe(scores), format_table(scores), ", ".join(scores["absent"])
            directory.write_json(output / "scores.json", scores)
            score_table({"a": scores, "b": scores})


def _run(name: str) -> Callable[[pathlib.Path, pathlib.Path], None]:
    def read(file: pathlib.Path, output: pathlib.Path) -> None:
        """As ``report`` and as commands that open a run do, with one of the run's files replaced."""
        run = output / "run"
        run.mkdir(exist_ok=True)
        for other, content in _run_files().items():
            (run / other).write_bytes(file.read_bytes() if other == name else content)
        if name == "config.json":
            experiment = directory.load(run)
            directory.known_data(run)
            experiment.network().abstract_params()
            experiment.method()
        runs = load_runs([str(run)])
        if name == "config.json":
            findings(runs)
        else:
            atomic.write(output / "report.html", render(runs).encode(errors="replace"))

    return read


def _run_file(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [_run_files()[name]]


_SMALL = Bound(128 * _MIB, 300)
_PICTURE = Bound(512 * _MIB, 1032 * 16)
_OPCODES = (
    b"cos\nsystem\n",
    b"R",
    b"\x81",
    b"b",
    b"\x93",
    b"r\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b".",
)
KINDS: dict[str, Kind] = {
    "torch zip": Kind((".pth", ".pt", ".ckpt"), lambda: _torch(False), lambda rng: pickles.crafted(rng, False), in_zip, _port, _SMALL, _OPCODES),
    "torch legacy": Kind((".pth", ".pt", ".tar"), lambda: _torch(True), lambda rng: pickles.crafted(rng, True), None, _port, _SMALL, _OPCODES),
    "safetensors": Kind((".safetensors",), _fixtures("*.safetensors"), hostile.safetensors, in_safetensors, _port, _SMALL, (b'"', b"{", b"["),),
    "metadata": Kind((".safetensors",), _described_weights, hostile.safetensors, _in_metadata, _port, _SMALL),
    "npz weights": Kind((".npz",), _fixtures("*.npz"), hostile.npz, in_zip, _port, _SMALL, (b"|O", b"(99999999999,)", b"\x93NUMPY")),
    "npz parity": Kind((".npz",), _cases, hostile.npz, in_zip, _case, _SMALL, (b"|O", b"(99999999999,)", b"\x93NUMPY")),
    "image": Kind((".png", ".jpg", ".tif", ".webp"), lambda: _image_files(False), hostile.image, _in_image, _image, _PICTURE),
    "label": Kind((".png", ".tif", ".webp"), lambda: _image_files(True), hostile.image, _in_image, _label, _PICTURE),
    "toml": Kind((".toml",), _descriptions, hostile.toml, None, _toml, _SMALL, (b"[[", b"]", b"=", b'"""', b"\\u001b", b"**", b"0x")),
    "scores.json": Kind((".json",), _run_file("scores.json"), hostile.json_text, _in_one_json, _scores, _SMALL),
    "config.json": Kind((".json",), _run_file("config.json"), hostile.json_text, _in_one_json, _run("config.json"), _SMALL),
    "metrics.jsonl": Kind((".jsonl",), _run_file("metrics.jsonl"), hostile.json_text, None, _run("metrics.jsonl"), _SMALL),
    "evaluation.json": Kind((".json",), _run_file("evaluation.json"), hostile.json_text, _in_one_json, _run("evaluation.json"), _SMALL),
}  # fmt: skip
