"""Intersection over union from a confusion matrix of a whole split. NumPy only."""

from typing import Any

import numpy as np


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union by class in [0, 1], float64 ``[classes]``.

    NaN for a class that occurs neither in the labels nor in the predictions.
    """
    confusion = np.asarray(confusion, np.float64)
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(intersection, union, out=np.full_like(union, np.nan), where=union > 0)


def summarize(confusion: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Mean and per-class IoU in percent. The mean is over the classes that occur; ``absent`` lists the others."""
    iou = 100 * class_iou(confusion)
    present = ~np.isnan(iou)
    return {
        "mean_iou": float(iou[present].mean()) if present.any() else 0.0,
        "iou": {name: float(value) if ok else None for name, value, ok in zip(classes, iou, present, strict=True)},
        "absent": [name for name, ok in zip(classes, present, strict=True) if not ok],
    }


def format_table(scores: dict[str, Any]) -> str:
    """A table of IoU by class for the terminal, from an entry of ``evaluation.json`` or ``scores.json``."""
    width = max(map(len, scores["iou"]), default=5) + 2
    lines = [
        f"  {name:<{width}}{'absent' if value is None else format(value, '6.1f'):>6}"
        for name, value in scores["iou"].items()
    ]
    return "\n".join([*lines, f"  {'mean IoU':<{width}}{scores['mean_iou']:6.1f}"])
