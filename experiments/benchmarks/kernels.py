"""Shows where the training step of sean_jax spends its time on an NVIDIA GPU, kernel by kernel.

    python experiments/benchmarks/kernels.py --precision=bfloat16 --batch=1 --out=kernels.md --hlo=step.hlo.txt

Prints the kernels that take most of the time: milliseconds per step, the instruction of XLA's program that launched
them, and where that comes from in the network. --hlo keeps the program itself. The trace is made without CUDA graphs,
which would hide the single kernels.
"""

import collections
import os
import pathlib
import re
import tempfile
from typing import Any

# Before JAX reads it.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_enable_command_buffer="

import jax
import measure
from jax.profiler import ProfileData
from train_step import Training

_STEPS = 5
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?metadata=\{[^}]*op_name=\"([^\"]*)\"", re.MULTILINE)


def kernel_times(trace: str) -> dict[tuple[str, str], float]:
    """Nanoseconds by XLA's instruction and kernel, of all GPU streams in a profiler trace."""
    times: dict[tuple[str, str], float] = collections.defaultdict(float)
    (file,) = pathlib.Path(trace).rglob("*.xplane.pb")
    for plane in ProfileData.from_file(str(file)).planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if line.name.startswith("Stream"):
                for event in line.events:
                    instruction = str(dict(event.stats).get("hlo_op", "–"))
                    times[instruction, event.name] += event.duration_ns
    return times


def table(times: dict[tuple[str, str], float], origins: dict[str, str], most: int = 60) -> str:
    """A Markdown table of the longest kernels."""
    total = sum(times.values())
    lines = [f"{total / _STEPS / 1e6:.2f} ms of kernels per step", ""]
    lines += ["| ms per step | share | instruction | kernel | origin |", "| --- | --- | --- | --- | --- |"]
    for (instruction, kernel), time in sorted(times.items(), key=lambda item: -item[1])[:most]:
        cells = (f"{time / _STEPS / 1e6:.3f}", f"{time / total:.1%}", instruction, kernel[:60])
        lines.append(" | ".join(["| " + cells[0], *cells[1:], origins.get(instruction, "–")]) + " |")
    return "\n".join(lines)


def main() -> None:
    case = measure.parse(__doc__ or "", cache_dir="", method="sean", out="", hlo="")
    if case.cache_dir:
        jax.config.update("jax_compilation_cache_dir", case.cache_dir)
    training = Training(case)
    for _ in range(3):
        training.wait(training.run())
    with tempfile.TemporaryDirectory() as trace:
        with jax.profiler.trace(trace):
            for _ in range(_STEPS):
                metrics: Any = training.run()
            training.wait(metrics)
        times = kernel_times(trace)
    program = training.program()
    if case.hlo:
        pathlib.Path(case.hlo).write_text(program)
    found = table(times, dict(_INSTRUCTION.findall(program)))
    if case.out:
        pathlib.Path(case.out).write_text(found + "\n")
    print(found)


if __name__ == "__main__":
    main()
