"""All files of a data set looked at: what they hold, what is wrong with them, what space they will need."""

import collections
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sean_jax.data.concurrency import cpu_count, ordered_map
from sean_jax.data.preparation.checking import Checked, check
from sean_jax.data.preparation.encodings import LabelReader, detect
from sean_jax.data.preparation.job import Request
from sean_jax.data.preparation.listing import Example, Fault, FaultsFoundError, remedy
from sean_jax.errors import UserError

# Pairs looked at to tell the labels' encoding and the space needed, before all are.
_SAMPLE = 16
# What an ArrayRecord file takes beyond its records: blocks of 64 KiB.
_FILE_BYTES = 1 << 17


class Inspection:
    """Goes through the pairs of a request on all cores and notes what it finds.

    Attributes:
      examples: the pairs that are to be prepared; all that were found, until some are left out.
    """

    def __init__(self, request: Request, progress: bool):
        if not request.examples:
            raise FaultsFoundError(list(request.missing), remedy(request.split, request.labels))
        self._request, self._progress = request, progress
        self.examples: Sequence[Example] = request.examples
        self._left_out: list[Fault] = []
        # What a person said of the labels is not doubted.
        self._suspicious = request.decisions.label_encoding is None
        # Streets have them; other data may be of any kind.
        self._roads = [label_id for label_id, name in request.dataset.label_ids.items() if name == "road"]
        self._reader = LabelReader(request.dataset, self._encoding(), said=not self._suspicious)
        self._reset()

    def _reset(self) -> None:
        self._good: list[Example] = []
        self._sizes: collections.Counter[str] = collections.Counter()
        self._pixels = np.zeros(256, np.int64)
        self._found: set[str] = set()

    def _encoding(self) -> str | None:
        """What the labels hold, as said or by a sample of them, or by all if the sample does not tell."""
        request = self._request
        labels = [example.label for example in self.examples if example.label]
        if request.decisions.label_encoding or not labels:
            return request.decisions.label_encoding or request.dataset.label_encodings[0]
        few = [labels[i] for i in _spread(len(labels))]
        return detect(few, request.dataset) or (detect(labels, request.dataset) if len(few) < len(labels) else None)

    def _check(self, example: Example) -> Checked | Fault:
        size = (self._request.width, self._request.height)
        result = check(example, size, self._request.labels, self._reader)
        if isinstance(result, Checked) and result.pixels is not None and self._suspicious and self._roads:
            # No street is of one class; a photograph of a wall without cracks is.
            present = np.flatnonzero(result.pixels).tolist()
            if len(present) == 1:
                return Fault(str(example.label), f"the label is {self._everywhere(present[0])}")
        return result

    def _everywhere(self, label_id: int) -> str:
        if self._reader.encoding is None:
            return "one value everywhere"
        meaning = self._request.dataset.label_ids.get(label_id, "ignored")
        return f"{meaning} (id {label_id}) everywhere{self._way_out(self._reader.encoding)}"

    def _way_out(self, encoding: str) -> str:
        return f"; if that is right, say `prepare --split={self._request.split} --label_encoding={encoding}`"

    def stored_size(self) -> float:
        """Bytes that ``examples`` will take, by a sample of them; 0 if all of that is at fault."""
        sample = [self.examples[i] for i in _spread(len(self.examples))]
        checked = [result for result in ordered_map(self._check, sample, cpu_count()) if isinstance(result, Checked)]
        mean = sum(result.bytes for result in checked) / max(1, len(checked))
        parts = -(-len(self.examples) // self._request.part_length)
        return mean * len(self.examples) + parts * _FILE_BYTES * bool(checked)

    def leave_out_bad(self) -> None:
        """Looks at all pairs and takes those with faults out of ``examples``.

        Raises:
          FaultsFoundError: none is left, or the whole is at fault.
        """
        faults = list(self._request.missing)
        faults += [result for result in self._run("checking") if isinstance(result, Fault)]
        if wrong := self._faults_of_the_whole():
            raise self._failure(faults + wrong)
        if not self._good:
            raise self._failure(faults)
        self.examples, self._left_out = self._good, faults

    def records(self, doing: str) -> Iterator[dict[str, Any]]:
        """What is stored of each of ``examples``, in order.

        Raises:
          FaultsFoundError: when all files have been looked at, if any is at fault.
        """
        faults = [] if self._request.decisions.skip_bad else list(self._request.missing)
        for result in self._run(doing):
            if isinstance(result, Fault):
                faults.append(result)
            elif not faults:  # after the first fault nothing will be kept: only look for more
                yield result.record
        if faults := faults + self._faults_of_the_whole():
            raise self._failure(faults)

    def _run(self, doing: str) -> Iterator[Checked | Fault]:
        request = self._request
        self._reset()
        for result in tqdm(
            ordered_map(self._check, self.examples, cpu_count()),
            desc=f"{doing} {request.dataset.name} {request.split}",
            total=len(self.examples),
            unit="image",
            disable=not self._progress,
        ):
            if isinstance(result, Checked):
                self._good.append(result.example)
                self._sizes[result.size] += 1
                if result.pixels is not None:
                    self._pixels += result.pixels
                    self._found.add(result.encoding)
            yield result

    def _failure(self, faults: list[Fault]) -> FaultsFoundError:
        return FaultsFoundError(faults, remedy(self._request.split, self._request.labels), self.facts())

    def _faults_of_the_whole(self) -> list[Fault]:
        """What no single file shows."""
        request, encoding = self._request, self._reader.encoding
        if request.labels == "none":
            return []
        dataset = request.dataset
        labels = str(request.source_dir / (dataset.split(request.split).labels or ""))
        if encoding is None:
            choices = ", ".join(dataset.label_encodings)
            told = f"say which by `prepare --split={request.split} --label_encoding=NAME`, one of {choices}"
            return [Fault(labels, f"cannot tell what these labels hold, as their values fit several encodings; {told}")]
        if not self._suspicious or not self._good:
            return []
        number, present = len(self._good), [name for name, count in self._pixels_by_class().items() if count]
        if self._roads and not self._pixels[self._roads].any():
            return [Fault(labels, f"not one pixel of road in all {number} labels{self._way_out(encoding)}")]
        if not self._roads and len(present) == 1:
            return [Fault(labels, f"all {number} labels are {present[0]} everywhere{self._way_out(encoding)}")]
        return []

    def facts(self) -> dict[str, Any]:
        """What a report says of the pairs without fault, and ``faults`` of those that were left out."""
        known = bool(self._found) and self._reader.encoding is not None
        return {
            "label_encoding": ", ".join(sorted(self._found)) if known else None,
            "pairs": len(self._good),
            "sizes": dict(sorted(self._sizes.items())),
            "pixels": self._pixels_by_class() if known else {},
            "faults": [{"file": fault.file, "fault": fault.fault} for fault in self._left_out],
        }

    def _pixels_by_class(self) -> dict[str, int]:
        label_ids = self._request.dataset.label_ids
        counts = dict.fromkeys(label_ids.values(), 0)
        for label_id, name in label_ids.items():
            counts[name] += int(self._pixels[label_id])
        counts["ignored"] = int(self._pixels.sum()) - sum(counts.values())
        return counts


def _spread(length: int) -> list[int]:
    """At most _SAMPLE places, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(_SAMPLE, length), dtype=int)).tolist()


def existing_parent(path: Path) -> Path:
    """The path itself or the nearest one above it that is there."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def check_space(inspection: Inspection, data_dir: Path, say: bool) -> None:
    """Says what space the prepared set will take. Raises UserError if the disk has not as much."""
    needed = inspection.stored_size()
    free = shutil.disk_usage(existing_parent(data_dir)).free
    sizes = f"about {_megabytes(needed)} in {data_dir}, where {_megabytes(free)} are free"
    if needed > free:
        raise UserError(f"preparing {len(inspection.examples)} images needs {sizes}; choose another --data_dir")
    if say:
        print(f"preparing {len(inspection.examples)} images takes {sizes}", file=sys.stderr)


def _megabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
