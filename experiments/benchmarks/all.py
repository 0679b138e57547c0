"""Runs the benchmarks of step and evaluation, each in its own process, and prints their results with ratios to PyTorch.

    python experiments/benchmarks/all.py --torch=TORCH_PYTHON --out=benchmarks.json      one GPU, about 40 minutes
    python experiments/benchmarks/all.py --torch=TORCH_PYTHON --scale=short              its main cases and GPU tests
    python experiments/benchmarks/all.py --torch=TORCH_PYTHON --scale=cpu                two CPU cores, 3 minutes

TORCH_PYTHON is an interpreter with PyTorch (it needs no JAX; default: this one); --torch= leaves PyTorch out.
measure.py times both frameworks in the same way after a warm-up: steps queued with one synchronisation at the end
(median of three repeats), and steps that are each waited for (median). PyTorch's best variant is compared. A case that
fails or runs out of memory is reported, and the others continue. --preset=paper times the paper's network. Other flags
go to every case: --height=32 --width=64 --steps=1 --warmup=0 tries a GPU's scale on a CPU.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

HERE = pathlib.Path(__file__).parent
Record = dict[str, Any]

# PyTorch's variants by precision; the first are the authors' settings.
TUNED = ["--channels_last", "--fused"]
TORCH_VARIANTS = {
    "eager": [],
    "eager, channels_last, fused Adam": TUNED,
    "compiled, fused Adam": ["--compile", "--fused"],
    "compiled, channels_last, fused Adam": ["--compile", *TUNED],
    "compiled for less overhead": ["--compile", *TUNED, "--mode=reduce-overhead"],
}

# (precision, batch): first the steps to compare, then the table of memory and time by batch size.
GPU_STEPS = [("bfloat16", 1), ("bfloat16", 4), ("tf32", 1), ("float32", 1)]
# The steps of --scale=short, the most important first; PyTorch's variant is the one that was fastest.
COMPILED = "compiled, channels_last, fused Adam"
SHORT_STEPS = {("bfloat16", 1): [COMPILED], ("bfloat16", 4): [COMPILED], ("tf32", 1): []}
GPU_MEMORY = [(precision, batch) for precision in ("bfloat16", "tf32") for batch in (2, 8, 16, 32)]


def run(python: str, script: str, flags: list[str]) -> Record:
    """Runs one benchmark in its own process; ``{"failed": …}`` if it ends with an error."""
    command = [python, str(HERE / script), "--json", *flags]
    print("…", script, *flags, file=sys.stderr, flush=True)
    # Huge pages on a CPU, for both frameworks; see train_step.py.
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        exhausted = [x for x in lines if "out of memory" in x.lower() or "RESOURCE_EXHAUSTED" in x]
        return {"failed": "out of memory" if exhausted else lines[-1][:160]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def show(name: str, record: Record, *keys: str) -> None:
    if "failed" in record:
        print(f"  {name:<52} {record['failed']}", flush=True)
        return
    values = ", ".join(f"{key} {record[key]:.4g}" for key in keys if key in record)
    print(f"  {name:<52} {values}", flush=True)


def best(records: dict[str, Record], key: str, *, largest: bool = False) -> tuple[str, Record] | None:
    valid = [(name, r) for name, r in records.items() if key in r]
    if not valid:
        return None
    return (max if largest else min)(valid, key=lambda item: item[1][key])


def compare(
    python: str,
    what: str,
    flags: list[str],
    found: list[Record],
    variants: dict[str, list[str]],
    *,
    own_flags: Sequence[str] = (),
) -> None:
    """Times sean_jax and every PyTorch variant on one case and prints the ratio to the best variant.

    Args:
      own_flags: for sean_jax alone.
    """
    script, ratios, torch_flags = {
        "step": ("train_step.py", ["ms_queued", "ms_synchronised"], []),
        "evaluation": ("evaluation.py", ["images_per_s"], ["--what=evaluation"]),
    }[what]
    keys = ["ms_queued", "ms_synchronised", "images_per_s", "tflops_per_s", "share_of_matrix_product"]
    keys += ["peak_gib_allocator", "peak_gib_process", "s_to_first_step"]
    print(f"\n{what} {' '.join(flags)}", flush=True)
    ours = run(sys.executable, script, [*flags, *own_flags])
    show("sean_jax", ours, *keys)
    theirs = {}
    if python:
        for name, variant in variants.items():
            theirs[name] = run(python, "torch_peer.py", [*flags, *torch_flags, *variant])
            show(f"PyTorch, {name}", theirs[name], *keys)
    found += [ours | {"variant": "sean_jax"}, *(r | {"variant": name} for name, r in theirs.items())]
    for key in ratios:
        tuned = best(theirs, key, largest=what == "evaluation")
        if tuned and key in ours:
            name, record = tuned
            print(f"  {key}: ratio to PyTorch's best ({name}) {ours[key] / record[key]:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=sys.executable, help="interpreter with PyTorch; empty: leave it out")
    parser.add_argument("--scale", choices=["gpu", "short", "cpu"], default="gpu")
    parser.add_argument("--preset", choices=["reference", "paper"], default="reference")
    parser.add_argument("--out", type=pathlib.Path, help="all results as JSON")
    args, size = parser.parse_known_args()
    preset = [f"--preset={args.preset}", *size]
    found: list[Record] = []

    if args.scale == "cpu":
        small = ["--precision=float32", "--height=128", "--width=256", "--steps=6", "--warmup=2", *preset]
        eager = {name: TORCH_VARIANTS[name] for name in ("eager", "eager, channels_last, fused Adam")}
        compare(args.torch, "step", small, found, eager)
        compare(args.torch, "evaluation", small, found, {"eager": []})
        pmap_over_jit(small, found)
        starts(small, found)
    elif args.scale == "short":
        short(args.torch, preset, found, args.out)
    else:
        for precision, batch in GPU_STEPS:
            case = [f"--precision={precision}", f"--batch={batch}", *preset]
            compare(args.torch, "step", case, found, TORCH_VARIANTS)
        for batch in (1, 4):
            case = ["--precision=bfloat16", f"--batch={batch}", "--steps=100", *preset]
            compare(args.torch, "evaluation", case, found, TORCH_VARIANTS)
        memory_table(preset, found)
        pmap_over_jit([*preset, "--precision=bfloat16"], found)
        starts([*preset, "--precision=bfloat16"], found)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


def short(python: str, preset: list[str], found: list[Record], out: pathlib.Path | None) -> None:
    """The main cases on a GPU, and a profile of the first; the first process starts cold, the last one warm."""
    steps = {
        (precision, batch): [f"--precision={precision}", f"--batch={batch}", "--steps=60", *preset]
        for precision, batch in SHORT_STEPS
    }
    evaluation = ["--precision=bfloat16", "--batch=4", "--steps=100", *preset]
    first = steps["bfloat16", 1]
    compile_with_torch(python, [steps[case] for case, variants in SHORT_STEPS.items() if variants], evaluation)
    with tempfile.TemporaryDirectory() as folder:
        cached = [f"--cache_dir={folder}"]
        for case, flags in steps.items():
            variants = {name: TORCH_VARIANTS[name] for name in SHORT_STEPS[case]}
            compare(python, "step", flags, found, variants, own_flags=cached)
            if flags is first and out:
                profile(flags, out)
        compare(python, "evaluation", evaluation, found, {COMPILED: TORCH_VARIANTS[COMPILED]})
        pmap_over_jit([*first, *cached], found)
        warm = run(sys.executable, "train_step.py", [*first, *cached, "--steps=1", "--warmup=0"])
    print("\nstart with a filled compilation cache; the first case above started without one", flush=True)
    show("sean_jax", warm, "s_to_first_step", "s_of_which_step")
    found.append(warm | {"variant": "start warm"})
    if shutil.which("nvidia-smi"):
        print("\npytest -m gpu", flush=True)
        tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0"]
        subprocess.run(tests, cwd=HERE.parents[1], env=os.environ | {"JAX_PLATFORMS": "cuda"}, check=False)


def profile(flags: list[str], out: pathlib.Path) -> None:
    """Writes the kernels of the step, and XLA's program, beside ``out``."""
    files = [f"--out={out.with_suffix('.kernels.md')}", f"--hlo={out.with_suffix('.hlo.txt')}"]
    subprocess.run([sys.executable, str(HERE / "kernels.py"), *flags, *files], stdout=subprocess.DEVNULL, check=False)


def compile_with_torch(python: str, steps: list[list[str]], evaluation: list[str]) -> None:
    """Fills PyTorch's compilation cache by runs of all cases at once, which are not timed."""
    if not python:
        return
    cases = [*steps, [*evaluation, "--what=evaluation"]]
    cases = [[*case, *TORCH_VARIANTS[COMPILED], "--steps=1", "--warmup=1"] for case in cases]
    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
        list(pool.map(lambda case: run(python, "torch_peer.py", case), cases))


def memory_table(preset: list[str], found: list[Record]) -> None:
    """Prints peak memory and ms by precision and batch size, with and without the options that save memory."""
    print("\nmemory (batch per domain)", flush=True)
    for precision, batch in GPU_MEMORY:
        savers = {"": [], ", remat": ["--remat"], ", in 4 parts": ["--accumulate=4"]}
        for name, flags in savers.items():
            if "4" in name and batch % 4:
                continue
            case = [f"--precision={precision}", f"--batch={batch}", "--steps=15", "--warmup=3", *preset, *flags]
            record = run(sys.executable, "train_step.py", case)
            show(f"{precision}, {batch}+{batch}{name}", record, "peak_gib_allocator", "ms_queued", "images_per_s")
            found.append(record | {"variant": f"memory{name}"})


def pmap_over_jit(case: list[str], found: list[Record]) -> None:
    print("\npmap against jit on one device", flush=True)
    for name, flags in {"pmap": [], "jit": ["--jit"]}.items():
        record = run(sys.executable, "train_step.py", [*case, *flags])
        show(name, record, "ms_queued", "ms_synchronised")
        found.append(record | {"variant": name})


def starts(case: list[str], found: list[Record]) -> None:
    """Prints the time from the process's start to the end of its first step, with an empty and with a filled cache."""
    print("\nstart (compilation cache)", flush=True)
    folder = tempfile.mkdtemp()
    try:
        for name in ("cold", "warm"):
            once = ["--steps=1", "--warmup=0", f"--cache_dir={folder}"]
            record = run(sys.executable, "train_step.py", [*case, *once])
            show(name, record, "s_to_first_step", "s_of_which_step")
            found.append(record | {"variant": f"start {name}"})
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
