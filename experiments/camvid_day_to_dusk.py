"""CamVid, daylight → dusk, on real images: SEAN against the same network trained on daylight alone.

    python experiments/camvid_day_to_dusk.py --camvid_dir=CAMVID --scale=cpu

CAMVID holds day_train, day_val and dusk_train, each with images/ and labels/ (experiments/datasets/camvid_*.toml
describe them): 517 labelled daylight frames, 60 of the same drives, and 62 dusk frames of one other drive. The dusk
labels are used for scoring only; no training step and no choice of a checkpoint reads them (--selection=last).

Both methods get the same steps, seeds, initialisation, schedule and moving average. The network is trained from
scratch, so learning rate and schedule are not the paper's; they were chosen by the daylight validation score of
`source_only` (--probe_learning_rates repeats that). Whatever else differs from the paper is in SETTINGS below.

Cost: --scale=cpu (thinned network, 160x120) about 45 minutes on two cores; --scale=gpu (full network, 480x352, bf16)
is meant for one H100 and was not run yet. Interrupted, it goes on where it stopped.
Expected: no clear gain from adaptation. From scratch the gap between the two looks is far larger than what
self-ensembling bridges; the measured table stands in experiments/README.md.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
SETTINGS = {
    "source": str(HERE / "datasets" / "camvid_day.toml"),
    "target": str(HERE / "datasets" / "camvid_dusk.toml"),
    "batch_size": "2",
    "learning_rate_schedule": "cosine",
    "random_flip": "true",
    "ema_ramp": "true",
}
SCALES = {
    "cpu": {
        "width_multiplier": "0.25", "height": "120", "width": "160", "steps": "1500", "learning_rate": "1e-4",
        "precision": "float32", "log_every": "50", "eval_every": "500", "save_every": "200", "eval_batch_size": "4",
    },
    "gpu": {
        "height": "352", "width": "480", "steps": "4000", "learning_rate": "1e-4", "precision": "bfloat16",
        "log_every": "50", "eval_every": "1000", "save_every": "500", "eval_batch_size": "4", "loader": "grain",
    },
    "smoke": {
        "width_multiplier": "0.05", "height": "40", "width": "48", "steps": "4", "learning_rate": "3e-4",
        "log_every": "2", "eval_every": "4", "save_every": "4",
    },
}  # fmt: skip
METHODS = ("source_only", "sean")
# Scored on: name → (description, split). Daylight validation frames lie between training frames: optimistic.
SCORED = {"dusk_train": ("camvid_dusk.toml", "train"), "day_val": ("camvid_day.toml", "val")}


def run(module: str, settings: dict[str, str]) -> None:
    command = [sys.executable, "-m", f"sean_jax.{module}", *(f"--{name}={value}" for name, value in settings.items())]
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


def train_and_score(method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Mean and per-class IoU in percent by scored set and network, and the last share of kept pixels."""
    workdir = pathlib.Path(args.runs) / f"{args.scale}-{method}-seed{seed}"
    places = {"source_dir": args.camvid_dir, "target_dir": args.camvid_dir}
    identity = {"workdir": str(workdir), "method": method, "seed": str(seed)}
    run("train", identity | SETTINGS | SCALES[args.scale] | places)
    scores: dict[str, Any] = {}
    for name, (description, split) in SCORED.items():
        scores[name] = {}
        for network in ("student", "teacher"):
            out = workdir / f"{name}-{network}.json"
            if not out.exists():
                dataset = {"dataset": str(HERE / "datasets" / description), "dataset_dir": args.camvid_dir}
                what = {"workdir": str(workdir), "network": network, "split": split, "out": str(out)}
                run("evaluate", what | dataset)
            found = json.loads(out.read_text())
            scores[name][network] = {"mean_iou": found["mean_iou"], "iou": found["iou"]}
    kept = [line.get("train/kept_pixels") for line in map(json.loads, (workdir / "metrics.jsonl").open())]
    return scores | {"kept_pixels": next((share for share in reversed(kept) if share is not None), None)}


def probe_learning_rates(args: argparse.Namespace) -> None:
    """Daylight validation score of `source_only` by learning rate: the source's labels only."""
    for rate in ("1e-4", "3e-4", "1e-3"):
        settings = SETTINGS | SCALES[args.scale] | {"target": SETTINGS["source"], "eval_split": "val"}
        settings |= {"method": "source_only", "learning_rate": rate, "steps": "600", "eval_every": "300"}
        settings |= {"source_dir": args.camvid_dir, "target_dir": args.camvid_dir}
        run("train", settings | {"workdir": str(pathlib.Path(args.runs) / f"{args.scale}-probe-{rate}")})


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: mean ± sample standard deviation over seeds, and every seed's score."""
    lines = ["| method | network | " + " | ".join(SCORED) + " |", "| --- | --- |" + " --- |" * len(SCORED)]
    for method, seeds in results.items():
        for network in ("student", "teacher"):
            cells = []
            for name in SCORED:
                values = [seeds[seed][name][network]["mean_iou"] for seed in seeds]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread} ({', '.join(f'{v:.1f}' for v in values)})")
            lines.append(f"| {method} | {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def hardware(device: Any) -> str:
    if device.platform != "cpu":
        return device.device_kind
    models = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{models[0].partition(':')[2].strip()}, {len(models)} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid_dir", required=True)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--runs", default="runs/camvid_day_to_dusk")
    parser.add_argument(
        "--out", default="runs/camvid_day_to_dusk/result", help="path of the .json and .md without ending"
    )
    parser.add_argument("--probe_learning_rates", action="store_true")
    args = parser.parse_args()
    if args.probe_learning_rates:
        return probe_learning_rates(args)

    # Seed by seed, so that an early stop leaves complete comparisons.
    results: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
    for seed in args.seeds:
        for method in METHODS:
            results[method][str(seed)] = train_and_score(method, seed, args)
    import jax

    record = {
        "protocol": "all (mean over 11 classes), last checkpoint",
        "scale": args.scale,
        "settings": SETTINGS | SCALES[args.scale] | {k: pathlib.Path(SETTINGS[k]).name for k in ("source", "target")},
        "hardware": hardware(jax.devices()[0]),
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "results": results,
    }
    out = pathlib.Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    out.with_suffix(".md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
