"""Keeps compiled programs on disk, so that a command starts in seconds when it is run again.

They are in the folder that ``$JAX_COMPILATION_CACHE_DIR`` names, or else in ``sean_jax`` in the user's cache folder
(``$XDG_CACHE_HOME``, or else ``~/.cache``). JAX identifies entries by program, versions, devices and XLA flags, and
stores only programs that took at least a second to compile. ``--nocompilation_cache`` turns the cache off.
"""

import errno
import hashlib
import os
import pathlib
import platform
import sys

import jax
from absl import flags

ENABLED = flags.DEFINE_bool("compilation_cache", True, "keep compiled programs in the user's cache folder")


def default_folder() -> pathlib.Path:
    """A folder for this type of processor in the user's cache folder.

    Code compiled for one CPU may not run on an older one.

    Raises:
      OSError: the user has no home folder.
    """
    root = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if root.startswith("~"):
        raise FileNotFoundError(errno.ENOENT, "this user has no home folder; set $XDG_CACHE_HOME")
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    kind = hashlib.sha256((platform.processor() + features).encode()).hexdigest()[:8]
    return pathlib.Path(root) / "sean_jax" / "compiled" / f"{platform.machine()}-{kind}"


def enable() -> None:
    """Turns the cache on unless the flag says otherwise; if the folder cannot be made, prints one line and goes on."""
    if flags.FLAGS.is_parsed() and not ENABLED.value:  # experiments do not parse absl flags
        return
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]  # the user's
        return
    try:
        folder = default_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"compiled programs are not kept: {where}{error.strerror}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
