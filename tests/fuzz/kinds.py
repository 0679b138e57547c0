"""The kinds of files that users hand over: sound ones to start from, what reads them, and how they are damaged."""

import functools
import json
import pathlib
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import hostile
import pickles
import sound
from guard import Bound
from mutate import damaged, in_json, in_png, in_safetensors, in_zip

from sean_jax import atomic, weights
from sean_jax.data import descriptions
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import label_map
from sean_jax.data.preparation.checking import check
from sean_jax.data.preparation.encodings import LabelReader, detect
from sean_jax.data.preparation.listing import BadFilesError, Example, Problem, find_pairs
from sean_jax.parity.cases import load_case
from sean_jax.port_weights import port
from sean_jax.reporting.page import findings, render
from sean_jax.reporting.rundata import load_runs
from sean_jax.run import directory
from sean_jax.run.trained import open_network
from sean_jax.scoring.input_images import check_image, read_image
from sean_jax.scoring.metrics import format_table
from sean_jax.scoring.protocols import PROTOCOLS
from sean_jax.scoring.scorer import describe
from sean_jax.scoring.stored import rescore, score_table

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


def _port(file: pathlib.Path, output: pathlib.Path) -> None:
    """As ``port_weights`` and, where a file says what network it is, as ``evaluate --weights`` begin."""
    port(str(file), str(output / f"weights{random.Random(file.stat().st_size).choice(('.npz', '.safetensors'))}"))
    if weights.read(file).metadata:
        open_network(weights_file=str(file))


def _in_metadata(rng: random.Random, content: bytes, _: Callable[[bytes], bytes]) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    said = header["__metadata__"]["sean_jax"]
    header["__metadata__"]["sean_jax"] = (
        in_json(rng, said.encode()).decode() if rng.random() < 0.95 else hostile.metadata(rng)
    )
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _case(file: pathlib.Path, _: pathlib.Path) -> None:
    load_case(str(file))


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


def _toml(file: pathlib.Path, output: pathlib.Path) -> None:
    """As commands do before they read an image."""
    descriptions.read_label_space(str(file))
    dataset = descriptions.read_dataset(str(file))
    label_map(dataset, dataset.label_space)
    json.dumps(dataset.identity())
    root = sound.data_set(output / "set")
    for split in dataset.splits:
        find_pairs(dataset, split, root, dataset.splits[split].labels is not None)


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
        for other, content in sound.run_files().items():
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


_SMALL = Bound(128 * _MIB, 300)
_PICTURE = Bound(640 * _MIB, 1400 * 16)
_OPCODES = (b"cos\nsystem\n", b"R", b"\x81", b"b", b"\x93", b".", b"r\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 7 + b"\x7f")
_ARRAYS = (b"|O", b"(99999999999,)", b"\x93NUMPY")
_TOML = (b"[[", b"]", b"=", b'"""', b"\\u001b", b"**", b"0x")
_zip, _legacy = partial(pickles.crafted, legacy=False), partial(pickles.crafted, legacy=True)
_PTH, _TENSORS = (".pth", ".pt", ".ckpt", ".tar"), (".safetensors",)
KINDS: dict[str, Kind] = {
    "torch zip": Kind(_PTH, sound.torch_zip, _zip, in_zip, _port, _SMALL, _OPCODES),
    "torch legacy": Kind(_PTH, sound.torch_legacy, _legacy, None, _port, _SMALL, _OPCODES),
    "safetensors": Kind(
        _TENSORS, sound.safetensors_files, hostile.safetensors, in_safetensors, _port, _SMALL, (b'"', b"{", b"[")
    ),
    "metadata": Kind(_TENSORS, sound.described_weights, hostile.safetensors, _in_metadata, _port, _SMALL),
    "npz weights": Kind((".npz",), sound.npz, hostile.npz, in_zip, _port, _SMALL, _ARRAYS),
    "npz parity": Kind((".npz",), sound.cases, hostile.npz, in_zip, _case, _SMALL, _ARRAYS),
    "image": Kind((".png", ".jpg", ".tif", ".webp"), sound.images, hostile.image, _in_image, _image, _PICTURE),
    "label": Kind((".png", ".tif", ".webp"), sound.labels, hostile.image, _in_image, _label, _PICTURE),
    "toml": Kind((".toml",), sound.descriptions, hostile.toml, None, _toml, _SMALL, _TOML),
    "scores.json": Kind((".json",), sound.run_file("scores.json"), hostile.json_text, _in_one_json, _scores, _SMALL),
    **{
        name: Kind((".json",), sound.run_file(name), hostile.json_text, inside, _run(name), _SMALL)
        for name, inside in (("config.json", _in_one_json), ("evaluation.json", _in_one_json), ("metrics.jsonl", None))
    },
}
