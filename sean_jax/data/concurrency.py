"""An ordered map on threads, and locks between processes."""

import collections
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(function: Callable[[_In], _Out], items: Iterable[_In], workers: int) -> Iterator[_Out]:
    """``map`` on threads, in order, with at most two items per worker in flight."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque[Future[_Out]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextlib.contextmanager
def lock(file: Path) -> Iterator[None]:
    """Lets one process in at a time; the system releases the lock of a process that is killed. The file stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        # On a file system without locks, two processes at worst do the work twice.
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
