"""Bitwise reproducible kernels on GPUs (``deterministic``)."""

import os

from jax._src import xla_bridge  # no public function says whether the devices are initialised

from sean_jax.errors import UserError

# Kernels that do not depend on the order of atomic operations, chosen without timing them: a choice by timing may
# differ in the process that resumes.
XLA_FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")


def request_deterministic_kernels() -> None:
    """Sets XLA's flags for this process; XLA reads them when JAX initialises its devices.

    Raises:
      UserError: JAX has initialised its devices without these flags already.
    """
    given = os.environ.get("XLA_FLAGS", "").split()
    missing = [flag for flag in XLA_FLAGS if flag not in given]
    if missing and xla_bridge.backends_are_initialized():
        raise UserError(
            "deterministic=True comes too late: JAX has initialised its devices; set it before any computation, or "
            f"start Python with XLA_FLAGS='{' '.join(XLA_FLAGS)}'"
        )
    os.environ["XLA_FLAGS"] = " ".join([*given, *missing])
