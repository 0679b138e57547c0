"""Reuses memory between training steps, for programs that compute on a CPU.

XLA's CPU programs allocate gigabytes of buffers in every step and free them again. By default glibc returns such blocks
to the system, and touching new pages takes 10 to 15 % of a step's CPU time.
"""

import ctypes
import os
import sys

from sean_jax.cli import unused_gpu

_LARGEST = 2**31 - 1  # of a C int
# glibc's environment variables → the same settings for mallopt (M_… in malloc.h), and their values.
SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, _LARGEST),  # take large blocks from the heap too
    "MALLOC_TRIM_THRESHOLD_": (-1, _LARGEST),  # never shrink the heap
    "MALLOC_ARENA_MAX": (-8, 1),  # one heap: those of other threads are too small for large blocks
}


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for reuse; does nothing with another C library or with an NVIDIA GPU.

    The process then keeps its peak memory until it ends. The user's settings take precedence: nothing is changed if
    ``$GLIBC_TUNABLES`` or a variable of :data:`SETTINGS` is set. Call it before JAX computes anything.
    """
    is_set = not {"GLIBC_TUNABLES", *SETTINGS}.isdisjoint(os.environ)
    if sys.platform != "linux" or is_set or any(device.exists() for device in unused_gpu.DEVICES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in SETTINGS.values():
            mallopt(parameter, value)
