"""The exception for bad input, which commands print as a single line."""


class UserError(Exception):
    """Reports input that cannot be used: a flag, a file, a data set or a device.

    The message is one line that says what was found, what was expected and how to fix it. Commands print it
    on standard error without a traceback and exit with a non-zero code (see :mod:`sean_jax.cli.command`).
    """
