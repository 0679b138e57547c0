"""Times one training step of every method beside that of source_only, on the same network.

    python experiments/benchmarks/methods.py --precision=float32 --height=128 --width=256 --steps=4 --warmup=1

Runs train_step.py once for each method, one process after another, source_only first and last, and prints a Markdown
table: milliseconds per step (each waited for), the ratio to the mean of source_only's two times, and the process's peak
memory with its ratio. Flags are train_step.py's; --methods chooses. Stages that a method needs first do not count.
"""

import json
import pathlib
import subprocess
import sys

import measure

from sean_jax.methods import METHODS

SCRIPT = pathlib.Path(__file__).with_name("train_step.py")
FLAGS = ("preset", "height", "width", "batch", "precision", "steps", "warmup", "classes")


def main() -> None:
    case = measure.parse(__doc__ or "", methods="")
    chosen = case.methods.split(",") if case.methods else [name for name in METHODS if name != "source_only"]
    flags = [f"--{name}={getattr(case, name)}" for name in FLAGS]
    found = []
    for name in ["source_only", *chosen, "source_only"]:
        output = subprocess.run(
            [sys.executable, SCRIPT, f"--method={name}", *flags, "--json"], stdout=subprocess.PIPE, check=True
        )
        found.append(json.loads(output.stdout))
    ends = found[0], found[-1]
    milliseconds = sum(record["ms_synchronised"] for record in ends) / 2
    gib = sum(_gib(record) for record in ends) / 2
    lines = ["| method | ms per step | to source_only | peak memory, GiB | to source_only |", "| --- " * 5 + "|"]
    for record in found:
        time, memory = record["ms_synchronised"], _gib(record)
        lines.append(
            f"| {record['method']} | {time:.0f} | {time / milliseconds:.2f} | {memory:.2f} | {memory / gib:.2f} |"
        )
    print(f"{found[0]['framework']} on {found[0]['device']}\n\n" + "\n".join(lines))


def _gib(record: dict[str, float]) -> float:
    return record.get("peak_gib_allocator") or record["peak_gib_process"]


if __name__ == "__main__":
    main()
