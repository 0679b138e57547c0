"""Several processes that draw one data set: the same files, and what happens when one of them fails."""

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


def test_workers_draw_what_one_process_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    for name, count in (("one", 1), ("two", 2)):
        monkeypatch.setattr(workers, "worth_starting", lambda _, count=count: count)
        minicity.generate(GAME, tmp_path / name, height=16, width=16, splits={"train": 9}, palette=COLORS)
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in ("one", "two")
    )
    assert one == two
    assert len(one) == 19
    assert sys.modules["__main__"] is main


def _python(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **kwargs)


def test_workers_do_not_import_the_main_program(tmp_path: Path) -> None:
    """It may import JAX, and a script without a guard would draw again in each worker."""
    (tmp_path / "program.py").write_text(f"""
import os
from pathlib import Path
from sean_jax import minicity
from sean_jax.minicity import workers
print("imported", flush=True)
workers.worth_starting = lambda _: 2
root = Path({str(tmp_path)!r}, str(os.getpid()))
minicity.generate("minicity_game", root, height=16, width=16, splits={{"train": 9}})
""")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    for arguments in (("-m", "program"), (str(tmp_path / "program.py"),)):
        result = _python(*arguments, env={**os.environ, "PYTHONPATH": path})
        assert (result.stdout, result.stderr, result.returncode) == ("imported\n", "", 0)
    assert len(list(tmp_path.glob("*/train"))) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_full_disk_is_one_error_of_the_system(tmp_path: Path, count: int) -> None:
    """RLIMIT_FSIZE stands for the disk, which cli makes one line of; the workers have it from their parent."""
    script = f"""
import resource
from pathlib import Path
from sean_jax.minicity import generate, workers
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
workers.worth_starting = lambda _: {count}
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
def test_a_failing_worker_is_reported(task: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(workers.run(task, range(20), 2))
    assert multiprocessing.active_children() == []


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """A parent that is killed cannot stop them."""
    script = f"""
import multiprocessing, os, signal
from pathlib import Path
from sean_jax.minicity import generate, workers
workers.worth_starting = lambda _: 2
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
