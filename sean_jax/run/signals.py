"""Handles SIGTERM and Ctrl-C during training: all hosts finish the same step and save it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


def should_stop(received: list[int], step: int) -> bool:
    """Returns whether to stop after this step; on several hosts, all of them get the same answer for a step."""
    if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
        received.append(signal.SIGTERM)
    return bool(received)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT (Ctrl-C) in a list, so that the loop can finish its step and save.

    A second Ctrl-C ends the process at once. The first does not raise KeyboardInterrupt, because JAX sometimes loses
    exceptions that are raised inside its callbacks.

    On several hosts, JAX's preemption service waits for SIGTERM and tells the other hosts after which step to stop; see
    :func:`should_stop`. Ctrl-C is passed on to it.
    """
    received: list[int] = []
    several = jax.process_count() > 1

    def note(number: int, _: Any) -> None:
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handled = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, note) for number in handled}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
