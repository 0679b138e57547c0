"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to, and puts that file in the place of ``path`` when the block ends.

    The temporary file lies beside ``path``, is hidden, and has the same suffix and a name of this process's own.
    When the block fails or is interrupted, it is removed and ``path`` stays as it was.

    Raises:
      OSError: the file cannot be written or moved.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # some file systems report a full disk only here
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file (text as UTF-8) so that it is either the old one or the whole new one.

    Raises:
      OSError: it cannot be written; nothing is left beside it.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
