"""Runs a command: parses its flags, prints its help, and reports bad input in one line on standard error."""

import contextlib
import errno
import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from sean_jax.cli import help_text, unused_gpu
from sean_jax.errors import UserError

# Errors of the operating system when a file cannot be written: the disk is full, read-only, or over a quota or size
# limit; the path leads through a file or names a folder; the reader of our output has exited.
FULL_ERRNOS = (errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EDQUOT)
WRITE_ERRNOS = (
    *FULL_ERRNOS,
    *(errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EPIPE),
)


LOST_HOST = "another host was lost; run the same command again on all hosts to resume from the last checkpoint"
_LONGEST = 4000  # characters of a message; names and values in it may be a file's


def one_line(message: str) -> str:
    """A message as it is printed: on one line, of bounded length, without characters that command a terminal."""
    line = " ".join(message.split())
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]} …"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _fail(command: str, message: str, code: int) -> NoReturn:
    line = one_line(message)
    if "tqdm" in sys.modules:  # an open progress bar would end up on the same line
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # they may be redirected to the disk that is full
            if stream is sys.stderr:
                print(f"{command}: {line}", file=stream)
            stream.flush()
    # Ends the threads of loaders and checkpoints too, which must not do any more work.
    os._exit(code)


def _report(error: BaseException | None) -> tuple[str, int] | None:
    """The message and the exit code for an error that the user or the machine caused; None for a bug."""
    if _is_lost_host(error):
        return LOST_HOST, 1
    if isinstance(error, UserError):
        return str(error), 1
    if isinstance(error, OSError) and error.errno in WRITE_ERRNOS:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in FULL_ERRNOS:
            return f"cannot write: {error.strerror}{where}; free space there or choose another folder", 1
        return f"cannot read or write: {error.strerror}{where}; choose a path that this user may use", 1
    if _is_out_of_memory(error):
        return f"out of memory; {_less_memory()}", 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, RuntimeError | AssertionError) and (reason := _missing_platform()) is not None:
        asked = os.environ.get("JAX_PLATFORMS", "")
        remedy = "unset it to use what there is, or install what it asks for (pip install 'sean-jax[cuda]' for GPUs)"
        return f"JAX_PLATFORMS={asked}, but JAX cannot use that here ({reason}); {remedy}", 1
    return None


def _is_lost_host(error: BaseException | None) -> bool:
    """Whether the libraries that connect several hosts report that one no longer answers."""
    if "jax" not in sys.modules or not sys.modules["jax"].distributed.is_initialized():
        return False
    signs = ("Gloo", "NCCL", "by peer", "coordination service", "heartbeat")
    while error is not None and not any(sign in str(error) for sign in signs):
        error = error.__cause__
    return error is not None


def _is_out_of_memory(error: BaseException | None) -> bool:
    texts = ("RESOURCE_EXHAUSTED", "OOM when allocating", "can't start new thread", "bad_alloc")
    no_memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return no_memory or (isinstance(error, Exception) and any(text in str(error) for text in texts))


def _less_memory() -> str:
    """What the user may change, of the flags that this command has."""
    values = {name: flags.FLAGS[name].value for name in flags.FLAGS} if flags.FLAGS.is_parsed() else {}
    if values.get("native_size"):
        return "leave out --native_size"
    names = [f"--{name}" for name in ("batch_size", "height", "width") if name in values and values[name] != 1]
    return f"choose a smaller {', '.join(names)}" if names else "use smaller images, or a machine with more memory"


def _missing_platform() -> str | None:
    """Why JAX cannot use the platforms that the user asks for; None if it can, or nothing is asked for."""
    if not os.environ.get("JAX_PLATFORMS") or "jax" not in sys.modules:
        return None
    try:
        sys.modules["jax"].devices()
    except RuntimeError as error:
        return str(error).partition(" (set JAX_PLATFORMS")[0].splitlines()[0]
    except AssertionError:  # JAX's, without a message
        return "no such device was found"
    return None


def quiet() -> None:
    """Silences library logging and warnings. Errors still reach the user, since libraries raise them.

    JAX's messages about the devices that it uses are printed (see :mod:`~sean_jax.cli.unused_gpu`).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA and TensorFlow read it when they are loaded
    logging.set_verbosity(logging.FATAL)
    unused_gpu.print_backend_messages()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    sys.excepthook = _main_thread_only


def _main_thread_only(*error: Any) -> None:
    """Prints tracebacks of the main thread only: C++ libraries (tensorstore) print errors of their own threads."""
    if threading.current_thread() is threading.main_thread():
        sys.__excepthook__(*error)


def print_any_character() -> None:
    """Lets standard output and error print what their encoding lacks: an arrow becomes ``\\u2192``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def expand_home(argv: Sequence[str]) -> list[str]:
    """Expands ~ in ``--flag=~/x``; shells expand it only at the beginning of a word."""
    return [re.sub(r"^(--?\w+=)(~.*)", lambda match: match[1] + os.path.expanduser(match[2]), word) for word in argv]


def run(main: Callable[[], None], command: str, *, computes: bool = False) -> None:
    """Parses ``sys.argv`` with absl and calls ``main``; bad input ends the process with one line and code 1 or 2.

    ``--help`` prints the docstring of ``main``'s module and the flags, grouped by the ``module_name`` that they were
    defined with, in order of definition; ``--helpfull`` is absl's.

    Args:
      main: the command; it reads absl flags and raises :class:`UserError` for bad input.
      command: the name that precedes error messages, e.g. ``sean_jax.train``.
      computes: the command runs JAX programs; warn if they will not use the machine's GPU.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        print_any_character()
        if help_text.wanted(argv):
            print(help_text.make(main.__globals__.get("__doc__") or "", argv[0]))
            sys.exit(0)
        try:
            rest = flags.FLAGS(expand_home(argv))
            if homeless := [word for word in expand_home(argv)[1:] if re.match(r"--?\w+=~(/|$)", word)]:
                _fail(command, f"{homeless[0]}: this user has no home folder; give the whole path", 2)
        except flags.Error as error:
            _fail(command, f"{error}; --help lists the flags", 2)
        if len(rest) > 1:
            _fail(command, f"unexpected argument {rest[1]!r}: every setting is a flag, --name=value", 2)
        return rest

    def guarded(_: Sequence[str]) -> None:
        quiet()
        threading.excepthook = in_thread
        if computes:
            unused_gpu.warn_about_unused_gpu(command)
        try:
            main()
            sys.stdout.flush()
        except BaseException as error:
            if (report := _report(error)) is None:
                raise
            _fail(command, *report)

    def in_thread(thread: threading.ExceptHookArgs) -> None:
        # If a library's thread (TensorBoard's) dies because the disk is full, other threads wait for it forever.
        if (report := _report(thread.exc_value)) is None:
            threading.__excepthook__(thread)
        else:
            _fail(command, *report)

    app.run(guarded, flags_parser=parse)
