"""Writes translated copies of data sets and image folders; what is complete is not translated again."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from sean_jax import atomic
from sean_jax.data import image_files
from sean_jax.data.dataset import Dataset, Split
from sean_jax.data.description_writer import describe
from sean_jax.data.patterns import wildcards
from sean_jax.data.preparation import overrides
from sean_jax.data.preparation.encodings import Detection, detect
from sean_jax.data.preparation.job import digest_of_files
from sean_jax.data.preparation.listing import BadFilesError, Example, Problem, find_pairs, remedy
from sean_jax.errors import UserError
from sean_jax.run.trained import TrainedTranslators
from sean_jax.scoring.translation import Translator

DESCRIPTION = "dataset.toml"
_RECORD = "translation.json"  # which translation the folder contains
_SEE = 'see "Data" in BUILD.md'


class Translation(NamedTuple):
    """What is done with each image, and facts that identify it."""

    translate: Callable[[Image.Image], Image.Image]
    facts: dict[str, Any]


def make_translation(trained: TrainedTranslators, to: str, *, native_size: bool = False) -> Translation:
    """The translation by one network of a run.

    Args:
      trained: from :func:`sean_jax.run.trained.open_translators`.
      to: the domain whose look the images get, ``target`` or ``source``.
      native_size: whether the network sees each image at the image's own size. If not, an image is resized to the
        size of the run and back (bicubic), since that is the scale at which the network was trained.
    """
    config, translator = trained.experiment.config, Translator(trained.experiment.method())
    params = {"target": trained.networks.to_target, "source": trained.networks.to_source}[to]

    def translate(image: Image.Image) -> Image.Image:
        at = image.size if native_size else (config.width, config.height)
        translated = translator(params, np.asarray(image.resize(at, Image.Resampling.BICUBIC)))
        return Image.fromarray(translated).resize(image.size, Image.Resampling.BICUBIC)

    digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(params))).hexdigest()[:12]
    facts = {"network": digest, "step": trained.step, "to": to, "native_size": native_size}
    return Translation(translate, facts | {"precision": config.precision})


def translate_dataset(
    translation: Translation,
    dataset: Dataset,
    split: str,
    source_dir: str | Path,
    output: Path,
    *,
    data_dir: str | Path,
    flag: str = "--source_dir",
) -> Path:
    """Writes ``images/``, ``labels/`` and ``dataset.toml`` of a translated split; returns the path of the latter.

    Labels are copied byte by byte. A split without labels gives a data set without.

    Args:
      translation: what is done with the images.
      dataset: the data set.
      split: one of its splits; the copy's split has the same name.
      source_dir: its folder.
      output: a new folder, or one in which the same translation was interrupted.
      data_dir: where prepared sets are kept, with what the user settled about files of this data set.
      flag: the flag that gave ``source_dir``, for messages.

    Raises:
      UserError: files are missing or cannot be read, or ``output`` contains something else.
    """
    patterns = dataset.split(split)
    examples, missing = find_pairs(dataset, split, source_dir, patterns.labels is not None, flag)
    settled = overrides.load(Path(data_dir).expanduser(), digest_of_files(dataset, split, examples, missing))
    if (missing and not settled.skip_bad) or not examples:
        raise BadFilesError(missing, remedy(split, "resized" if patterns.labels else "none"))
    found = None if settled.label_encoding else _detect(dataset, split, examples)
    encoding, rest = (found.encoding, found.rest) if found else (settled.label_encoding, ())
    facts = [dataset.identity(), split, [example.name for example in examples]]
    claim(output, translation.facts | {"data": hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]})

    fixed = next(i for i, part in enumerate(patterns.images.split("/")) if wildcards(part))
    stems = [PurePosixPath(*PurePosixPath(example.name).parts[fixed:]).with_suffix("") for example in examples]
    if len(set(stems)) < len(stems):
        raise UserError(f"{flag}={source_dir}: images of {split} differ in their extensions only; rename them")
    suffix = PurePosixPath(patterns.labels or "").suffix
    suffix = ".png" if wildcards(suffix) else suffix
    images = [output / "images" / f"{stem}.png" for stem in stems]
    for example, stem in zip(examples, stems, strict=True):
        if example.label is not None:
            copy(example.label, output / "labels" / f"{stem}{suffix}")
    write_images(translation, zip((example.image for example in examples), images, strict=True), len(images))

    depth = "*/" * (len(stems[0].parts) - 1)
    labels = f"labels/{depth}*{suffix}" if patterns.labels else None
    described = describe(
        dataset, f"{dataset.name}_translated", {split: Split(f"images/{depth}*.png", labels)}, encoding, rest
    )
    atomic.write(output / DESCRIPTION, described)
    return output / DESCRIPTION


def _detect(dataset: Dataset, split: str, examples: list[Example]) -> Detection | None:
    """What the label files hold; None if there are none."""
    labels = [example.label for example in examples if example.label is not None]
    if not labels:
        return None
    found = detect(labels, dataset)
    if found.encoding is None:
        told = f"choose by `prepare --split={split} --label_encoding=NAME`, one of {', '.join(dataset.label_encodings)}"
        raise UserError(f"the labels of {dataset.name} fit several encodings ({found.doubt}); {told}; {_SEE}")
    return found


def claim(output: Path, facts: Mapping[str, Any]) -> None:
    """Creates a folder for a translation, or checks that it contains the same one.

    Raises:
      UserError: it contains another translation or other files, or is a file.
    """
    record = output / _RECORD
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) != facts:
            raise UserError(
                f"--output={output} contains a translation by another network or of other images; choose another folder"
            )
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output={output} is not an empty folder and contains no translation; choose another one")
    output.mkdir(parents=True, exist_ok=True)
    atomic.write(record, json.dumps(facts, indent=2) + "\n")


def write_images(translation: Translation, pairs: Iterable[tuple[Path, Path]], count: int) -> None:
    """Translates each image of ``pairs`` (image file, PNG file to write) whose result does not exist.

    Raises:
      UserError: an image cannot be read.
    """
    for image, result in tqdm(pairs, total=count, unit="image", desc="translating"):
        if result.exists():
            continue
        try:
            translated = translation.translate(image_files.read_image(image))
        except image_files.BadFileError as error:
            raise BadFilesError([Problem(str(image), str(error))], "repair or remove this file") from None
        result.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(result, image_files.encode_png(translated))


def copy(file: Path, result: Path) -> None:
    """Copies a file unless it was copied before."""
    if not result.exists():
        result.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(result) as temporary:
            shutil.copyfile(file, temporary)
