"""Checks all pairs of a data set: statistics, bad files, and the disk space that they will need."""

import collections
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sean_jax.data.concurrency import cpu_count, ordered_map
from sean_jax.data.preparation.checking import Checked, check
from sean_jax.data.preparation.encodings import Detection, LabelReader, detect
from sean_jax.data.preparation.job import Job
from sean_jax.data.preparation.listing import BadFilesError, Example, Problem, remedy
from sean_jax.errors import UserError

# Pairs that are read in advance, to detect the labels' encoding and to estimate the space needed.
_SAMPLE = 16
# What an ArrayRecord file takes beyond its records: blocks of 64 KiB.
_FILE_BYTES = 1 << 17


class Inspection:
    """Checks the pairs of a job on all cores and collects statistics of the good ones."""

    def __init__(self, job: Job, progress: bool):
        """Detects the labels' encoding. Raises BadFilesError if there is no pair."""
        if not job.examples:
            raise BadFilesError(list(job.missing), remedy(job.split, job.labels))
        self._job, self._progress = job, progress
        self._left_out: list[Problem] = []
        # What the user says of the labels is not questioned.
        self._suspicious = job.overrides.label_encoding is None
        # Streets have them; other data may be of any kind.
        self._roads = [label_id for label_id, name in job.dataset.label_ids.items() if name == "road"]
        self._detection = self._detect()
        found = self._detection
        self._reader = LabelReader(job.dataset, found.encoding, given=not self._suspicious, rest=found.rest)
        self._orientation = job.overrides.label_orientation
        self._turned: collections.Counter[str] = collections.Counter()
        self._good: list[str] = []
        self._sizes: collections.Counter[str] = collections.Counter()
        self._pixels = np.zeros(256, np.int64)
        self._found: set[str] = set()

    def _detect(self) -> Detection:
        """The labels' encoding: as given, or of a sample of them, or of all if the sample is ambiguous."""
        job = self._job
        labels = [example.label for example in job.examples if example.label]
        if job.overrides.label_encoding or not labels:
            return Detection(job.overrides.label_encoding or job.dataset.label_encodings[0])
        few = [labels[i] for i in _spread(len(labels))]
        found = detect(few, job.dataset)
        return detect(labels, job.dataset) if found.encoding is None and len(few) < len(labels) else found

    def _check(self, example: Example) -> Checked | Problem:
        size = (self._job.width, self._job.height)
        result = check(example, size, self._job.labels, self._reader, self._orientation)
        if isinstance(result, Checked) and result.pixels is not None and self._suspicious and self._roads:
            # No street is of one class; a photograph of a wall without cracks is.
            present = np.flatnonzero(result.pixels).tolist()
            if len(present) == 1:
                return Problem(str(example.label), f"the label is {self._everywhere(present[0])}")
        return result

    def _everywhere(self, label_id: int) -> str:
        if self._reader.encoding is None:
            return "one value everywhere"
        meaning = self._job.dataset.label_ids.get(label_id, "ignored")
        return f"{meaning} (id {label_id}) everywhere{self._way_out(self._reader.encoding)}"

    def _way_out(self, encoding: str) -> str:
        return f"; if that is right, run `prepare --split={self._job.split} --label_encoding={encoding}`"

    def stored_size(self) -> float:
        """Estimated size in bytes of what is stored, from a sample of the pairs; 0 if all of those are bad.

        The sample also tells how labels are turned, where the sizes of some pairs leave one way only.
        """
        examples = self._job.examples
        sample = [examples[i] for i in _spread(len(examples))]
        checked = [result for result in ordered_map(self._check, sample, cpu_count()) if isinstance(result, Checked)]
        turned = {result.turned for result in checked} - {""}
        if self._orientation is None and len(turned) == 1:
            (self._orientation,) = turned
        mean = sum(result.num_bytes for result in checked) / max(1, len(checked))
        parts = -(-len(examples) // self._job.part_length)
        return mean * len(examples) + parts * _FILE_BYTES * bool(checked)

    def records(self) -> Iterator[dict[str, Any]]:
        """Goes through all pairs once and yields what is stored of each good one, in order.

        Raises:
          BadFilesError: at the end, if a file is bad (unless those are left out), no pair is good, or the labels as a
            whole are wrong.
        """
        job, skip_bad = self._job, self._job.overrides.skip_bad
        problems = list(job.missing)
        for result in tqdm(
            ordered_map(self._check, job.examples, cpu_count()),
            desc=f"preparing {job.dataset.name} {job.split}",
            total=len(job.examples),
            unit="image",
            disable=not self._progress,
        ):
            if isinstance(result, Problem):
                problems.append(result)
                continue
            self._count(result)
            if skip_bad or not problems:  # otherwise nothing will be kept, and the rest is only checked
                yield result.record
        wrong = self._problems_of_the_whole()
        if wrong or not self._good or (problems and not skip_bad):
            raise BadFilesError(problems + wrong, remedy(job.split, job.labels, bool(problems)), self.facts())
        self._left_out = problems

    @property
    def names(self) -> list[str]:
        """Of the good pairs so far, in order."""
        return self._good

    def _count(self, pair: Checked) -> None:
        self._good.append(pair.example.name)
        self._turned[pair.turned] += 1
        self._sizes[pair.size] += 1
        if pair.pixels is not None:
            self._pixels += pair.pixels
            self._found.add(pair.encoding)

    def _problems_of_the_whole(self) -> list[Problem]:
        """What is wrong with the labels although no single file shows it."""
        job, encoding = self._job, self._reader.encoding
        if job.labels == "none":
            return []
        dataset = job.dataset
        labels = str(job.source_dir / (dataset.split(job.split).labels or ""))
        if encoding is None:
            choices = ", ".join(dataset.label_encodings)
            told = f"choose by `prepare --split={job.split} --label_encoding=NAME`, one of {choices}"
            return [Problem(labels, f"{self._detection.doubt}; {told}, or describe the labels in a TOML file")]
        if not self._suspicious or not self._good:
            return []
        if problem := self._palette_problem():
            return [Problem(labels, f"{problem}{self._way_out(encoding)}")]
        number, present = len(self._good), [name for name, count in self._pixels_by_class().items() if count]
        if self._roads and not self._pixels[self._roads].any():
            return [Problem(labels, f"not one pixel of road in all {number} labels{self._way_out(encoding)}")]
        if not self._roads and len(present) == 1:
            return [Problem(labels, f"all {number} labels are {present[0]} everywhere{self._way_out(encoding)}")]
        return []

    def _palette_problem(self) -> str | None:
        palettes = self._reader.palettes
        if palettes.by_colors and not palettes.agreeing:
            return "all palettes give the indices the colours of other classes"
        return palettes.conflict()

    def _notes(self) -> list[str]:
        """What decided where there were several readings."""
        notes = [f"label_encoding: decided by {self._detection.note}"] if self._detection.note else []
        if number := len(self._reader.palettes.by_colors):
            notes.append(f"{number} labels are read by their palettes' colours: the order is not that of the others")
        for name, meaning in (("shown", "by their own orientation tags"), ("stored", "like their images")):
            if self._turned[name]:
                notes.append(f"labels are turned {meaning}, by the sizes of {self._turned[name]} pairs")
        return notes

    def facts(self) -> dict[str, Any]:
        """What a report says of the good pairs, and ``faults`` of those that were left out."""
        known = bool(self._found) and self._reader.encoding is not None
        return {
            "label_encoding": ", ".join(sorted(self._found)) if known else None,
            "pairs": len(self._good),
            "sizes": dict(sorted(self._sizes.items())),
            "pixels": self._pixels_by_class() if known else {},
            "notes": self._notes(),
            "faults": [problem.to_dict() for problem in self._left_out],
        }

    def _pixels_by_class(self) -> dict[str, int]:
        label_ids = self._job.dataset.label_ids
        counts = dict.fromkeys(label_ids.values(), 0)
        for label_id, name in label_ids.items():
            counts[name] += int(self._pixels[label_id])
        counts["ignored"] = int(self._pixels.sum()) - sum(counts.values())
        return counts


def _spread(length: int) -> list[int]:
    """At most _SAMPLE indices, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(_SAMPLE, length), dtype=int)).tolist()


def existing_parent(path: Path) -> Path:
    """The path itself or the nearest one above it that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def check_space(inspection: Inspection, count: int, data_dir: Path, say: bool) -> None:
    """Prints the space that ``count`` prepared images will take. Raises UserError if the disk has less."""
    needed = inspection.stored_size()
    free = shutil.disk_usage(existing_parent(data_dir)).free
    sizes = f"about {_megabytes(needed)} in {data_dir}, where {_megabytes(free)} are free"
    if needed > free:
        raise UserError(f"preparing {count} images needs {sizes}; choose another --data_dir")
    if say:
        print(f"preparing {count} images takes {sizes}", file=sys.stderr)


def _megabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
