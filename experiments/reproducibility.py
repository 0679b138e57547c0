"""Shows that runs repeat and resume bitwise.

    python experiments/reproducibility.py

Trains minicity_game → minicity_camera with a narrow network five times: twice undisturbed with one seed, once killed by
SIGKILL at a random moment after a checkpoint and resumed, once stopped by SIGTERM and resumed, and once with another
seed. Then compares metrics.jsonl byte by byte, and every parameter and optimiser state bit by bit. On a GPU the runs
ask for deterministic kernels (--deterministic).

Cost: about three minutes on two CPU cores.
Expected: three lines that say "equal" and one that says "different"; otherwise exit code 1.
"""

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import time

SETTINGS = {
    "preset": "quick", "width_multiplier": 0.0625, "height": 32, "width": 64, "batch_size": 2, "steps": 40,
    "log_every": 1, "eval_every": 20, "save_every": 5, "deterministic": "true",
}  # fmt: skip


def command(workdir: pathlib.Path, seed: int) -> list[str]:
    flags = [f"--{name}={value}" for name, value in (SETTINGS | {"workdir": workdir, "seed": seed}).items()]
    return [sys.executable, "-m", "sean_jax.train", *flags]


def train(workdir: pathlib.Path, seed: int) -> None:
    subprocess.run(command(workdir, seed), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def interrupted(workdir: pathlib.Path, seed: int, how: signal.Signals) -> None:
    """Starts a run, sends it a signal once it has a checkpoint, and runs the same command again."""
    process = subprocess.Popen(command(workdir, seed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(workdir.glob("checkpoints/[0-9]*")):
        time.sleep(0.02)
    time.sleep(random.uniform(0, 1))
    process.send_signal(how)
    code = process.wait()
    steps = sorted(int(p.name) for p in workdir.glob("checkpoints/[0-9]*") if p.name.isdigit())
    print(f"  {how.name} ended the process (exit code {code}); checkpoints {steps}")
    if steps[-1] == SETTINGS["steps"]:
        sys.exit("the run was over before the signal came; nothing was shown: try again")
    train(workdir, seed)


def same_metrics(a: pathlib.Path, b: pathlib.Path) -> bool:
    return (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def same_state(a: pathlib.Path, b: pathlib.Path) -> bool:
    """Whether the last checkpoints hold the same bits: step, networks, optimiser."""
    import jax
    import numpy as np

    from sean_jax.run.checkpoints import read_state

    leaves_a, leaves_b = (jax.tree.leaves(read_state(x)) for x in (a, b))
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(leaves_a, leaves_b, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/reproducibility"))
    runs = parser.parse_args().runs
    if runs.exists() and any(runs.iterdir()):
        sys.exit(f"{runs} is not empty; give another --runs")

    ok = True

    def compare(what: str, other: str, expect_equal: bool) -> None:
        nonlocal ok
        first, second = runs / "first", runs / other
        equal = same_metrics(first, second), same_state(first, second)
        ok &= all(e == expect_equal for e in equal)
        words = ["equal" if e else "different" for e in equal]
        print(f"{what}: metrics.jsonl {words[0]}, state {words[1]}", flush=True)

    train(runs / "first", seed=0)
    train(runs / "second", seed=0)
    compare("two runs with one seed", "second", True)
    interrupted(runs / "killed", 0, signal.SIGKILL)
    compare("killed and started again", "killed", True)
    interrupted(runs / "terminated", 0, signal.SIGTERM)
    compare("terminated and started again", "terminated", True)
    train(runs / "other_seed", seed=1)
    compare("another seed", "other_seed", False)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
