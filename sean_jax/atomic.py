"""Files that are there whole or not at all."""

import os
import pathlib


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file (text as UTF-8) so that it is either the old one or the whole new one.

    Raises:
      OSError: it cannot be written; nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
