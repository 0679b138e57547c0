"""Preparation: a split's files, checked and resized once, into ArrayRecord files that are read by index.

The TFDS builder runs without TensorFlow because it is handed encoded PNGs. It writes one TFDS split for every
few hundred megabytes ("part"): TFDS keeps a split in memory up to 1 GB, and beyond that needs TensorFlow and,
where the order is to be kept, all of the split in memory at once.
"""

import contextlib
import io
import itertools
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from sean_jax.data.concurrency import lock
from sean_jax.data.dataset import Dataset
from sean_jax.data.preparation import overrides
from sean_jax.data.preparation.inspection import Inspection, check_space, existing_parent
from sean_jax.data.preparation.job import LABEL_MODES, Job, digest_of_files
from sean_jax.data.preparation.listing import find_pairs, with_other_extensions
from sean_jax.data.prepared import METADATA_FILE, PreparedSet, folder_name
from sean_jax.errors import UserError


class PreparedImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images, and labels where wanted, of any described data set; a config is one :class:`Job`."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, job: Job, inspection: Inspection, data_dir: Path):
        self.job, self.inspection = job, inspection
        self.facts = tfds.core.MetadataDict()  # saved with the records
        super().__init__(data_dir=data_dir, config=tfds.core.BuilderConfig(name=_config_name(job)))

    def _info(self) -> tfds.core.DatasetInfo:
        job = self.job
        shape = (job.height, job.width) if job.labels != "original" else (None, None)
        features: dict[str, Any] = {
            "name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(job.height, job.width, 3), encoding_format="png"),
        }
        if job.labels != "none":
            features["label"] = tfds.features.Image(shape=(*shape, 1), dtype=np.uint8, encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=self.facts,
            disable_shuffling=True,  # the order is that of the names
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[Any, Any]:
        del dl_manager
        return _Parts(self._records(), self.job.part_length)

    def _generate_examples(self) -> None:
        raise NotImplementedError  # TFDS wants the method; the parts come with their examples

    def _records(self) -> Iterator[dict[str, Any]]:
        """Examples for TFDS in order; raises BadFilesError at the end if the set cannot be used.

        Fills ``self.facts`` before it ends.
        """
        job, inspection = self.job, self.inspection
        yield from inspection.records()
        self.facts.update(
            dataset=job.dataset.name,
            split=job.split,
            height=job.height,
            width=job.width,
            labels=job.labels,
            digest=job.digest,
            part_length=job.part_length,
            names=inspection.names,
            **inspection.facts(),
        )


class _Parts(dict[str, Any]):
    """TFDS's splits, name → (key, example) pairs, of ``length`` examples each but for the last.

    TFDS writes one after another as it goes through ``items()``. How many there are shows only at the end, since bad
    pairs may be left out on the way, and TFDS refuses an empty one.
    """

    def __init__(self, records: Iterator[dict[str, Any]], length: int):
        super().__init__()
        self._records, self._length = records, length

    def items(self) -> Any:
        for number, first in enumerate(self._records):
            rest = itertools.islice(self._records, self._length - 1)
            yield f"part{number:06d}", enumerate(itertools.chain([first], rest))


def _config_name(job: Job) -> str:
    size = {"width": job.width, "height": job.height}
    return folder_name(dataset=job.dataset.name, split=job.split, **size, labels=job.labels, digest=job.digest)


def prepared_sets(
    data_dir: str | Path, dataset: Dataset, split: str, labels: str, *, height: int, width: int
) -> Iterator[PreparedSet]:
    """The sets of a split that were prepared before, from whatever files; see :func:`prepare` for the arguments."""
    folder = Path(data_dir).expanduser() / PreparedImages.name
    size = {"width": width, "height": height}
    pattern = folder_name(dataset=dataset.name, split=split, **size, labels=labels, digest="*")
    for found in sorted(folder.glob(f"{pattern}/{PreparedImages.VERSION}")):
        if (found / METADATA_FILE).is_file():
            yield PreparedSet(found)


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
    label_encoding: str | None = None,
    skip_bad: bool | None = None,
    label_orientation: str | None = None,
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
      progress: whether to print the space needed and to show a progress bar.
      flag: the flag that gave ``source_dir``, for messages.
      label_encoding: what the labels hold; None: as given for these files before, or else detected.
      skip_bad: whether to leave bad pairs out; None: as given for these files before, or else no.
      label_orientation: ``shown`` or ``stored``, where orientation tags leave both; None: as given before, or unknown.

    Raises:
      UserError: missing files, or bad ones (:class:`BadFilesError`, which lists them all); nothing is kept.
    """
    if labels not in LABEL_MODES:
        raise ValueError(f"labels is {labels!r}; expected one of {', '.join(LABEL_MODES)}")
    if height < 1 or width < 1:
        raise UserError(f"size {width}x{height} (width x height); expected at least 1x1")
    if label_encoding is not None and label_encoding not in dataset.label_encodings:
        expected = ", ".join(dataset.label_encodings)
        raise UserError(
            f"--label_encoding={label_encoding}: labels of {dataset.name} never have it; expected {expected}"
        )
    examples, missing = find_pairs(dataset, split, source_dir, labels != "none", flag)
    data_dir = Path(data_dir).expanduser()
    if not existing_parent(data_dir).is_dir():
        raise UserError(f"--data_dir={data_dir} is or lies in a file; expected a folder")
    files_digest = digest_of_files(dataset, split, examples, missing)
    before = overrides.load(data_dir, files_digest)
    settled = overrides.Overrides(
        before.label_encoding if label_encoding is None else label_encoding,
        before.skip_bad if skip_bad is None else skip_bad,
        before.label_orientation if label_orientation is None else label_orientation,
    )
    files = (tuple(examples), tuple(missing), files_digest)
    job = Job(dataset, split, Path(source_dir), height, width, labels, *files, settled)
    directory = data_dir / PreparedImages.name / _config_name(job) / str(PreparedImages.VERSION)
    # TFDS gives the folder this name when it is whole.
    if not (directory / METADATA_FILE).is_file():
        with lock(data_dir / PreparedImages.name / ".locks" / _config_name(job)):
            if not (directory / METADATA_FILE).is_file():  # nobody else did it while we waited
                _build(job, data_dir, directory, progress)
    overrides.save(data_dir, files_digest, settled)
    return PreparedSet(directory)


def _build(job: Job, data_dir: Path, directory: Path, progress: bool) -> None:
    """Prepares into a folder of another name, which TFDS renames to ``directory`` at the end."""
    config_dir = directory.parent
    # We hold the lock: whatever is there was left behind by a process that was killed.
    shutil.rmtree(config_dir, ignore_errors=True)
    inspection = Inspection(job, progress)
    if progress and (others := with_other_extensions(job.dataset, job.split, job.source_dir)):
        listed = ", ".join(others[:3]) + ", …" * (len(others) > 3)
        print(f"{len(others)} images with other extensions are not in the pattern: {listed}", file=sys.stderr)
    check_space(inspection, len(job.examples), data_dir, progress)
    try:
        # TFDS wants a folder for downloads, which there are none of.
        # Not in the system's folder for temporary files, which may be read-only.
        with _quiet_tfds(), tempfile.TemporaryDirectory(dir=config_dir.parent / ".locks") as downloads:
            builder = PreparedImages(job, inspection, data_dir)
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
    """Silences TFDS, which prints that it downloads, and its own progress bar."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
