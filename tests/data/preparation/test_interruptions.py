"""Preparation killed, run twice at once, or out of space."""

import subprocess
import sys
import time
from pathlib import Path

import data_fixtures as fixtures

from sean_jax.data.concurrency import ordered_map
from sean_jax.data.prepared import PreparedSet


def sets_in(data_dir):
    return sorted(path for path in Path(data_dir).glob("prepared_images/[!.]*/*"))


SCRIPT = """
import sys, time
from sean_jax.data.preparation import builder, inspection, job as requests
from sean_jax.data.catalogue import DATASETS
root, data_dir, pause = sys.argv[1:]
check = inspection.check
def slow(*args):
    time.sleep(float(pause))
    return check(*args)
inspection.check, requests.PART_BYTES = slow, 2 * 16 * 30 * 4
print("ready", flush=True)
builder.prepare(DATASETS["gta5"], split="train", source_dir=root, data_dir=data_dir, height=16, width=30,
                labels="resized", progress=False)
print("done", flush=True)
"""


def run_script(script, *args, **kwargs):
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from sean_jax.data.preparation import builder, job as requests
from sean_jax.data.catalogue import DATASETS
root, data_dir = map(Path, sys.argv[1:])
requests.PART_BYTES = 4 * 16 * 30 * 4
def prepare():
    return builder.prepare(DATASETS["gta5"], split="train", source_dir=root, data_dir=data_dir, height=16, width=30,
                           labels="resized", progress=False)
def start():
    child = os.fork()
    if not child:
        prepare()
        os._exit(0)
    return child
began = time.monotonic()
os.waitpid(start(), 0)
took = time.monotonic() - began
generator, killed, whole = random.Random(0), 0, 0
tries = 0
while killed < 20 and tries < 100:
    if tries % 5 == 0:
        shutil.rmtree(data_dir)
    tries += 1
    child = start()
    time.sleep(generator.uniform(0, took))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == signal.SIGKILL:
        killed += 1
    else:
        took *= 0.9  # it was quicker than the first
    done = list(data_dir.glob("prepared_images/*/1.0.0"))  # all that training looks for
    whole += len(done)
    for directory in done:
        prepared = builder.PreparedSet(directory)
        assert len(prepared) == 30 and all(prepared.read(k)["name"] == prepared.names[k] for k in range(30))
        shutil.rmtree(directory.parent)
left = list(data_dir.glob("prepared_images/[!.]*/*"))
prepared = prepare()
assert [prepared.read(k)["name"] for k in range(30)] == prepared.names
assert list(data_dir.glob("prepared_images/[!.]*/*")) == [prepared.directory]
print(killed, whole - (tries - killed), len(left))
"""


def test_killed_preparation_is_never_taken_for_whole(tmp_path):
    """SIGKILL at 20 random moments; each start clears away what the one before left."""
    root = fixtures.gta5(tmp_path / "gta5", 30)
    output, errors = run_script(KILLED, root, tmp_path / "prepared").communicate()
    assert output, errors
    killed, whole, left = map(int, output.split())
    assert killed == 20
    assert whole < 20  # of the killed, some may have been done
    assert left <= 1


def test_two_processes_prepare_once(tmp_path):
    root, data_dir = fixtures.gta5(tmp_path / "gta5", 40), tmp_path / "prepared"
    processes = [run_script(SCRIPT, root, data_dir, 0.01) for _ in range(2)]
    assert [process.communicate()[0].split()[-1] for process in processes] == ["done", "done"]
    (directory,) = sets_in(data_dir)
    assert PreparedSet(directory).read(39)["name"] == "images/00040.png"


def test_a_full_disk_leaves_nothing(tmp_path):
    """RLIMIT_FSIZE stands for the disk: it holds for root too."""
    root = fixtures.gta5(tmp_path / "gta5", 40)
    script = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
from sean_jax.errors import UserError
try:
    exec(SCRIPT)
except UserError as error:
    print(error)
"""
    process = run_script(f"SCRIPT = {SCRIPT!r}\n{script}".replace("2 * 16", "99 * 16"), root, tmp_path / "prepared", 0)
    output, _ = process.communicate()
    assert "cannot write: File too large" in output.splitlines()[-1]
    assert sets_in(tmp_path / "prepared") == []


def test_ordered_map_keeps_order_and_bounds_what_is_under_way():
    started = []

    def work(i):
        started.append(i)
        time.sleep(0.001 * (i % 3))
        return i

    results = ordered_map(work, range(30), workers=3)
    assert next(results) == 0
    assert len(started) <= 6
    assert list(results) == list(range(1, 30))
