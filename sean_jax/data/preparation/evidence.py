"""What label values tell of themselves, beyond a table of valid ones: blended edges, streets, palettes."""

import collections
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

# Blended labels: of the steps from one value to another, at least this share lies inside a ramp (measured: up to 0.03
# in labels of Cityscapes and CamVid, 0.09 at a tenth of their size; from 0.17 after JPEG or bilinear resizing); and
# there are few steps, since noise has ramps too. In small labels, things are a pixel wide: up to 0.2 at 64x32.
_RAMPS, _SMALL_RAMPS, _SMALL = 0.12, 0.25, 50_000
_FEW_STEPS = 0.3
_STRIP = 128  # rows or columns that are looked at together: several numbers a pixel are kept meanwhile


def looks_blended(values: np.ndarray) -> bool:
    """Whether values run through those between them where one class borders another, as resizing and JPEG leave them.

    Ids are names and not amounts: three neighbours of rising ids are rare in a label.
    """
    steps = ramps = total = 0
    strips = (along[i : i + _STRIP] for along in (values, values.T) for i in range(0, len(along), _STRIP))
    for strip in strips:
        difference = np.sign(np.diff(strip.astype(np.int32), axis=1))
        steps += np.count_nonzero(difference)
        ramps += np.count_nonzero(difference[:, 1:] * difference[:, :-1] > 0)
        total += difference.size
    least = _SMALL_RAMPS if values.size < _SMALL else _RAMPS
    return bool(steps > 16 and ramps > least * steps and steps < _FEW_STEPS * total)


# Streets: how far apart, as a share of the image's height, the mean rows of two classes must be to tell anything.
_APART = 0.15
_LEAST_SHARE = 0.002  # of all pixels, below which a class tells nothing
_TELLING_SHARE = 0.01  # of all pixels, from which a class that lies where it cannot be tells that it is none
_LEAST_CORRELATION = 0.75  # between the mean rows of classes in two halves of the files, below which it is chance
_ON_THE_GROUND = frozenset(
    ("road", "sidewalk", "terrain", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
)


class Layout:
    """Where in the images the values of one-channel labels lie, on average."""

    def __init__(self) -> None:
        self._files = 0
        # Of every other file each, so that chance can be told from order.
        self._count = np.zeros((2, 256), np.int64)
        self._rows = np.zeros((2, 256), np.float64)

    def add(self, values: np.ndarray) -> None:
        """Takes a label ``[height, width]`` into account; values above 255 are left out."""
        half, self._files = self._files % 2, self._files + 1
        for place, row in enumerate(values):
            count = np.bincount(row[(row >= 0) & (row < 256)], minlength=256)
            self._count[half] += count
            self._rows[half] += count * ((place + 0.5) / len(values))

    def _has_order(self, values: list[int]) -> bool:
        """Whether these values lie at the same heights in both halves of the files."""
        found = [v for v in values if self._count[0, v] and self._count[1, v]]
        if len(found) < 3:
            return False
        one, other = (self._rows[half][found] / self._count[half][found] for half in (0, 1))
        return bool(one.std() and other.std() and np.corrcoef(one, other)[0, 1] > _LEAST_CORRELATION)

    def verdict(self, meaning: Mapping[int, str]) -> tuple[Literal["street", "no street", "unknown"], str]:
        """Whether the labels show streets if values mean these classes, and what tells so."""
        if not self._has_order([*meaning]):
            return "unknown", "classes lie nowhere in particular"
        values = {name: [v for v, other in meaning.items() if other == name] for name in set(meaning.values())}
        count, weighted = np.sum(self._count, axis=0), np.sum(self._rows, axis=0)
        share = {name: count[of].sum() / count.sum() for name, of in values.items()}
        rows = {name: weighted[of].sum() / count[of].sum() for name, of in values.items() if share[name]}
        if min(share.get("sky", 0), share.get("road", 0)) < _LEAST_SHARE:
            return "unknown", "there is no sky or no road"
        sky, road = rows["sky"], rows["road"]
        above = [n for n in rows if share[n] > _TELLING_SHARE and rows[n] < sky - _APART]
        for name in sorted(above, key=lambda n: rows[n]):
            # What stands beside the sky may be higher than what is seen of it, but not if it is seen so low.
            if name in _ON_THE_GROUND or sky > 0.35:
                return "no street", f"{name} would lie above the sky"
        if sky > road + _APART:
            return "no street", "the sky would lie below the road"
        ground = min(rows[n] for n in rows if n in _ON_THE_GROUND and share[n] > _LEAST_SHARE)
        if sky + _APART < min(ground, 0.5) and road > 0.5:
            return "street", "sky lies above everything on the ground"
        return "unknown", "classes lie nowhere in particular"


class Palettes:
    """Compares the palettes of label files whose values are indices; safe to use from several threads.

    If a program has put the palette of one file into another order, the file shows the same picture, but its indices
    mean other classes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._index_of: collections.defaultdict[int, dict[int, Path]] = collections.defaultdict(dict)
        self.by_colors: set[Path] = set()  # read by their colours, which contradict the indices
        self.agreeing: set[Path] = set()  # whose colours are those of the classes that the indices mean

    def add(self, path: Path, shown: Mapping[int, int]) -> None:
        """Takes the colours of the indices that occur in a file into account."""
        if len(set(shown.values())) < len(shown):
            return  # colours that several indices share tell nothing
        with self._lock:
            for index, color in shown.items():
                self._index_of[color].setdefault(index, path)

    def conflict(self) -> str | None:
        """What is wrong: colours that are one index in one file and another in the next; None if nothing is."""
        conflicting = [(color, found) for color, found in self._index_of.items() if len(found) > 1]
        if len(conflicting) < 2:  # black, for example, may stand for anything
            return None
        color, found = conflicting[0]
        (one, first), (other, second), *_ = found.items()
        return (
            f"the palettes are in different orders: the colour {(color >> 16, color >> 8 & 255, color & 255)} is index "
            f"{one} in {first.name} and {other} in {second.name}"
        )
