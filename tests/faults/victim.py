"""Trains as the command ``sean_jax.train`` does, on the network of ``tests/shallow.py``, with a fault on the way.

    python tests/faults/victim.py --fault=MOMENT:NTH:DELAY:SIGNAL --workdir=RUN …
    python tests/faults/victim.py --fault=MOMENT:NTH:DELAY:rot --data_dir=FOLDER --workdir=RUN …
    python tests/faults/victim.py --fault=clock --workdir=RUN …

``DELAY`` seconds after the ``NTH`` time that ``MOMENT`` begins, the process sends ``SIGNAL`` to itself, whatever it is
doing by then, or flips a bit in the records of a prepared set. With ``clock``, the wall clock jumps by up to ten
days, forth and back, twenty times a second.
"""

import functools
import itertools
import os
import pathlib
import random
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import shallow
import tqdm.std

from sean_jax.data.preparation import builder
from sean_jax.models import NETWORKS
from sean_jax.run import checksums
from sean_jax.run.checkpoints import Checkpoints
from sean_jax.run.monitor import Monitor
from sean_jax.scoring.scorer import Scorer

# What each moment begins with. Checkpoints are written, and their checksums, while the next steps run.
MOMENTS = {
    "preparation": (builder, "_build"),
    "step": (Monitor, "step"),
    "evaluation": (Scorer, "evaluate"),
    "checkpoint": (Checkpoints, "save"),
    "checksums": (checksums, "write"),
    "resuming": (Checkpoints, "restore"),
}


def arm(moment: str, nth: str, delay: str, fault: str) -> None:
    """Makes the fault happen: see the module."""
    owner, name = MOMENTS[moment]
    original, times = getattr(owner, name), itertools.count(1)
    happen: Callable[[], None] = (
        functools.partial(os.kill, os.getpid(), signal.Signals[fault]) if fault != "rot" else rot
    )

    @functools.wraps(original)
    def armed(*args, **kwargs):
        if next(times) == int(nth):
            timer = threading.Timer(float(delay), happen)
            timer.daemon = True
            timer.start()
        return original(*args, **kwargs)

    setattr(owner, name, armed)


def rot() -> None:
    """Flips a bit in the records of a prepared set, not in their padding of zeros."""
    (data_dir,) = (word.removeprefix("--data_dir=") for word in sys.argv if word.startswith("--data_dir="))
    file = random.choice(sorted(pathlib.Path(data_dir).glob("prepared_images/*/*/*array_record*")))
    content = file.read_bytes()
    place = random.choice([i for i, byte in enumerate(content) if byte])
    with file.open("rb+") as stream:
        stream.seek(place)
        stream.write(bytes([content[place] ^ (1 << random.randrange(8))]))


def jumping_clock() -> None:
    """Lets the wall clock jump twenty times a second."""
    wall_clock, days = time.time, 86400
    seed = random.random()

    def jumping() -> float:
        return wall_clock() + random.Random(seed + time.monotonic() // 0.05).uniform(-10, 10) * days

    time.time, tqdm.std.time = jumping, jumping


if __name__ == "__main__":
    NETWORKS["shallow"] = shallow.Shallow
    for word in [word for word in sys.argv if word.startswith("--fault=")]:
        sys.argv.remove(word)
        random.seed(word)
        moment, *rest = word.removeprefix("--fault=").split(":")
        jumping_clock() if moment == "clock" else arm(moment, *rest)
    runpy.run_module("sean_jax.train", run_name="__main__", alter_sys=True)
