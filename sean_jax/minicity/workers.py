"""Draws a data set in several processes.

Drawing is mostly Python code, which threads cannot run in parallel. The processes are spawned, because a fork is not
safe once the caller runs JAX or TensorFlow.
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

SHARE = 40  # smallest number of pictures per worker; a worker starts in the time that about ten of them take


def worker_count(pictures: int) -> int:
    """Returns the number of processes that should draw this many pictures; 1 means the calling one."""
    cores = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    return max(1, min(cores or 1, pictures // SHARE))


def run(task: Callable[[Any], None], arguments: Sequence[Any], count: int) -> Iterator[None]:
    """Calls a function with each of `arguments` in `count` processes; yields after each call, in order.

    An error stops all workers.

    Raises:
        RuntimeError: a worker was killed.
        Exception: any exception that a call raises.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_initialise_worker) as pool:
        with _hidden_main():  # the workers start while the calls are submitted
            calls = pool.map(task, arguments, chunksize=4)
        try:
            yield from calls
        except BrokenProcessPool:
            raise RuntimeError("a process that draws minicity was killed, perhaps because memory ran out") from None


def _initialise_worker() -> None:
    """Leaves Ctrl-C to the parent, and makes this process exit when the parent ends, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Hides the main module from spawned workers, which would import it.

    The main module may import JAX, which takes longer than the drawing. Scripts without an
    `if __name__ == "__main__"` guard would start again in each worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
