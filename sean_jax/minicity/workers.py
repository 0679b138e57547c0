"""Several processes that draw one data set.

Drawing is Python more than NumPy, so threads would wait for one another. The processes are spawned: a fork is not safe
once the caller runs JAX or TensorFlow.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

SHARE = 40  # pictures; a worker starts in the time of about ten


def worth_starting(pictures: int) -> int:
    """How many workers to start for this many pictures; 1 means none."""
    cores = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    return max(1, min(cores or 1, pictures // SHARE))


def run(task: Callable[[Any], None], arguments: Sequence[Any], count: int) -> Iterator[None]:
    """Calls a function with each of `arguments` in `count` processes, yielding after each call in turn.

    Raises:
        RuntimeError: a worker was killed; the others are stopped.
        Exception: whatever a call raises; likewise.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin) as pool:
        with _bare_main():  # the workers start while the calls are submitted
            calls = pool.map(task, arguments, chunksize=4)
        try:
            yield from calls
        except BrokenProcessPool:
            raise RuntimeError("a process that draws minicity was killed, perhaps for want of memory") from None


def _begin() -> None:
    """Leaves Ctrl-C to the parent, and ends this process with it, however the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _bare_main() -> Iterator[None]:
    """Hides the main module, which spawned workers would import, and with it JAX: that takes longer than they draw.

    It also lets scripts without an `if __name__ == "__main__"` guard draw.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
