"""Lets the hosts of a run do something one after the other."""

import contextlib
import itertools
from collections.abc import Iterator

import jax
from orbax.checkpoint import multihost

_LONGEST_WAIT = 7 * 24 * 3600  # seconds; preparing a large data set takes hours
_numbers = itertools.count()  # a barrier's name may be used once


def wait_for_all(what: str) -> None:
    """Returns when all hosts have called it, which they must do in the same order."""
    if jax.process_count() > 1:
        hosts = set(range(jax.process_count()))
        multihost.sync_global_processes(f"{what} {next(_numbers)}", timeout=_LONGEST_WAIT, processes=hosts)


@contextlib.contextmanager
def leader_first(what: str) -> Iterator[None]:
    """Host 0 runs the block first; then the others do, and find what it has stored."""
    if jax.process_index() > 0:
        wait_for_all(what)
    yield
    if jax.process_index() == 0:
        wait_for_all(what)
