"""What the benchmarks of both frameworks share: cases, timing, FLOP counts. Imports neither framework."""

import argparse
import json
import os
import pathlib
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# VGG-16 as DeepLab-v2 uses it: (channels, stride of its output) by convolution; the last two are fc6 and fc7.
VGG = [(64, 1)] * 2 + [(128, 2)] * 2 + [(256, 4)] * 3 + [(512, 8)] * 6 + [(1024, 8)] * 2
BRANCHES = {"paper": 4, "reference": 2}


def parse(description: str, **defaults: Any) -> argparse.Namespace:
    """The case from the command line; a script may add flags as ``name=default``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="reference", choices=sorted(BRANCHES))
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1, help="images per domain; of evaluation: images at once")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    for name, default in defaults.items():
        if isinstance(default, bool):
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def random_batch(case: argparse.Namespace) -> dict[str, np.ndarray]:
    """uint8 images and labels as the input pipeline delivers them; an eighth of the pixels have no class."""
    rng = np.random.default_rng(0)
    size = (case.batch, case.height, case.width)
    labels = rng.integers(0, case.classes, size).astype(np.uint8)
    labels[:, : case.height // 8] = 255
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for _ in range(2)]
    return {"source_image": images[0], "source_label": labels, "target_image": images[1]}


def network_flops(preset: str, height: int, width: int, classes: int) -> tuple[float, float]:
    """Multiplications and additions of one image's forward pass, and those of its first convolution."""
    flops, channels_in = [], 3
    for channels, stride in VGG:
        flops.append(2 * 9 * channels_in * channels * (height // stride) * (width // stride))
        channels_in = channels
    cells = (height // 8) * (width // 8)
    heads = 2 * cells * channels_in * (1 + 9 * classes * BRANCHES[preset])
    return float(sum(flops) + heads), float(flops[0])


def step_flops(case: argparse.Namespace) -> float:
    """Operations of one step: the student's forward and backward pass on 2·batch images, the teacher's on ``batch``.

    Counts convolutions only. The first one needs no gradient of its input. Recomputation is not counted.
    """
    forward, first = network_flops(case.preset, case.height, case.width, case.classes)
    return case.batch * (2 * (3 * forward - first) + forward)


def median_seconds(run: Callable[[], Any], wait: Callable[[Any], Any], repeats: int) -> float:
    """Median time of ``run``, waiting for each call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        wait(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def queued_seconds(run: Callable[[], Any], wait: Callable[[Any], Any], repeats: int) -> float:
    """Time per call of ``repeats`` queued calls with one synchronisation at the end; the median of three repeats."""

    def row() -> Any:
        for _ in range(repeats - 1):
            run()
        return run()

    return median_seconds(row, wait, 3) / repeats


def steps_measured(run: Callable[[], Any], wait: Callable[[Any], Any], case: argparse.Namespace) -> dict[str, float]:
    """Queued and synchronised times of a training step in ms, and the rates that follow from them."""
    for _ in range(case.warmup):
        wait(run())
    queued = queued_seconds(run, wait, max(case.steps // 3, 1))
    blocking = median_seconds(run, wait, case.steps)
    return {
        "ms_queued": 1e3 * queued,
        "ms_synchronised": 1e3 * blocking,
        "images_per_s": 2 * case.batch / queued,
        "tflops_per_s": step_flops(case) / queued / 1e12,
    }


def seconds_since_start() -> float:
    """Seconds since the process started, including the start of the interpreter; from Linux's process table."""
    ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def peak_rss_gib() -> float:
    """The process's peak memory so far, for devices whose allocator reports none."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(case: argparse.Namespace, what: str, framework: str, device: str, values: dict[str, Any]) -> None:
    """Prints the result as text or as one line of JSON."""
    record = {"what": what, "framework": framework, "device": device, "python": platform.python_version()}
    record |= {k: v for k, v in vars(case).items() if k != "json"} | values
    if case.json:
        print(json.dumps(record), flush=True)
        return
    print(f"{what}, {framework} on {device}: {case.preset}, {case.width}x{case.height}, {case.precision}")
    for name, value in values.items():
        print(f"  {name:<32}{value:.4g}" if isinstance(value, float) else f"  {name:<32}{value}")
