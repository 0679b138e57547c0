"""Runs commands as users do, each in its own process.

The processes share a cache of compiled programs. They are forked from a server that has imported the libraries, which
takes seconds, but has not run JAX. ``fresh=True`` starts a new Python process, for tests that depend on imports.
"""

import multiprocessing
import os
import pathlib
import re
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
_LIBRARIES = ["sean_jax.run.stages", "sean_jax.run.score", "sean_jax.reporting.page"]
_BAR = re.compile(r"\d+%\||\d+it \[|^preparing ")  # progress bars, and the line that announces a preparation

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LIBRARIES)


class Result(NamedTuple):
    code: int  # exit code; the negative number of the signal that ended the process
    stdout: str
    stderr: str

    def said(self) -> list[str]:
        """The lines on standard error, without progress bars."""
        lines = (line.strip() for line in re.split(r"[\r\n]", self.stderr))
        return [line for line in lines if line and not _BAR.search(line)]


class Command:
    """A running command: ``Command(folder, "train", seed=1)`` starts ``python -m sean_jax.train --seed=1``.

    A name that ends in ``.py`` is a script, its path relative to ``experiments/``.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        *words: str,
        devices: int = 1,
        file_limit: int | None = None,
        fresh: bool = False,
        optimized: bool = False,
        variables: Mapping[str, object] = {},
        **flags: object,
    ):
        """Starts the command.

        Args:
          folder: receives standard output and standard error.
          name: a command of ``sean_jax`` or a script in ``experiments/``.
          *words: arguments.
          devices: number of CPU devices.
          file_limit: largest size of a file in bytes, which simulates a full disk.
          fresh: whether to start a new Python process.
          optimized: whether to compile with all of XLA's optimisations, as users do.
          variables: of the environment, by name.
          **flags: flags by name.
        """
        folder.mkdir(parents=True, exist_ok=True)
        own = pathlib.Path(tempfile.mkdtemp(prefix=f"{pathlib.Path(name).stem}.", dir=folder))
        self._files = [own / "out", own / "err"]
        arguments = [f"--{key}={value}" for key, value in flags.items()] + list(words)
        xla_flags = "" if optimized else os.environ["SEAN_JAX_TEST_XLA_FLAGS"]
        environment = {"XLA_FLAGS": f"{xla_flags} --xla_force_host_platform_device_count={devices}"}
        script = name.endswith(".py")
        module = str(ROOT / "experiments" / name) if script else f"sean_jax.{name}"
        environment |= {name: str(value) for name, value in variables.items()}
        settings = {"jax_disable_most_optimizations": not optimized}
        if fresh:
            environment = os.environ | environment | {key.upper(): str(value) for key, value in settings.items()}
            with self._files[0].open("w") as out, self._files[1].open("w") as err:
                line = [sys.executable, *([] if script else ["-m"]), module, *arguments]
                self._process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=out, stderr=err)
        else:
            files = [str(file) for file in self._files]
            target = (module, arguments, files, environment, settings, file_limit)
            self._process = _context.Process(target=_run, args=target)
            self._process.start()

    def running(self) -> bool:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll() is None
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        assert self._process.pid
        os.kill(self._process.pid, number)

    def result(self, timeout: float = 600) -> Result:
        if isinstance(self._process, subprocess.Popen):
            code = self._process.wait(timeout)
        else:
            self._process.join(timeout)
            code = self._process.exitcode
            if code is None:
                self._process.kill()
                raise TimeoutError(self._files[1].read_text())
        return Result(code, *(file.read_text() for file in self._files))


def run(folder: pathlib.Path, name: str, *words: str, **options) -> Result:
    return Command(folder, name, *words, **options).result()


def assert_refused(result: Result, name: str, *parts: str, code: int = 1) -> None:
    """Asserts that the command ended with ``code`` and one line that starts with its name and contains ``parts``."""
    said = result.said()
    assert len(said) == 1, result.stderr
    assert said[0].startswith(f"sean_jax.{name}: ")
    assert result.stderr.endswith(said[0] + "\n")
    for part in parts:
        assert part in said[0], said[0]
    assert result.code == code


def _run(module: str, arguments: list[str], files: list[str], environment: dict, settings: dict, limit: int | None):
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(environment)
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes of a shell ignore it
    import jax
    import shallow

    from sean_jax.models import NETWORKS

    NETWORKS["shallow"] = shallow.Shallow
    for name, value in settings.items():
        jax.config.update(name, value)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = [module, *arguments]
    if module.endswith(".py"):
        sys.path.insert(0, os.path.dirname(module))  # as Python does for a script
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
