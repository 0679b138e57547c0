"""What all commands do with their words."""

import os
import pathlib
import subprocess
import sys

import pytest

from sean_jax.cli import huge_pages
from sean_jax.cli.command import expand_home


def test_a_flags_home_is_the_users(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    words = ["sean_jax.train", "--workdir=~/run", "-source_dir=~", "--out=a~b", "--input=~/*.png"]
    expected = ["sean_jax.train", "--workdir=/home/ada/run", "-source_dir=/home/ada", "--out=a~b"]
    assert expand_home(words) == [*expected, "--input=/home/ada/*.png"]


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)


def _huge_kilobytes(*, asked: bool) -> int:
    program = ["from sean_jax.cli import huge_pages", *(["huge_pages.use('-c')"] if asked else [])]
    program += ["memory = b'1' * (1 << 26)", "print(open('/proc/self/smaps_rollup').read())"]
    text = _python("-c", "\n".join(program)).stdout
    return int(text.split("AnonHugePages:")[1].split()[0])


def test_memory_comes_in_huge_pages():
    setting = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not huge_pages.environment() or not setting.exists() or "[madvise]" not in setting.read_text():
        pytest.skip("huge pages are not asked for here, or the system gives them to none or to all")
    glibc = os.confstr("CS_GNU_LIBC_VERSION")
    if not glibc or tuple(map(int, glibc.split()[1].split("."))) < (2, 35):
        pytest.skip(f"{glibc} does not know them")
    assert _huge_kilobytes(asked=False) < 1 << 15 < _huge_kilobytes(asked=True)


def test_what_was_not_started_as_the_command_is_left_alone():
    program = ["from sean_jax.cli.huge_pages import use", "print(1, flush=True)", "use('sean_jax.train')", "print(2)"]
    assert _python("-c", "\n".join(program)).stdout == "1\n2\n"


def test_a_command_started_anew_has_its_words():
    result = _python("-m", "sean_jax.train", "--height=a b")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("sean_jax.train: flag --height=a b:")
