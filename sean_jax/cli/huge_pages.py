"""Memory in huge pages, for programs that compute on a CPU.

XLA's CPU programs take their memory anew in every step. In pages of 4 KB its first touch costs up to a third of a
step's time; huge pages make that nothing (Linux's transparent ones, glibc 2.35 and later; elsewhere the setting changes
nothing). glibc reads the setting when a program starts, and at no other time.
"""

import contextlib
import os
import pathlib
import sys

VARIABLE, SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_ASKED = "SEAN_JAX_ASKED_FOR_HUGE_PAGES"  # should the variable not reach the new program, it is not started for ever


def environment() -> dict[str, str]:
    """What asks for huge pages; nothing where something is asked of glibc already, or with an NVIDIA GPU."""
    decided = VARIABLE in os.environ or _ASKED in os.environ
    if decided or sys.platform != "linux" or pathlib.Path("/dev/nvidiactl").exists():
        return {}
    return {VARIABLE: SETTING, _ASKED: "1"}


def use(module: str) -> None:
    """Starts ``python -m module`` anew, as the same process, with huge pages; returns where they are not wanted.

    For the beginning of a command. A program that was not started as this module (a notebook, a test) is left alone.
    """
    if module in sys.orig_argv and sys.executable and (asking := environment()):
        with contextlib.suppress(OSError):  # it runs without them
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | asking)
