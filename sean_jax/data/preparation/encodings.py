"""Label encodings: which one a set of label files is in, and its values as the data set's own ids.

A data set is told apart from its copies by its files as a whole, because a single one may fit two encodings: 8-bit
files of SYNTHIA hold 0-22 if they are its own ids, and 0-18 and 255 if they are trainIds.
"""

import collections
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sean_jax.data.dataset import LABEL_ENCODINGS, TRAIN_IDS, Dataset
from sean_jax.data.image_files import BadFileError
from sean_jax.data.label_files import LabelFile, open_label
from sean_jax.data.preparation.evidence import Layout, Palettes, looks_blended

_VALID_TRAIN_IDS = frozenset([*TRAIN_IDS, 255])
# Road, vegetation, sky and car, which hardly a street scene lacks, as trainIds. Read as Cityscapes' ids they are
# unlabelled, sidewalk, rail track and fence.
_TYPICAL_TRAIN_IDS = frozenset([0, 8, 10, 13])
# Values beside trainIds that copies give to everything else.
_REST = frozenset([19, 20])
# What the last classes are in trainIds: copies of fewer classes, renumbered without gaps, do not reach them.
_LAST_TRAIN_IDS = frozenset([16, 17, 18])
# Ids that are ignored and may yet have the colour of a class: polegroup and licence plates (34 is GTA-5's, 255 is -1).
_LENT_COLORS = {18: "pole", 34: "car", 255: "car"}
# How many times as many files must fit one encoding as fit another; those of the minority are errors then.
_MARGIN = 3
# Encoding → kind of file.
_KINDS = {"ids": "channel", "train_ids": "channel", "rgb": "rgb", "red16": "red16"}


def matching_encoding(values: Iterable[int], dataset: Dataset) -> str | None:
    """``ids`` or ``train_ids``, whichever the values of one-channel files fit; None if they fit both or neither."""
    present, ids = frozenset(values), frozenset([*dataset.label_ids, *dataset.ignored_ids])
    if present <= ids and not present <= _VALID_TRAIN_IDS:
        return "ids"
    if present <= _VALID_TRAIN_IDS:
        telling = _VALID_TRAIN_IDS - ids
        if present & telling if telling else present >= _TYPICAL_TRAIN_IDS:
            return "train_ids"
    return None


def shows_colors(file: LabelFile, dataset: Dataset) -> bool:
    """Whether a palette file is a colour label, as programs that shrink PNGs make them from RGB copies.

    It is if all of its colours are known and, whether its indices are taken for the data set's own ids or (if it has
    copies in them) for trainIds, the palette gives the colour of a class to one that means something else. Indices that
    are ids may have any palette: the colours of what they mean, others', grey.
    """
    if file.palette is None or not dataset.label_colors:
        return False
    known, used = _known_colors(dataset), file.shown()
    if not known.keys() >= set(used.values()):
        return False

    def contradicted(meanings: dict[int, str]) -> bool:
        shown = {index: dataset.label_ids.get(known[color]) for index, color in used.items()}
        return any(name and name not in (meanings.get(i), _LENT_COLORS.get(i)) for i, name in shown.items())

    return contradicted(dataset.label_ids) and ("train_ids" not in dataset.label_encodings or contradicted(TRAIN_IDS))


def _known_colors(dataset: Dataset) -> dict[int, int]:
    return {red << 16 | green << 8 | blue: label_id for (red, green, blue), label_id in dataset.label_colors}


class Detection(NamedTuple):
    """What a set of label files holds.

    Attributes:
      encoding: a key of LABEL_ENCODINGS; None if it is ambiguous.
      rest: values beside trainIds that mean no class.
      note: what decided, if the values alone did not.
      doubt: why it is ambiguous.
    """

    encoding: str | None
    rest: frozenset[int] = frozenset()
    note: str = ""
    doubt: str = "the values of these labels fit several encodings"


def detect(paths: Iterable[Path], dataset: Dataset) -> Detection:
    """The encoding of a set of label files. Unreadable files are ignored.

    The kind of most files decides between colours, 16 bits and one channel. One channel holds the data set's own
    ids or trainIds if nearly all files that fit only one of them fit the same; if none does, their values together
    decide, or their name: Cityscapes' scripts name such files ``*_labelTrainIds.png``. Where in the images the values
    lie confirms or refutes that, since copies with an extra class or renumbered ones hold valid values, too.
    """
    if len(dataset.label_encodings) == 1:
        return Detection(dataset.label_encodings[0])
    kinds: collections.Counter[str] = collections.Counter()
    votes: collections.Counter[str | None] = collections.Counter()
    together: set[int] = set()
    layout, named = Layout(), True
    for path in paths:
        try:
            file = open_label(path)
        except BadFileError:
            continue
        if shows_colors(file, dataset):
            file = file.in_colors()
        kinds[file.kind] += 1
        if file.kind == "channel":
            present = frozenset(file.present())
            votes[matching_encoding(present, dataset)] += 1
            named = named and "labelTrainIds" in path.name
            layout.add(file.values)
            if present <= _VALID_TRAIN_IDS | {*dataset.label_ids, *dataset.ignored_ids}:
                together |= present
    if not kinds:
        return Detection(None)
    (kind, _), *_ = kinds.most_common()
    possible = [encoding for encoding in dataset.label_encodings if _KINDS[encoding] == kind]
    if len(possible) < 2:
        return Detection(possible[0] if possible else None)
    if named and together <= _VALID_TRAIN_IDS | _REST:
        return Detection("train_ids", frozenset(together - _VALID_TRAIN_IDS), "their name")
    own, train = votes["ids"], votes["train_ids"]
    if own or train:
        more, less, winner = (own, train, "ids") if own > train else (train, own, "train_ids")
        winner = winner if more >= _MARGIN * less else None
    else:
        winner = matching_encoding(together, dataset)
    return _confirmed(winner, together, layout, dataset)


def _confirmed(winner: str | None, values: Collection[int], layout: Layout, dataset: Dataset) -> Detection:
    """What the values tell, confirmed or refuted by where they lie."""
    rest = frozenset(values) - _VALID_TRAIN_IDS
    if winner == "ids" and rest and rest <= _REST:
        # Own ids without the usual ones above these, or trainIds with an extra class: where they lie must tell.
        train, told = layout.verdict(TRAIN_IDS)
        own, own_told = layout.verdict(dataset.label_ids)
        listed = " and ".join(map(str, sorted(rest)))
        if (train, own) == ("street", "no street") or (train == "street" and own == "unknown"):
            note = f"as trainIds, {told}; as ids not. {listed}: everything else"
            return Detection("train_ids", rest, note)
        if own == "street" and train != "street":
            return Detection("ids", note=f"as ids, {own_told}")
        doubt = f"these labels may hold ids, or trainIds with {listed} for everything else, or other numbers"
        return Detection(None, doubt=doubt)
    if winner is None:
        return Detection(None)
    meaning: Mapping[int, str] = TRAIN_IDS if winner == "train_ids" else dataset.label_ids
    verdict, told = layout.verdict(meaning)
    if verdict == "no street":
        return Detection(None, doubt=f"read as {winner}, {told}: these labels hold other numbers")
    if winner == "train_ids":
        absent = [f"{v} ({TRAIN_IDS[v]})" for v in sorted(values) if TRAIN_IDS.get(v) in dataset.absent_classes]
        if absent:
            doubt = f"read as trainIds, they hold {', '.join(absent)}, which {dataset.name} lacks: other numbers?"
            return Detection(None, doubt=doubt)
        if verdict != "street" and not _LAST_TRAIN_IDS & set(values):
            doubt = f"these labels may hold trainIds, or {max(set(values) - {255}) + 1} classes that are numbered anew"
            return Detection(None, doubt=doubt)
    return Detection(winner)


class LabelReader:
    """Reads label files of one encoding into the data set's own ids; safe to use from several threads.

    With encoding None (unknown) it finds what is wrong with a file under every encoding it may be in, and the ids
    it returns mean nothing. An encoding that the user gave (``given``) is not questioned because of a file's palette
    or edges.

    Attributes:
      palettes: of the files read.
    """

    def __init__(self, dataset: Dataset, encoding: str | None, given: bool = False, rest: frozenset[int] = frozenset()):
        self.dataset, self.encoding, self._given = dataset, encoding, given
        self._rest = _REST if given and encoding == "train_ids" else rest
        self.palettes = Palettes()
        self._colors = _known_colors(dataset)
        self._kinds = {_KINDS[name] for name in ([encoding] if encoding else dataset.label_encodings)}
        if encoding == "rgb":
            self._table = np.full(1 << 24, -1, np.int16)
            for color, label_id in self._colors.items():
                self._table[color] = label_id
            return
        # Value → own id, -1 for a value outside the table.
        self._table = np.full(1 << 16, -1, np.int16)
        if encoding in ("train_ids", None):
            ids = {name: label_id for label_id, name in reversed(dataset.label_ids.items())}
            ignored = dataset.ignored_ids[0] if dataset.ignored_ids else -1
            self._table[[255, *self._rest]] = ignored
            for train_id, name in TRAIN_IDS.items():
                self._table[train_id] = ids.get(name, ignored)
        if encoding != "train_ids":
            own = [*dataset.label_ids, *dataset.ignored_ids]
            self._table[own] = own

    def read(self, path: Path) -> tuple[np.ndarray, str]:
        """A label file's ids, as they are stored: ``open`` and ``ids`` in one."""
        return self.ids(self.open(path), path)

    def open(self, path: Path) -> LabelFile:
        """Reads a label file, whose palette may be what counts. Raises BadFileError."""
        file = open_label(path)
        if self.encoding == "rgb" or (not self._given and self._by_colors(file) == "rgb"):
            return file.in_colors()
        return file

    def _by_colors(self, file: LabelFile) -> str | None:
        """``rgb`` if a palette file is a colour label, ``ids`` if its colours tell the data set's ids."""
        if not shows_colors(file, self.dataset):
            return None
        return "rgb" if "rgb" in self.dataset.label_encodings else "ids"

    def ids(self, file: LabelFile, path: Path) -> tuple[np.ndarray, str]:
        """The ids of a label file.

        Returns:
          uint8 [height, width], every value an id of the data set's table; and what the file holds: a key of
          LABEL_ENCODINGS, or ``palette`` for own ids as a palette's indices.

        Raises:
          BadFileError: it is of another encoding, has values outside the table, or looks blended.
        """
        if file.kind not in self._kinds:
            expected = self.encoding or ", or ".join(dict.fromkeys(self.dataset.label_encodings))
            meaning = f" ({LABEL_ENCODINGS[self.encoding]})" if self.encoding else ""
            raise BadFileError(f"the label is a {file.form}; expected {expected}{meaning}")
        if self.encoding is None and file.kind == "rgb":
            return np.zeros(file.values.shape, np.uint8), "rgb"
        if not self._given and self._by_colors(file) == "ids":
            self.palettes.by_colors.add(path)
            table = np.zeros(256, np.uint8)
            table[[*file.shown()]] = [self._colors[color] for color in file.shown().values()]
            return table[file.values], "rgb"
        ids = self.to_ids(_whole_bits(file, self._table))
        if self.encoding in ("ids", "train_ids") and len(self.dataset.label_encodings) > 1:
            other = matching_encoding(set(file.present()) - self._rest, self.dataset)
            if other not in (None, self.encoding) and not self._given:
                raise BadFileError(f"the label holds {other} where the other files hold {self.encoding}")
        if not self._given and file.kind == "channel" and looks_blended(file.values):
            raise BadFileError(
                "classes are blended where they meet, as resizing and JPEG leave them; use the original labels"
            )
        if file.palette is not None:
            self.palettes.add(path, file.shown())
            if any(self.dataset.label_ids.get(i) == self._class_of(color) for i, color in file.shown().items()):
                self.palettes.agreeing.add(path)
        return ids, "palette" if self.encoding == "ids" and file.palette is not None else self.encoding or file.kind

    def _class_of(self, color: int) -> str | None:
        return self.dataset.label_ids.get(self._colors.get(color, -1), "")

    def to_ids(self, values: np.ndarray) -> np.ndarray:
        """Values as files hold them → uint8 ids. Raises BadFileError for those outside the table."""
        if values.dtype.kind == "i" and values.size and not 0 <= values.min() <= values.max() < len(self._table):
            inside = (values >= 0) & (values < len(self._table))
            ids = np.where(inside, self._table[np.where(inside, values, 0)], -1)
        else:
            ids = self._table[values]
        if ids.size and ids.min() < 0:
            raise BadFileError(self._outside(np.unique(values[ids < 0]).tolist()))
        return ids.astype(np.uint8)

    def _outside(self, values: list[int]) -> str:
        if self.encoding == "rgb":
            shown = [str((value >> 16, value >> 8 & 255, value & 255)) for value in values[:4]]
            known = "its colours; labels must not be blended, as resizing or JPEG does"
            what = "colours"
        else:
            shown = [str(value) for value in values[:8]]
            known = _ranges(np.flatnonzero(self._table >= 0).tolist())
            what = "trainIds" if self.encoding == "train_ids" else "label ids"
        listed = ", ".join(shown) + (", ..." if len(values) > len(shown) else "")
        return f"{what} {listed} are outside the table of {self.dataset.name}; expected {known}"


def _whole_bits(file: LabelFile, table: np.ndarray) -> np.ndarray:
    """The values; of 1-bit files, 1 is 255 (white) if only that is in the table."""
    if file.form.endswith(" of mode 1") and table[1] < 0 <= table[255]:
        return file.values * np.uint8(255)
    return file.values


def _ranges(values: list[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
