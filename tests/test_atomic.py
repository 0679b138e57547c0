"""Tests that a file is replaced completely or not at all when its writer fails or is killed."""

import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from sean_jax import atomic


def test_new_content_replaces_the_old(tmp_path):
    file = tmp_path / "a.json"
    for content, expected in (("ä", "ä".encode()), (b"\xff", b"\xff")):
        atomic.write(file, content)
        assert file.read_bytes() == expected
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file(tmp_path, error):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")

    def fail():
        with atomic.replacing(file) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_disk_error_on_fsync_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write(file, b"new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


KILLED = """
import os, pathlib, signal, sys
from sean_jax import atomic
with atomic.replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(file)]).returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"
    (left,) = set(os.listdir(tmp_path)) - {"a.bin"}
    assert left.startswith(".")


MANY = """
import pathlib, sys
from sean_jax import atomic
for _ in range(100):
    atomic.write(sys.argv[1], sys.argv[2] * 10000)
"""


def test_two_processes_do_not_mix_their_content(tmp_path):
    file = tmp_path / "a.txt"
    processes = [subprocess.Popen([sys.executable, "-c", MANY, str(file), letter]) for letter in "ab"]
    seen = set()
    while any(process.poll() is None for process in processes):
        if file.exists():
            seen.add(file.read_bytes())
    assert [process.returncode for process in processes] == [0, 0]
    assert seen <= {b"a" * 10000, b"b" * 10000}
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    """Pillow infers the format from the suffix, and NumPy appends its own if it is missing."""
    with atomic.replacing(tmp_path / "a.b.png") as temporary:
        Image.new("L", (2, 2)).save(temporary)
    with atomic.replacing(tmp_path / "a.npy") as temporary:
        np.save(temporary, np.arange(3))
    with atomic.replacing(tmp_path / "a.zip") as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("x", "y")
    with Image.open(tmp_path / "a.b.png") as image:
        assert image.size == (2, 2)
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert zipfile.ZipFile(tmp_path / "a.zip").read("x") == b"y"
    assert sorted(os.listdir(tmp_path)) == ["a.b.png", "a.npy", "a.zip"]
