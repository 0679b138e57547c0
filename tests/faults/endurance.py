"""Trains a tiny network for long, and shows that memory, open files, threads and the time of a step stay flat.

    python tests/faults/endurance.py --steps=20000

Prints a table of ten points. Fails if the last third of the run needs more than the one before.

Cost: two minutes on two CPU cores.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import shallow
import streets

from sean_jax.cli.command import quiet
from sean_jax.models import NETWORKS
from sean_jax.run import stages
from sean_jax.run.monitor import Monitor

POINTS = 10


def sample() -> tuple[float, int, int]:
    """Memory that no file backs in MB, open files, and threads of this process."""
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024, len(os.listdir("/proc/self/fd")), int(status["Threads"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--loader", default="tf_data", choices=("tf_data", "grain"))
    args = parser.parse_args()
    quiet()
    NETWORKS["shallow"] = shallow.Shallow
    samples, cpu_times = np.zeros((args.steps, 3)), np.zeros(args.steps)
    steps, advance = iter(range(args.steps)), Monitor.step

    def sampled(monitor: Monitor) -> None:
        advance(monitor)
        step = next(steps)
        samples[step], cpu_times[step] = sample(), time.process_time()

    Monitor.step = sampled
    with tempfile.TemporaryDirectory(prefix="sean_jax_endurance_") as name:
        folder = pathlib.Path(name)
        settings = {
            **{"architecture": "shallow", "height": 16, "width": 32, "batch_size": 2, "steps": args.steps},
            **{"source": "gta5", "source_dir": str(streets.gta5(folder / "gta5"))},
            **{"target": "cityscapes", "target_dir": str(streets.cityscapes(folder / "cityscapes"))},
            **{"data_dir": str(folder / "data"), "loader": args.loader},
            **{"log_every": 10, "save_every": args.steps // 40, "eval_every": args.steps // 20},
        }
        assert stages.train(settings, folder / "run")

    # The most of each tenth of the run; of the times, the median, which other programs on the machine disturb less.
    of_steps = np.diff(cpu_times, prepend=cpu_times[0]) * 1000
    tenths = np.array_split(np.arange(args.steps), POINTS)
    rows = np.array([[*samples[tenth].max(0), np.median(of_steps[tenth])] for tenth in tenths])
    print("| step | memory in MB | open files | threads | CPU time of a step in ms |\n| --- | --- | --- | --- | --- |")
    for tenth, (memory, files, threads, step_time) in zip(tenths, rows, strict=True):
        print(f"| {tenth[-1] + 1} | {memory:.0f} | {files:.0f} | {threads:.0f} | {step_time:.2f} |")
    before, last = rows[POINTS // 3 : 2 * POINTS // 3].max(0), rows[2 * POINTS // 3 :].max(0)
    # A checkpoint that is being written holds files and threads for a moment.
    allowed = {"memory": 1.02, "files": 1.2, "threads": 1.1, "time": 1.2}
    grown = [what for i, what in enumerate(allowed) if last[i] > before[i] * allowed[what]]
    print(f"grown: {', '.join(grown)}" if grown else "nothing grew")
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
