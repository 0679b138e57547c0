"""Checksums of a checkpoint's files, which lie beside them in a file that ``sha256sum --check`` reads too.

TensorStore checks its indices when it reads a checkpoint, but not the arrays: a flipped byte would become a parameter.
"""

import hashlib
import itertools
import pathlib
from collections.abc import Iterator

import orbax.checkpoint as ocp

from sean_jax import atomic
from sean_jax.errors import UserError

FILE = "checksums.sha256"


def write(checkpoint: pathlib.Path) -> None:
    """Writes the checksums of all files in the sub-folders of a checkpoint.

    Orbax completes the files beside the sub-folders later. They hold no values.

    Raises:
      OSError: a file cannot be read, or the checksums cannot be written.
    """
    lines = [f"{_sha256(checkpoint / name)}  {name}\n" for name in _files(checkpoint)]
    atomic.write(checkpoint / FILE, "".join(lines))


def damage(checkpoint: pathlib.Path) -> str | None:
    """Returns what differs from the checksums; None if nothing does, or if the checkpoint has none.

    Raises:
      UserError: a file cannot be read.
    """
    try:
        if not (checkpoint / FILE).exists():  # an earlier version of this package wrote the checkpoint
            return None
        lines = (checkpoint / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        expected = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
        found = _files(checkpoint)
        if missing := sorted(expected.keys() - set(found)):
            return f"{missing[0]} is missing"
        for name in found:
            if name not in expected:
                return f"{name} has no checksum"
            if _sha256(checkpoint / name) != expected[name]:
                return f"{name} differs from its checksum"
    except OSError as error:
        raise UserError(
            f"{checkpoint} cannot be read ({error.strerror}); it may be sound: check the disk, the network and your "
            "right to read it"
        ) from None
    return None


def set_aside_damaged(folder: pathlib.Path) -> list[str]:
    """Renames the checkpoints that differ from their checksums, so that the last whole one is the latest.

    The caller has locked the run directory.

    Args:
      folder: the folder of a run's checkpoints; it need not exist.

    Returns:
      a line for each of them: what is damaged, its new name, and how many steps are lost.

    Raises:
      UserError: all checkpoints are damaged, and none was renamed; or one cannot be read.
    """
    steps = sorted(ocp.utils.checkpoint_steps(folder), reverse=True)
    damaged = {step: reason for step in steps if (reason := damage(folder / str(step)))}
    last = max(set(steps) - damaged.keys(), default=None)
    if damaged and last is None:
        listed = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise UserError(
            f"no checkpoint in {folder} is whole ({listed}); move them out of that folder to train from the start"
        )
    lines = []
    for step, reason in damaged.items():
        assert last is not None
        name = next(name for name in _names(step) if not (folder / name).exists())
        (folder / str(step)).rename(folder / name)
        lost = max(step - last, 0)
        lost = {0: "no step is", 1: "1 step is"}.get(lost, f"{lost} steps are")
        lines.append(f"warning: checkpoint {step} was damaged ({reason}) and renamed to {folder / name}; {lost} lost")
    return lines


def _names(step: int) -> Iterator[str]:
    yield f"{step}.damaged"
    yield from (f"{step}.damaged.{number}" for number in itertools.count(2))


def _files(checkpoint: pathlib.Path) -> list[str]:
    found = (path.relative_to(checkpoint) for path in sorted(checkpoint.glob("*/**/*")) if path.is_file())
    return [path.as_posix() for path in found if not path.name.startswith(".")]  # hidden files are not Orbax's


def _sha256(file: pathlib.Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
