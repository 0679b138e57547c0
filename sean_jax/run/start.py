"""What a run's network predicted before its first step, if it started from a network that segments already."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np

from sean_jax import atomic, npz, weights
from sean_jax.run.plan import Plan

_FILE = "start.npz"


def segments(plan: Plan) -> bool:
    """Whether the run begins now, and from weights of a complete network, whose scores are those without adaptation."""
    return plan.initial_weights is not None and weights.is_complete(plan.initial_weights)


def write(workdir: pathlib.Path, predictions: Sequence[np.ndarray]) -> None:
    """Keeps the classes ``[H, W]`` of the examples in the run's pictures, for the pictures of later steps."""
    file = io.BytesIO()
    np.savez(file, *predictions)
    atomic.write(workdir / _FILE, file.getvalue())


def read(workdir: pathlib.Path) -> list[np.ndarray]:
    """What :func:`write` kept; empty if it was not called."""
    path = workdir / _FILE
    return list(npz.read(path).values()) if path.exists() else []
