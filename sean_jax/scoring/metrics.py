"""Confusion matrices and intersection over union; a score is one matrix over a whole split."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def confusion_matrix(predictions: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Pixels by true class (rows) and predicted class (columns), int32 ``[num_classes, num_classes]``.

    As a product of one-hot matrices: exact, since each image's counts stay below 2²⁴, and faster than scattering.

    Args:
      predictions: ``[b, H, W]`` class indices.
      labels: ``[b, H, W]`` class indices; pixels that hold anything else (255) are left out.
    """
    batch = labels.shape[0]
    truth = jax.nn.one_hot(labels.reshape(batch, -1), num_classes, dtype=jnp.bfloat16)
    predicted = jax.nn.one_hot(predictions.reshape(batch, -1), num_classes, dtype=jnp.bfloat16)
    counts = jnp.einsum("bnt,bnp->btp", truth, predicted, preferred_element_type=jnp.float32)
    return counts.astype(jnp.int32).sum(0)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union by class in [0, 1], float64 ``[classes]``; NaN for a class neither true nor predicted."""
    confusion = np.asarray(confusion, np.float64)
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(intersection, union, out=np.full_like(union, np.nan), where=union > 0)


def summarize(confusion: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Mean and per-class IoU in percent; absent classes are named and left out of the mean."""
    iou = 100 * class_iou(confusion)
    present = ~np.isnan(iou)
    return {
        "mean_iou": float(iou[present].mean()) if present.any() else 0.0,
        "iou": {name: float(value) if ok else None for name, value, ok in zip(classes, iou, present, strict=True)},
        "absent": [name for name, ok in zip(classes, present, strict=True) if not ok],
    }


def format_table(scores: dict[str, Any]) -> str:
    """A per-class IoU table for people, from an entry of ``evaluation.json`` or ``scores.json``."""
    width = max(map(len, scores["iou"]), default=5) + 2
    lines = [
        f"  {name:<{width}}{'absent' if value is None else format(value, '6.1f'):>6}"
        for name, value in scores["iou"].items()
    ]
    return "\n".join([*lines, f"  {'mean IoU':<{width}}{scores['mean_iou']:6.1f}"])
