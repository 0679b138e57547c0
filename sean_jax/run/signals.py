"""Handles SIGTERM and Ctrl-C during training: all hosts finish the same step and save it."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def should_stop(received: list[int], may_ask: bool) -> bool:
    """Returns whether to stop after this step.

    Several hosts must stop at the same step. They exchange the signals they received at steps with ``may_ask``, which
    must be the same on all hosts.
    """
    if jax.process_count() == 1:
        return bool(received)
    if not may_ask:
        return False
    signals = multihost_utils.process_allgather(np.int32(max(received, default=0)))
    received[:] = [int(signals.max())] if signals.any() else []
    return bool(received)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT (Ctrl-C) in a list, so that the loop can finish its step and save.

    A second Ctrl-C ends the process at once. The first does not raise KeyboardInterrupt, because JAX sometimes loses
    exceptions that are raised inside its callbacks.
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
