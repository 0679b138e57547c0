"""Tests that several processes draw the same files as one, and that their failures are handled."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sean_jax import minicity
from sean_jax.minicity import workers

GAME = "minicity_game"
COLORS = {7: (128, 64, 128), 26: (0, 0, 142)}


def test_workers_draw_the_same_files_as_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    for name, count in (("one", 1), ("two", 2)):
        monkeypatch.setattr(workers, "worker_count", lambda _, count=count: count)
        minicity.generate(GAME, tmp_path / name, height=16, width=16, splits={"train": 9}, palette=COLORS)
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in ("one", "two")
    )
    assert one == two
    assert len(one) == 19
    assert sys.modules["__main__"] is main


def _python(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **kwargs)


def test_workers_do_not_import_the_main_module(tmp_path: Path) -> None:
    """The main module may import JAX, and a script without a guard would draw again in each worker."""
    (tmp_path / "program.py").write_text(f"""
import os
from pathlib import Path
from sean_jax import minicity
from sean_jax.minicity import workers
print("imported", flush=True)
workers.worker_count = lambda _: 2
root = Path({str(tmp_path)!r}, str(os.getpid()))
minicity.generate("minicity_game", root, height=16, width=16, splits={{"train": 9}})
""")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    for arguments in (("-m", "program"), (str(tmp_path / "program.py"),)):
        result = _python(*arguments, env={**os.environ, "PYTHONPATH": path})
        assert (result.stdout, result.stderr, result.returncode) == ("imported\n", "", 0)
    assert len(list(tmp_path.glob("*/train"))) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_full_disk_raises_one_os_error(tmp_path: Path, count: int) -> None:
    """RLIMIT_FSIZE simulates the full disk; workers inherit it from their parent."""
    script = f"""
import resource
from pathlib import Path
from sean_jax.minicity import generate, workers
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
workers.worker_count = lambda _: {count}
try:
    generate("minicity_game", Path({str(tmp_path / "sets" / "game")!r}), height=64, width=128, splits={{"train": 4}})
except OSError as error:
    print(error.errno, error.strerror, error.filename)
"""
    result = _python("-c", script)
    assert result.stderr == ""
    assert result.stdout == f"{errno.EFBIG} File too large {tmp_path / 'sets'}\n"
    assert list((tmp_path / "sets").iterdir()) == []


def _killed(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _broken(_: int) -> None:
    raise TypeError("a bug")


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [(_killed, RuntimeError, "a process that draws minicity was killed"), (_broken, TypeError, "a bug")],
)
def test_a_failed_worker_is_reported(task: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(workers.run(task, range(20), 2))
    assert multiprocessing.active_children() == []


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """A killed parent cannot stop its workers, so they must notice its end."""
    script = f"""
import multiprocessing, os, signal
from pathlib import Path
from sean_jax.minicity import generate, workers
workers.worker_count = lambda _: 2
original = workers.run
def run(*args):
    for number, _ in enumerate(original(*args)):
        if number == 8:
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        yield
workers.run = run
generate("minicity_game", Path({str(tmp_path / "game")!r}), height=16, width=16, splits={{"train": 2000}})
"""
    result = _python("-c", script, timeout=60)  # it returns when the workers have closed their output
    assert len(result.stdout.split()) == 2
    assert not (tmp_path / "game").exists()
