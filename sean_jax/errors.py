"""The one exception that means "the input is at fault", which commands print as a single line."""


class UserError(Exception):
    """Something the user gave or has cannot be used.

    The message is one line and says what was got, what was expected and the remedy; commands print it
    on standard error without a traceback and exit with a non-zero code (see :mod:`sean_jax.cli.command`).
    """
