"""Several processes that draw one data set.

Drawing is Python more than NumPy, so threads would wait for one another. The workers are fresh interpreters rather than
`multiprocessing` children: a fork is not safe once the caller runs JAX or TensorFlow, and a spawned child imports the
caller's main program, which costs more than it would draw in that time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

PACKAGE = __name__.rpartition(".")[0]
SHARE = 40  # pictures; a worker starts in the time of about ten
FAILED = "failed"
Tasks = list[tuple[str, int]]


def worth_starting(pictures: int) -> int:
    """How many workers to start for this many pictures; 1 means none."""
    return max(
        1, min(os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count() or 1, pictures // SHARE)
    )


def run(folder: Path, shares: list[Tasks]) -> Iterator[None]:
    """Has each share drawn into `folder` (which holds its manifest) by a process, yielding after each picture.

    Raises:
        OSError: if the system lets a worker draw no further (a full disk); the others are stopped.
        RuntimeError: if a worker fails otherwise; likewise.
    """
    finished: SimpleQueue[str] = SimpleQueue()
    processes = [_start(folder, share) for share in shares]
    try:
        for process in processes:
            Thread(target=_listen, args=(process, finished), daemon=True).start()
        for _ in range(sum(map(len, shares))):
            if (line := finished.get()) == FAILED:
                raise RuntimeError(f"a process that draws minicity failed in {folder}; its error is printed above")
            if line:
                raise OSError(int(line), os.strerror(int(line)), str(folder.parent))
            yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(folder: Path, share: Tasks) -> subprocess.Popen[str]:
    package_root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(package_root), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", PACKAGE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        json.dump(share, pipe)
    return process


def _listen(process: subprocess.Popen[str], finished: "SimpleQueue[str]") -> None:
    """Passes on the worker's lines (see `__main__`), then FAILED if it failed."""
    assert process.stdout is not None
    for line in process.stdout:
        finished.put(line.strip())
    if process.wait() != 0:
        finished.put(FAILED)
