"""Compiled programs kept between processes, so that the second start of a command takes seconds.

In the folder that ``$JAX_COMPILATION_CACHE_DIR`` names, else in ``sean_jax`` of the user's cache folder
(``$XDG_CACHE_HOME``, else ``~/.cache``). JAX tells entries apart by program, versions, devices and XLA flags; only
programs that took a second or more to compile are kept. ``--nocompilation_cache`` does without.
"""

import hashlib
import os
import pathlib
import platform
import sys

from absl import flags

ENABLED = flags.DEFINE_bool("compilation_cache", True, "keep compiled programs in the user's cache folder")


def default_folder() -> pathlib.Path:
    """The user's cache folder for this kind of processor: code compiled for a CPU may not run on an older one."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    kind = hashlib.sha256((platform.processor() + features).encode()).hexdigest()[:8]
    return pathlib.Path(root) / "sean_jax" / "compiled" / f"{platform.machine()}-{kind}"


def enable() -> None:
    """Switches the cache on unless the flag says otherwise; a folder that cannot be written costs a line, no more."""
    if flags.FLAGS.is_parsed() and not ENABLED.value:  # the experiments have flags of their own
        return
    import jax

    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]  # chosen by the user
        return
    folder = default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"compiled programs are not kept: {folder}: {error.strerror}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
