"""What all commands share: parse flags, run, and turn bad input into one line on standard error."""

import contextlib
import errno
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from sean_jax.errors import UserError

# What the operating system says when a file cannot be written: disks that are full, read-only or over a quota or size
# limit, paths that lead through a file or on to a folder, a reader of our output that has gone.
FULL_ERRNOS = (errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EDQUOT)
WRITE_ERRNOS = (
    *FULL_ERRNOS,
    *(errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EPIPE),
)


def _fail(command: str, message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    if "tqdm" in sys.modules:  # a progress bar that is still open would share our line
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the full disk may be the one that they go to
            if stream is sys.stderr:
                print(f"{command}: {line}", file=stream)
            stream.flush()
    # A failed run may leave loader or checkpoint threads behind; nothing they could still do is wanted.
    os._exit(code)


def _fault(error: BaseException | None) -> tuple[str, int] | None:
    """What to say of an error that the user or the machine is at fault for, and the exit code; None for a bug."""
    if isinstance(error, UserError):
        return str(error), 1
    if isinstance(error, OSError) and error.errno in WRITE_ERRNOS:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in FULL_ERRNOS:
            return f"cannot write: {error.strerror}{where}; free space there or choose another folder", 1
        return f"cannot read or write: {error.strerror}{where}; choose a path that this user may use", 1
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED: Out of memory" in str(error):
        return "out of memory; choose a smaller --batch_size, or --height and --width", 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    return None


def quiet() -> None:
    """Keeps to themselves what libraries say while they work; their errors are raised and reach the user as ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of XLA and TensorFlow; read when they are loaded
    logging.set_verbosity(logging.FATAL)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    sys.excepthook = _main_thread_only


def _main_thread_only(*error: Any) -> None:
    """Shows a bug of ours; on their own threads C++ libraries print what they cannot raise (tensorstore does)."""
    if threading.current_thread() is threading.main_thread():
        sys.__excepthook__(*error)


def expand_home(argv: Sequence[str]) -> list[str]:
    """``--flag=~/x`` with the user's home; shells expand ~ at the beginning of a word only."""
    return [re.sub(r"^(--?\w+=)(~.*)", lambda match: match[1] + os.path.expanduser(match[2]), word) for word in argv]


def run(main: Callable[[], None], command: str) -> None:
    """Parses ``sys.argv`` with absl and calls ``main``; bad input ends as one line and exit code 1 or 2.

    Args:
      main: the command; it reads absl flags and raises :class:`UserError` for bad input.
      command: the name that precedes the message, e.g. ``sean_jax.train``.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            rest = flags.FLAGS(expand_home(argv))
        except flags.Error as error:
            _fail(command, f"{error}; --helpfull lists every flag", 2)
        if len(rest) > 1:
            _fail(command, f"unexpected argument {rest[1]!r}: every setting is a flag, --name=value", 2)
        return rest

    def guarded(_: Sequence[str]) -> None:
        quiet()
        threading.excepthook = in_thread
        try:
            main()
            sys.stdout.flush()
        except BaseException as error:
            if (fault := _fault(error)) is None:
                raise
            _fail(command, *fault)

    def in_thread(thread: threading.ExceptHookArgs) -> None:
        # A library's thread that dies of a full disk (TensorBoard's) leaves others waiting for it forever.
        if (fault := _fault(thread.exc_value)) is None:
            threading.__excepthook__(thread)
        else:
            _fail(command, *fault)

    app.run(guarded, flags_parser=parse)
