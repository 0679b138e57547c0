"""Memory in huge pages, for commands that compute on a CPU."""

import os
import pathlib
import sys

VARIABLE, SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def use() -> None:
    """Starts this program anew, as the same process, with glibc asking for huge pages; for the beginning of a command.

    XLA's CPU programs take their memory anew in every step. In pages of 4 KB its first touch costs up to a third of a
    step's time; huge pages make that nothing (Linux's transparent ones, glibc 2.35 and later; elsewhere the setting
    changes nothing). glibc reads it when a program starts, and at no other time. Where the variable is set, to
    whatever, it is left as it is, and so is everything on a machine with an NVIDIA GPU.
    """
    if VARIABLE in os.environ or sys.platform != "linux" or pathlib.Path("/dev/nvidiactl").exists():
        return
    os.environ[VARIABLE] = SETTING
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
