"""Evaluation protocols: the classes that a mean IoU is over. Scores of different protocols are not comparable.

A protocol is applied to a confusion matrix. The matrix is stored with every score, so that another protocol can be
applied later (:func:`sean_jax.scoring.stored.rescore`).
"""

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
      space: the built-in label space that the network must have been trained on; None for any.
      over: the built-in label space whose classes the mean is over; None for all classes.
      merges: class → the class that it is counted as, in labels and predictions.
      meaning: a description for the user.
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


def _merge(
    confusion: np.ndarray, classes: tuple[str, ...], merges: dict[str, str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    kept = tuple(name for name in classes if name not in merges)
    into = np.array([kept.index(merges.get(name, name)) for name in classes])
    merged = np.zeros((len(kept), len(kept)), confusion.dtype)
    np.add.at(merged, (into[:, None], into[None, :]), confusion)
    return merged, kept
