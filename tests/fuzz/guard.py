"""Runs a reader on one input and judges what it did.

Whatever a file holds, a reader may return or raise a UserError. It may not run code, start a process, open a
connection, write outside its output folder, take memory out of proportion to the file, or need long.
"""

import contextlib
import gc
import os
import pathlib
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sean_jax.cli.command import one_line
from sean_jax.errors import UserError

SECONDS = 5.0  # of CPU time
_LONGEST_MESSAGE = 5000

# What no reader has a reason to do; see https://docs.python.org/3/library/audit_events.html.
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn", "subprocess.", "socket.")
_FORBIDDEN += ("ctypes.", "urllib.", "ftplib.", "http.", "webbrowser.", "sqlite3.", "code.")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
_CHANGES += ("os.chown", "os.utime", "shutil.")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Outcome(NamedTuple):
    """What became of an input.

    Attributes:
      verdict: ``read``, ``refused``, or the kind of fault.
      detail: the message, or what the fault was.
      seconds: CPU time.
      memory: bytes by which the peak of the resident memory rose.
    """

    verdict: str
    detail: str
    seconds: float
    memory: int

    @property
    def is_fault(self) -> bool:
        return self.verdict not in ("read", "refused")


class Bound(NamedTuple):
    """The memory that a reader may take: ``base`` bytes, and ``factor`` bytes for each byte of the file."""

    base: int
    factor: int

    def of(self, size: int) -> int:
        return self.base + self.factor * size


_events: list[str] | None = None  # of the reader that runs; None between readers
_output = ""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and not _inside(path):
            _events.append(f"writes {path!r}")
    elif event == "exec":
        if not os.path.isfile(arguments[0].co_filename):  # not a module of the standard library, imported late
            _events.append(f"executes {arguments[0]!r}")
    elif event.startswith(_FORBIDDEN) or (event.startswith(_CHANGES) and not _inside(arguments[0])):
        _events.append(f"{event}{arguments!r:.200}")


def _inside(path: Any) -> bool:
    if isinstance(path, int):  # a descriptor; opening it was judged before
        return True
    real = os.path.realpath(os.fsdecode(path))
    return real == "/dev/null" or real.startswith(_output + os.sep) or real == _output


def install() -> None:
    """Watches what Python does from now on; an audit hook cannot be removed, but sees nothing between readers."""
    sys.addaudithook(_hook)


def attempt(read: Callable[[pathlib.Path, pathlib.Path], Any], file: pathlib.Path, output: pathlib.Path, bound: Bound):
    """Calls ``read(file, output)`` and judges it.

    Args:
      read: the reader; it may write below ``output`` only.
      file: the input.
      output: an existing folder.
      bound: on the memory.
    """
    global _events, _output
    size = file.stat().st_size if file.is_file() else sum(p.stat().st_size for p in file.rglob("*") if p.is_file())
    limit, error = bound.of(size), None
    gc.collect()
    before = _reset_peak()
    started = time.process_time()
    with warnings.catch_warnings(), _address_space(limit):
        warnings.simplefilter("ignore")  # as in commands
        _output, _events = os.path.realpath(output), []
        try:
            read(file, output)
        except BaseException as raised:
            error = raised
        events, _events = _events, None
    seconds, memory = time.process_time() - started, max(0, _peak() - before)
    verdict, detail = _judge(error)
    if events:
        verdict, detail = "forbidden", "; ".join(events)
    elif memory > limit:
        verdict, detail = "memory", f"{memory >> 20} MiB for {size} bytes"
    elif seconds > SECONDS:
        verdict, detail = "slow", f"{seconds:.1f} s for {size} bytes"
    return Outcome(verdict, detail, seconds, memory)


def _judge(error: BaseException | None) -> tuple[str, str]:
    chain, shown = [], error
    while shown is not None and shown not in chain:
        chain.append(shown)
        shown = shown.__cause__ or shown.__context__
    if any(isinstance(e, MemoryError) for e in chain):
        return "memory", f"asks for more than the bound ({error!r:.200})"
    if error is None:
        return "read", ""
    if not isinstance(error, UserError):
        frame, end = error.__traceback__, None
        while frame is not None:
            end, frame = frame, frame.tb_next
        where = f"{end.tb_frame.f_code.co_filename}:{end.tb_lineno}" if end else "?"
        return "traceback", f"{type(error).__name__}: {str(error)[:150]} at {where}"
    line = one_line(str(error))
    if not line.isprintable() or len(line) > _LONGEST_MESSAGE:
        return "message", f"{line[:150]!r} ({len(line)} characters)"
    return "refused", line


@contextlib.contextmanager
def _address_space(limit: int) -> Iterator[None]:
    """Lets the process reserve ``limit`` bytes more than now, whether it uses them or not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _status(name: str) -> int:
    """Bytes of a line of ``/proc/self/status``."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise KeyError(name)


def _reset_peak() -> int:
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")
