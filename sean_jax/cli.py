"""What all commands share: parse flags, run, and turn bad input into one line on standard error."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from sean_jax.errors import UserError

# What the operating system says when a disk is full, read-only or over a quota or size limit.
DISK_ERRNOS = (errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO)


def _fail(command: str, message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    print(f"{command}: {line}", file=sys.stderr, flush=True)
    # A failed run may leave loader or checkpoint threads behind; nothing they could still do is wanted.
    sys.stdout.flush()
    os._exit(code)


def run(main: Callable[[], None], command: str) -> None:
    """Parses ``sys.argv`` with absl and calls ``main``; bad input ends as one line and exit code 1 or 2.

    Args:
      main: the command; it reads absl flags and raises :class:`UserError` for bad input.
      command: the name that precedes the message, e.g. ``sean_jax.train``.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            rest = flags.FLAGS(list(argv))
        except flags.Error as error:
            _fail(command, f"{error}; --help lists every flag", 2)
        if len(rest) > 1:
            _fail(command, f"unexpected argument {rest[1]!r}: every setting is a flag, --name=value", 2)
        return rest

    def guarded(_: Sequence[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # what the libraries say of themselves is not for the user
        try:
            main()
        except UserError as error:
            _fail(command, str(error), 1)
        except OSError as error:
            if error.errno not in DISK_ERRNOS:
                raise
            where = f" ({error.filename})" if error.filename else ""
            _fail(command, f"cannot write: {error.strerror}{where}; free space there or choose another folder", 1)
        except KeyboardInterrupt:
            _fail(command, "interrupted", 130)

    app.run(guarded, flags_parser=parse)
