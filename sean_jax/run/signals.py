"""SIGTERM and Ctrl-C while training: the step is finished and saved, on all hosts together."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def agreed(received: list[int], may_ask: bool) -> bool:
    """Whether to stop after this step. Several hosts must stop together: they ask each other where they ``may_ask``."""
    if jax.process_count() == 1:
        return bool(received)
    if not may_ask:
        return False
    signals = multihost_utils.process_allgather(np.int32(max(received, default=0)))
    received[:] = [int(signals.max())] if signals.any() else []
    return bool(received)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT (Ctrl-C): the loop finishes its step, saves and ends.

    A second Ctrl-C ends the process at once. The first must not: a KeyboardInterrupt raised inside a callback of
    JAX's is sometimes lost.
    """
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
