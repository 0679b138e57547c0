"""Stored scores (``evaluation.json``, ``scores.json``): reading, applying another protocol, tables. NumPy only."""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from sean_jax.errors import UserError
from sean_jax.scoring.protocols import score
from sean_jax.untrusted import CONTROL, parse_json

# Two scores are comparable if these are equal. The method, the seed and the step may differ.
COMPARABLE = ("protocol", "dataset", "split", "images", "input_size", "resolution", "interpolation", "selection")

# What every entry says beside its confusion matrix.
STAMP = ("network", "checkpoint", "step", "seed", *COMPARABLE, "classes", "iou", "mean_iou")
# Of these, those that are texts, and those that are numbers where they are known.
_TEXTS = ("network", "checkpoint", *(key for key in COMPARABLE if key != "images"))
_NUMBERS = ("step", "seed", "images")


def read_scores(path: str | os.PathLike[str], label: str | None = None) -> dict[str, dict[str, Any]]:
    """Scores by network; the first network is the one that counts.

    Args:
      path: a run's ``evaluation.json``, or the scores of a single network as ``evaluate --out`` writes them.
      label: what errors call the file; default: its path.

    Raises:
      UserError: there is no such file, or it is damaged.
    """
    label = label or str(path)
    try:
        with open(path, "rb") as file:
            content = parse_json(file.read())
        scores = {content["network"]: content} if "confusion_matrix" in content else content
        if not scores:
            raise ValueError("no network")
        for name, entry in scores.items():
            _check(name, entry)
        return scores
    except OSError as error:
        raise UserError(f"cannot read {label}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{label} holds no scores ({error!r}); expected a run's evaluation.json or a file of evaluate --out"
        ) from None


def rescore(path: str | os.PathLike[str], protocol: str) -> dict[str, Any]:
    """The stored scores of a file's first network under another protocol, computed from its confusion matrix.

    Everything else that the file says about the scores stays.

    Raises:
      UserError: the file is missing or damaged, or its matrix is not sufficient for the protocol.
    """
    stored = next(iter(read_scores(path, f"--from={path}").values()))
    confusion = np.array(stored["confusion_matrix"], np.int64)
    return stored | score(confusion, tuple(map(str, stored["classes"])), protocol)


def score_table(scores: Mapping[str, Mapping[str, Any]], *, mixed: bool = False) -> str:
    """A Markdown table with one row per score: its mean IoU and its IoU by class, in percent.

    Args:
      scores: row name → an entry of ``scores.json`` or ``evaluation.json``.
      mixed: allow scores that are not comparable; further columns then show in what they differ.

    Raises:
      UserError: there are no scores; or they are not comparable, and ``mixed`` is not set.
    """
    if not scores:
        raise UserError("there are no scores to tabulate")
    first_name, first = next(iter(scores.items()))
    for name, entry in scores.items():
        differing = {key: (first.get(key), entry.get(key)) for key in COMPARABLE if entry.get(key) != first.get(key)}
        if "protocol" not in differing and entry["iou"].keys() != first["iou"].keys():  # `all` of other label spaces
            differing["classes"] = (len(first["iou"]), len(entry["iou"]))
        if differing and not mixed:
            shown = "; ".join(f"{key}: {one} and {other}" for key, (one, other) in differing.items())
            raise UserError(f"{first_name} and {name} are not comparable ({shown}); score both alike or give --mixed")
    columns = [key for key in COMPARABLE if len({str(entry.get(key)) for entry in scores.values()}) > 1]
    classes = list(dict.fromkeys(name for entry in scores.values() for name in entry["iou"]))
    lines = [" | ".join(["| score", *columns, "mIoU", *classes]) + " |"]
    lines.append("| --- " * (2 + len(columns) + len(classes)) + "|")
    for name, entry in scores.items():
        cells = [str(entry.get(key)) for key in columns] + [f"{entry['mean_iou']:.1f}"]
        cells += ["–" if entry["iou"].get(c) is None else f"{entry['iou'][c]:.1f}" for c in classes]
        lines.append(" | ".join([f"| {name}", *cells]) + " |")
    shared = ", ".join(f"{key} {first.get(key)}" for key in COMPARABLE if key not in columns)
    return "\n".join([*lines, "", f"All: {shared}."])


def _check(name: str, entry: dict[str, Any]) -> None:
    if missing := [key for key in ("confusion_matrix", *STAMP) if key not in entry]:
        raise ValueError(f"{name}: {', '.join(missing)} missing")
    confusion, classes = np.array(entry["confusion_matrix"]), entry["classes"]
    if not isinstance(classes, list) or confusion.shape != (len(classes),) * 2 or len(set(classes)) != len(classes) > 0:
        raise ValueError(f"{name}: a matrix of {confusion.shape} for {len(classes)} classes")
    if confusion.dtype != np.int64 or confusion.min() < 0 or confusion.sum(dtype=float) >= 2**63:
        raise ValueError(f"{name}: a matrix that does not hold counts")
    texts = [*classes, *entry["iou"], *(entry[key] for key in _TEXTS)]
    if odd := [text for text in texts if not isinstance(text, str) or CONTROL.search(text)]:
        raise ValueError(f"{name}: {odd[0]!r:.100} where a name is expected")
    numbers = [entry["mean_iou"], *entry["iou"].values(), *(entry[key] for key in _NUMBERS)]
    if not all(number is None or is_number(number) for number in numbers) or entry["mean_iou"] is None:
        raise ValueError(f"{name}: a score that is not a number")


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or (isinstance(value, float) and math.isfinite(value))
