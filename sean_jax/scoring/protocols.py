"""Evaluation protocols: which classes a mean IoU is over. A score without its protocol means nothing.

A protocol is applied to a confusion matrix, which is stored with every score: any protocol that the matrix holds
enough for can be applied again later (:func:`rescore`).
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sean_jax.data.catalogue import load_label_space
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.scoring.metrics import summarize

_CCA_MERGES = {
    "wall": "building", "fence": "building", "pole": "building",
    "terrain": "vegetation", "truck": "bus", "train": "bus",
}  # fmt: skip


class Protocol(NamedTuple):
    """How a confusion matrix becomes a score.

    Attributes:
      space: built-in label space that the network must have been trained on; None for any.
      over: built-in label space whose classes the mean is over; None for all.
      merges: class → class it is counted as, in truth and prediction.
    """

    space: str | None
    over: str | None
    merges: dict[str, str]
    meaning: str


PROTOCOLS = {
    "all": Protocol(None, None, {}, "mean over the classes the network was trained on"),
    "19": Protocol("19", "19", {}, "19-way network, mean over 19"),
    "16": Protocol("16", "16", {}, "16-way network, other ground truth ignored"),
    "13": Protocol("13", "13", {}, "13-way network, other ground truth ignored"),
    "16-of-19": Protocol("19", "16", {}, "19-way network and matrix, mean over 16; not comparable with 16"),
    "13-of-16": Protocol("16", "13", {}, "16-way network and matrix, mean over 13; mIoU* in the field"),
    "cca-13": Protocol("19", None, _CCA_MERGES, "19-way network, merged to 13 classes in truth and prediction"),
}


# What two scores must share to stand in one table. What they are scores of (method, seed, step) may differ.
COMPARABLE = ("protocol", "dataset", "split", "images", "input_size", "resolution", "interpolation", "selection")


def score(confusion: np.ndarray, classes: tuple[str, ...], protocol: str) -> dict[str, Any]:
    """The scores of a confusion matrix over ``classes`` under a protocol, with the protocol's name.

    Raises:
      UserError: unknown protocol, or one that needs a network of another label space.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol={protocol} is unknown; expected one of {', '.join(PROTOCOLS)}")
    space, over, merges, meaning = PROTOCOLS[protocol]
    if space is not None and classes != load_label_space(space).classes:
        possible = [
            f"--protocol={name}" for name, other in PROTOCOLS.items() if other.space in (None, _space_of(classes))
        ]
        raise UserError(
            f"--protocol={protocol} ({meaning}) cannot be computed: this network has {len(classes)} classes "
            f"({', '.join(classes)}); use {' or '.join(possible)}"
        )
    if merges:
        confusion, classes = _merge(confusion, classes, merges)
    scores = summarize(confusion, classes)
    if over is not None:
        kept = load_label_space(over).classes
        iou = {name: scores["iou"][name] for name in kept}
        present = [value for value in iou.values() if value is not None]
        scores = {
            "mean_iou": float(np.mean(present)) if present else 0.0,
            "iou": iou,
            "absent": [name for name in kept if iou[name] is None],
        }
    return {"protocol": protocol, "protocol_meaning": meaning} | scores


def _space_of(classes: tuple[str, ...]) -> str | None:
    return next((name for name, space in LABEL_SPACES.items() if space.classes == classes), None)


def rescore(path: str | os.PathLike[str], protocol: str) -> dict[str, Any]:
    """The scores of a file that ``evaluate --out`` or a run wrote, under another protocol, by its confusion matrix.

    Everything else that the file says of the scores stays.

    Raises:
      UserError: no such file or none of scores, or a protocol that its matrix cannot give.
    """
    try:
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
        stored = stored.get("teacher", stored)  # a run's evaluation.json holds both networks'; the teacher counts
        classes = tuple(str(name) for name in stored["classes"])
        confusion = np.array(stored["confusion_matrix"], np.int64)
        if confusion.shape != (len(classes), len(classes)) or not classes or confusion.min() < 0:
            raise ValueError(f"a matrix of {confusion.shape} for {len(classes)} classes")
        if unsaid := [key for key in ("network", "checkpoint", "step", "seed", *COMPARABLE) if key not in stored]:
            raise ValueError(f"nothing is said of {', '.join(unsaid)}")
    except OSError as error:
        raise UserError(f"cannot read --from={path}: {error.strerror}; expected a file of evaluate --out") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--from={path} holds no scores ({error!r}); expected a file of evaluate --out") from None
    return stored | score(confusion, classes, protocol)


def score_table(scores: Mapping[str, Mapping[str, Any]], *, mixed: bool = False) -> str:
    """A Markdown table: a row a score, with its mean IoU and IoU by class in percent.

    Args:
      scores: by row name, entries of ``scores.json`` or ``evaluation.json``.
      mixed: whether scores may be of unlike protocols, splits or resolutions; each row then says of which.

    Raises:
      UserError: there are no scores; or they are unlike, and ``mixed`` is not set.
    """
    if not scores:
        raise UserError("no scores to make a table of")
    first_name, first = next(iter(scores.items()))
    for name, entry in scores.items():
        differing = {key: (first.get(key), entry.get(key)) for key in COMPARABLE if entry.get(key) != first.get(key)}
        if "protocol" not in differing and entry["iou"].keys() != first["iou"].keys():  # `all` of other label spaces
            differing["classes"] = (len(first["iou"]), len(entry["iou"]))
        if differing and not mixed:
            shown = "; ".join(f"{key}: {one} and {other}" for key, (one, other) in differing.items())
            raise UserError(f"{first_name} and {name} cannot stand in one table ({shown}); score both alike")
    said = [key for key in COMPARABLE if mixed and len({str(entry.get(key)) for entry in scores.values()}) > 1]
    classes = list(dict.fromkeys(name for entry in scores.values() for name in entry["iou"]))
    lines = [" | ".join(["| score", *said, "mIoU", *classes]) + " |", "| --- " * (2 + len(said) + len(classes)) + "|"]
    for name, entry in scores.items():
        cells = [str(entry.get(key)) for key in said] + [f"{entry['mean_iou']:.1f}"]
        cells += ["–" if entry["iou"].get(c) is None else f"{entry['iou'][c]:.1f}" for c in classes]
        lines.append(" | ".join([f"| {name}", *cells]) + " |")
    alike = ", ".join(f"{key} {first.get(key)}" for key in COMPARABLE if key not in said)
    return "\n".join([*lines, "", f"All: {alike}."])


def _merge(
    confusion: np.ndarray, classes: tuple[str, ...], merges: dict[str, str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    kept = tuple(name for name in classes if name not in merges)
    into = np.array([kept.index(merges.get(name, name)) for name in classes])
    merged = np.zeros((len(kept), len(kept)), confusion.dtype)
    np.add.at(merged, (into[:, None], into[None, :]), confusion)
    return merged, kept
