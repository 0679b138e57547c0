"""IDDA → CamVid by daylight: all methods from synthetic to real images, starting from a VGG-16 trained on ImageNet.

    python experiments/idda_to_camvid.py --idda_dir=IDDA --camvid_dir=CAMVID --init_weights=VGG16

IDDA holds train/ and val/ with images/ and labels/: frames of a simulator, the labelled source. CAMVID is described in
camvid.py; its daylight frames are the target, whose labels only the oracle row (target-supervised) reads. Scores are on
the 60 daylight frames day_val and on dusk_train. Training has two phases: source_only from ImageNet weights, once per
seed (--start_steps), then each row from there. So all methods adapt the same network, as most of their papers do, and
all rows have the same number of steps, batch size and schedule. The last checkpoint counts. --part=NAME runs one of
the parts:

  methods    a row for each method, the preset best, and the oracle
  diagnosis  SEAN with other thresholds, weights, noise and presets, and source_only with SEAN's noise
  ablation   what the parts of the preset best are worth
  source     how noise and learning rate were chosen: source_only from ImageNet, scored on the source's own split val

--rows chooses rows, --seeds the seeds (default: three of the main rows, two of the others).

Cost: --scale=cpu (full width, squares of 320x240, 400 + 200 steps) takes half an hour per seed for the main rows on two
cores of an Intel Xeon; --scale=gpu (480x352, 4,000 steps per phase, bfloat16) is for one H100. Runs resume where they
stopped.
--scale=smoke shows in a minute that everything runs; its numbers mean nothing.
"""

import argparse
import functools
import pathlib
from typing import Any

import camvid
import plots
import study

from sean_jax.methods import METHODS

IDDA = str(camvid.DATASETS / "idda_camvid11.toml")
SCORED = {"day_val": (camvid.DAY, "val"), "dusk_train": (camvid.DUSK, "train")}
SCALES: dict[str, dict[str, Any]] = {
    # Trained on squares, scored on whole images. Schedules of adversaries are shares of the run, as in --preset=quick:
    # their own are for 10,000 steps and more.
    "cpu": {
        "width_multiplier": 1.0, "height": 240, "width": 320, "crop_size": 128, "steps": 200, "learning_rate": 3e-5,
        "eval_every": 400, "save_every": 100, "confusion_ramp_steps": 120.0, "class_alignment_start": 66.0,
    },
    "gpu": {},
    "smoke": {},
}  # fmt: skip
START_STEPS = {"cpu": 400, "gpu": 4000, "smoke": 4}
QUIET = {"noise_std": 0.0}
NOISY = {"noise_std": 25.5}  # the paper's, on both domains
TARGET_NOISE = NOISY | {"noise_domains": "target"}
FAST_HEADS = {"head_learning_rate_factor": 10.0}
SOURCE_ONLY = {"method": "source_only"} | QUIET
RARE_CLASSES = {"source_sampling": "rare_classes"}
DACS = {"method": "dacs"}
BEST = DACS | {"preset": "best"}
ADJUSTED = {"logit_adjustment": 1.0}
RATES = (1e-5, 3e-5, 1e-4, 3e-4)
ORACLE = SOURCE_ONLY | {"source": camvid.DAY, "target": camvid.DUSK}
PARTS: dict[str, dict[str, study.Settings]] = {
    "methods": {
        **{name: {"method": name} | QUIET for name, method in METHODS.items() if method.SEGMENTS},
        # From a trained network, CyCADA only aligns features: a CycleGAN of so few steps would translate nothing. With
        # class scores, its discriminator would not allow an update of the network.
        "cycada": {"method": "cycada", "discriminator_input": "features"} | QUIET,
        "source_only, noise": SOURCE_ONLY | NOISY,
        "sean": NOISY,
        "sean, no noise": QUIET,
        "best": BEST,
        "oracle": ORACLE,
    },
    "diagnosis": {
        "source_only": SOURCE_ONLY,
        "source_only, noise": SOURCE_ONLY | NOISY,
        "sean": NOISY,
        "sean, no noise": QUIET,
        "sean, noise on the target": TARGET_NOISE,
        "sean, reference": {"preset": "reference"},
        **{f"sean, tau {tau:g}": NOISY | {"attention_threshold": tau} for tau in (0.0, 0.1, 0.5, 0.7)},
        **{f"sean, lambda {weight:g}": NOISY | {"consistency_weight": weight} for weight in (3.0, 30.0, 300.0)},
        "sean, tau 0, lambda 30": NOISY | {"attention_threshold": 0.0, "consistency_weight": 30.0},
        **{
            f"sean, noise on the target, tau 0, lambda {weight:g}": TARGET_NOISE
            | {"attention_threshold": 0.0, "consistency_weight": weight}
            for weight in (30.0, 300.0)
        },
    },
    "ablation": {
        "source_only": SOURCE_ONLY,
        "source_only, rare classes": SOURCE_ONLY | RARE_CLASSES,
        "source_only, logit adjustment": SOURCE_ONLY | ADJUSTED,
        "sean, logit adjustment": NOISY | ADJUSTED,
        "dacs": DACS,
        "dacs, logit adjustment": DACS | ADJUSTED,
        "oracle": ORACLE,
        "oracle, logit adjustment": ORACLE | ADJUSTED,
        "best": BEST,
        "best, no logit adjustment": BEST | {"logit_adjustment": 0.0},
        "best, target not used": BEST | {"mixed_weight": 0.0},
        "best, no Fourier adaptation": BEST | {"fourier_adaptation": False},
        "best, source colours kept": BEST | {"photometric_source": False},
        "best, uniform source": BEST | {"source_sampling": "uniform"},
        "best, attention mask": BEST | {"attention_threshold": 0.3},
        "best, every pseudo-label": BEST | {"confidence_threshold": 0.0},
        "sac": {"method": "sac"},
        "sac, rare classes": {"method": "sac"} | RARE_CLASSES,
    },
    "source": {
        "noise, rate 0.0001": SOURCE_ONLY | NOISY | {"learning_rate": 1e-4},
        **{f"rate {rate:g}": SOURCE_ONLY | {"learning_rate": rate} for rate in RATES},
        **{f"rate {rate:g}, heads 10": SOURCE_ONLY | {"learning_rate": rate} | FAST_HEADS for rate in RATES[:2]},
    },
}
MAIN = ("source_only", "sean", "best", "oracle")  # rows with three seeds

PICTURE = {"source_only": "source only", "sean": "SEAN", "best": "preset best"}  # row → title of its column


def settings_of(row: study.Settings, args: argparse.Namespace) -> study.Settings:
    """A row's settings; folders follow its data sets."""
    folders = {IDDA: args.idda_dir, camvid.DAY: args.camvid_dir, camvid.DUSK: args.camvid_dir}
    settings = {"source": IDDA, "target": camvid.DAY, **row}
    return settings | {f"{domain}_dir": folders[settings[domain]] for domain in ("source", "target")}


def train_start(runs: study.Study, args: argparse.Namespace, seed: int) -> str:
    """The run directory of the network that all rows of a seed start from."""
    return str(runs.train("idda-start", seed, settings_of(SOURCE_ONLY | {"steps": args.start_steps}, args)))


def training(row: str) -> str:
    """The name of a row's training run; parts share the rows of the same name."""
    return "idda_to_day-" + row.replace(", ", "-").replace(" ", "_")


def main() -> None:
    every_row = dict.fromkeys(row for rows in PARTS.values() for row in rows)
    parser = camvid.parser(
        __doc__ or "",
        idda_dir={"required": True, "help": "folder with train and val"},
        part={"nargs": "+", "choices": list(PARTS), "default": ["methods"], "help": "default: methods"},
        start_steps={"type": int, "help": f"steps of the first phase; default: {START_STEPS}"},
        rows={"nargs": "+", "choices": list(every_row), "metavar": "ROW", "help": "default: all of the part"},
    )
    parser.set_defaults(seeds=None)
    args = parser.parse_args()
    args.start_steps = args.start_steps or START_STEPS[args.scale]
    runs = camvid.study(args, SCORED, **SCALES[args.scale])
    start = functools.cache(lambda seed: train_start(runs, args, seed))
    for part in args.part:
        if part == "source":
            choose_on_source(runs, args)
            continue
        results: study.Results = {}
        for name, row in PARTS[part].items():
            if args.rows and name not in args.rows:
                continue
            results[name] = {}
            for seed in args.seeds or ([0, 1, 2] if name in MAIN else [0, 1]):
                settings = {**settings_of(row, args), "init_weights": start(seed)}
                results[name][seed] = runs.result(training(name), seed, settings)
        out = pathlib.Path(args.out or runs.runs / "results" / f"idda_to_camvid_{part}")
        table = study.seeds_table(results, list(SCORED))
        pairs = [(row, "source_only") for row in results if row != "source_only"]
        table += "\n" + study.paired_rows(results, list(SCORED), pairs)
        if {"source_only", "oracle"} <= set(results):
            table += "\n\n" + study.gap_table(results, "day_val")
        settings = camvid.shown(runs) | {"start_steps": args.start_steps}
        study.write(out, table, study.small(results), scale=args.scale, protocol="all", settings=settings)
        plots.dots(results, "day_val", out.with_suffix(".png"))
        if set(PICTURE) <= set(results):
            columns = {title: runs.workdir(training(row), min(results[row])) for row, title in PICTURE.items()}
            plots.predictions(runs, columns, "day_val", out.with_name(f"{out.name}_predictions.webp"))


def choose_on_source(trainings: study.Study, args: argparse.Namespace) -> None:
    """Scores the rows of the part ``source`` on held-out source images, one seed; reads no image of the target."""
    scored = {"idda_val": {"dataset": IDDA, "split": "val", "dataset_dir": args.idda_dir}}
    source = study.Study(trainings.runs, trainings.settings, scored)
    chosen = {row: settings for row, settings in PARTS["source"].items() if not args.rows or row in args.rows}
    common = {"steps": args.start_steps, "eval_split": "none"}
    rows = {row: {**settings_of(settings, args), **common} for row, settings in chosen.items()}
    results = source.results(rows, args.seeds or [0], {row: training(row) for row in rows})
    out = pathlib.Path(args.out or source.runs / "results" / "idda_to_camvid_source")
    study.write(out, study.seeds_table(results, list(scored)), study.small(results), settings=camvid.shown(source))


if __name__ == "__main__":
    study.run(main)
