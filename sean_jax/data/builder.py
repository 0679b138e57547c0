"""Preparation: a split's files, checked and resized once, into ArrayRecord files that are read by index.

The TFDS builder runs without TensorFlow because it is handed encoded PNGs. It writes one TFDS split for every
few hundred megabytes ("part"): TFDS keeps a split in memory up to 1 GB, and beyond that needs TensorFlow and,
where the order is to be kept, all of the split in memory at once.
"""

import collections
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from tqdm import tqdm

from sean_jax.data import labels as label_files
from sean_jax.data.concurrency import cpu_count, lock, ordered_map
from sean_jax.data.datasets import Dataset
from sean_jax.data.listing import REMEDY, Example, Fault, FaultsFoundError, find_pairs
from sean_jax.data.prepared import METADATA_FILE, PreparedSet
from sean_jax.errors import UserError

# Part of the digest: counts up when the same files are to give other pixels.
FORMAT = 1
LABEL_MODES = ("none", "resized", "original")
# Bytes of a part before compression, which bounds what TFDS keeps in memory.
PART_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be prepared, from which files, under which name."""

    dataset: Dataset
    split: str
    height: int
    width: int
    labels: str
    examples: tuple[Example, ...]
    missing: tuple[Fault, ...]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with the description, the size or any file's name, length or time."""
        files = []
        for example in self.examples:
            files.append((example.name, *_stamp(example.image), *(_stamp(example.label) if example.label else ())))
        description = dataclasses.asdict(self.dataset)
        missing = [fault.file for fault in self.missing]
        facts = [FORMAT, description, self.split, self.height, self.width, self.labels, files, missing]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def part_length(self) -> int:
        """Examples in a part; label files at their own size are taken to have four times the image's pixels."""
        pixels = self.height * self.width
        label_pixels = {"none": 0, "resized": pixels, "original": 4 * pixels}[self.labels]
        return max(1, PART_BYTES // (3 * pixels + label_pixels))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class PreparedImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images, and labels where wanted, of any described data set; a config is one :class:`Request`."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, request: Request, data_dir: Path, progress: bool):
        self.request = request
        self.progress = progress
        self.facts = tfds.core.MetadataDict()  # saved with the records
        super().__init__(data_dir=data_dir, config=tfds.core.BuilderConfig(name=_config_name(request)))

    def _info(self) -> tfds.core.DatasetInfo:
        request = self.request
        shape = (request.height, request.width) if request.labels != "original" else (None, None)
        features: dict[str, Any] = {
            "name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(request.height, request.width, 3), encoding_format="png"),
        }
        if request.labels != "none":
            features["label"] = tfds.features.Image(shape=(*shape, 1), dtype=np.uint8, encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=self.facts,
            disable_shuffling=True,  # the order is that of the names
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[Any, Any]:
        del dl_manager
        request = self.request
        results = _checked(request, self.progress, self.facts)
        parts = -(-len(request.examples) // request.part_length)
        # The last part takes whatever is left, so that `results` runs to its end, where faults are reported.
        lengths = [request.part_length] * (parts - 1) + [None]
        return {
            f"part{i:06d}": self._generate_examples(itertools.islice(results, length))
            for i, length in enumerate(lengths)
        }

    def _generate_examples(self, results: Iterator[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(results)


def _config_name(request: Request) -> str:
    size = f"{request.width}x{request.height}"
    return f"{request.dataset.name}-{request.split}-{size}-{request.labels}-{request.digest}"


def _checked(request: Request, progress: bool, metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Examples for TFDS in order; raises FaultsFoundError once all files have been looked at, if any is at fault.

    Fills ``metadata`` before it ends.
    """
    faults = list(request.missing)
    sizes, pixels = collections.Counter(), np.zeros(256, np.int64)
    encodings = set()
    bar = tqdm(
        ordered_map(lambda example: _convert(example, request), request.examples, cpu_count()),
        desc=f"preparing {request.dataset.name} {request.split}",
        total=len(request.examples),
        unit="image",
        disable=not progress,
    )
    for result in bar:
        if isinstance(result, Fault):
            faults.append(result)
            continue
        sizes[result.size] += 1
        if result.pixels is not None:
            pixels += result.pixels
            encodings.add(result.encoding)
        if not faults:  # after the first fault nothing will be kept: only look for more
            yield result.example
    if faults:
        raise FaultsFoundError(sorted(faults, key=lambda fault: fault.file), REMEDY)
    metadata.update(
        dataset=request.dataset.name,
        split=request.split,
        height=request.height,
        width=request.width,
        labels=request.labels,
        digest=request.digest,
        part_length=request.part_length,
        names=[example.name for example in request.examples],
        label_encoding=sorted(encodings),
        sizes=dict(sorted(sizes.items())),
        pixels=_pixels_by_class(pixels, request) if encodings else {},
    )


def _pixels_by_class(pixels: np.ndarray, request: Request) -> dict[str, int]:
    label_ids = request.dataset.label_ids
    counts = dict.fromkeys(label_ids.values(), 0)
    for label_id, name in label_ids.items():
        counts[name] += int(pixels[label_id])
    counts["ignored"] = int(pixels.sum()) - sum(counts.values())
    return counts


@dataclasses.dataclass(frozen=True)
class _Converted:
    example: dict[str, Any]
    size: str
    pixels: np.ndarray | None = None
    encoding: str = ""


def _convert(example: Example, request: Request) -> _Converted | Fault:
    """Reads, checks and resizes one pair, as the reference does: Pillow's bicubic, and nearest for labels."""
    file, size = example.image, (request.width, request.height)
    try:
        image = label_files.read_image(example.image)
        encoded = {
            "name": example.name,
            "image": io.BytesIO(label_files.encode_png(image.resize(size, Image.Resampling.BICUBIC))),
        }
        text = f"{image.width}x{image.height}"
        if example.label is None:
            return _Converted(encoded, text)
        file = example.label
        ids, encoding = label_files.read_label(example.label, request.dataset)
        label = Image.fromarray(ids)
        if label.size != image.size:
            raise label_files.BadFileError(
                f"the label is {label.width}x{label.height} and its image {example.name} {text}; expected equal sizes"
            )
        if request.labels == "resized":
            label = label.resize(size, Image.Resampling.NEAREST)
        encoded["label"] = io.BytesIO(label_files.encode_png(label))
        return _Converted(encoded, text, np.bincount(ids.ravel(), minlength=256), encoding)
    except label_files.BadFileError as error:
        return Fault(str(file), str(error))


def prepare(
    dataset: Dataset,
    *,
    split: str,
    source_dir: str | Path,
    data_dir: str | Path,
    height: int,
    width: int,
    labels: str,
    progress: bool = True,
    flag: str = "--source_dir",
) -> PreparedSet:
    """Prepares a split at a size, or finds it prepared already and returns at once.

    Args:
      dataset: the data set.
      split: which of its splits.
      source_dir: its folder, as downloaded.
      data_dir: where prepared sets are kept.
      height: of the prepared images.
      width: of the prepared images.
      labels: ``none`` (label files are neither opened nor looked for: targets of adaptation), ``resized`` (to
        height × width: training) or ``original`` (at their own size: scoring).
      progress: whether to show a progress bar.
      flag: the flag that gave ``source_dir``, for messages.

    Raises:
      UserError: missing files, or faults of files (:class:`FaultsFoundError`, which lists them all); nothing is kept.
    """
    if labels not in LABEL_MODES:
        raise ValueError(f"labels is {labels!r}; expected one of {', '.join(LABEL_MODES)}")
    if height < 1 or width < 1:
        raise UserError(f"size {width}x{height} (width x height); expected at least 1x1")
    examples, missing = find_pairs(dataset, split, source_dir, labels != "none", flag)
    request = Request(dataset, split, height, width, labels, tuple(examples), tuple(missing))
    data_dir = Path(data_dir).expanduser()
    if not next(path for path in (data_dir, *data_dir.parents) if path.exists()).is_dir():
        raise UserError(f"--data_dir={data_dir} is or lies in a file; expected a folder")
    directory = data_dir / PreparedImages.name / _config_name(request) / str(PreparedImages.VERSION)
    # TFDS gives the folder this name when it is whole.
    if not (directory / METADATA_FILE).is_file():
        with lock(data_dir / PreparedImages.name / ".locks" / _config_name(request)):
            if not (directory / METADATA_FILE).is_file():  # nobody else did it while we waited
                _build(request, data_dir, directory, progress)
    return PreparedSet(directory)


def _build(request: Request, data_dir: Path, directory: Path, progress: bool) -> None:
    """Prepares into a folder of another name, which TFDS renames to ``directory`` at the end."""
    if not request.examples:
        raise FaultsFoundError(list(request.missing), REMEDY)
    config_dir = directory.parent
    # We hold the lock: whatever is there was left behind by a process that was killed.
    shutil.rmtree(config_dir, ignore_errors=True)
    try:
        # TFDS wants a folder for downloads, which there are none of.
        with _quiet_tfds(), tempfile.TemporaryDirectory() as downloads:
            builder = PreparedImages(request, data_dir, progress)
            builder.download_and_prepare(download_dir=downloads, file_format="array_record")
    except BaseException as error:
        shutil.rmtree(config_dir, ignore_errors=True)
        # ArrayRecord reports a full disk when it closes a file, not as an OSError.
        if isinstance(error, RuntimeError) and (reason := re.search(r"write\(\) failed: ([^;]*)", str(error))):
            raise UserError(
                f"cannot write: {reason[1]} ({data_dir}); free space there or choose another --data_dir"
            ) from None
        raise


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """TFDS talks of downloading on standard output, and of its own progress; ours says what matters."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
