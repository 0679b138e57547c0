"""IDDA → CamVid by daylight: all methods from synthetic to real images, starting from a VGG-16 trained on ImageNet.

    python experiments/idda_to_camvid.py --idda_dir=IDDA --camvid_dir=CAMVID --init_weights=VGG16

IDDA holds train/ and val/ with images/ and labels/: frames of a simulator, the labelled source. CAMVID is described in
camvid.py; its daylight frames are the target, whose labels only the oracle row (target-supervised) reads. Scores are on
the 60 daylight frames day_val and on dusk_train. The last checkpoint counts; all rows have the same network, initial
weights, number of steps, batch size and schedule. --methods chooses rows, --seeds the seeds (default: three of the
main rows, two of the others).

Cost: --scale=cpu (full width, 160x120, 400 steps) is estimated at ten minutes per training run on two cores;
--scale=gpu (480x352, 4,000 steps, bfloat16) is for one H100. Neither has been run yet. Runs resume where they stopped.
--scale=smoke shows in a minute that everything runs; its numbers mean nothing.
"""

import argparse
import pathlib
from typing import Any

import camvid
import plots
import study

from sean_jax.methods import METHODS

IDDA = str(camvid.DATASETS / "idda_camvid11.toml")
SCORED = {"day_val": (camvid.DAY, "val"), "dusk_train": (camvid.DUSK, "train")}
MAIN = ("source_only", "sean", "oracle")  # rows with three seeds
SCALES: dict[str, dict[str, Any]] = {
    "cpu": {"width_multiplier": 1.0, "steps": 400, "learning_rate": 1e-4, "eval_every": 400, "save_every": 100},
    "gpu": {},
    "smoke": {},
}


def rows(chosen: list[str] | None) -> dict[str, study.Settings]:
    """A row for each method that segments, and the oracle; those of ``chosen``, if any."""
    found = {name: {"method": name} for name, method in METHODS.items() if method.SEGMENTS}
    found["oracle"] = {"method": "source_only", "source": camvid.DAY, "target": camvid.DUSK}
    return {name: settings for name, settings in found.items() if not chosen or name in chosen}


def settings_of(row: study.Settings, args: argparse.Namespace) -> study.Settings:
    """A row's settings; folders follow its data sets."""
    folders = {IDDA: args.idda_dir, camvid.DAY: args.camvid_dir, camvid.DUSK: args.camvid_dir}
    settings = {"source": IDDA, "target": camvid.DAY, **row}
    return settings | {f"{domain}_dir": folders[settings[domain]] for domain in ("source", "target")}


def main() -> None:
    parser = camvid.parser(
        __doc__ or "",
        idda_dir={"required": True, "help": "folder with train and val"},
        methods={"nargs": "+", "choices": list(rows(None)), "help": "rows; default: all"},
    )
    parser.set_defaults(seeds=None)
    args = parser.parse_args()
    runs = camvid.study(args, SCORED, **SCALES[args.scale])
    results: study.Results = {}
    for name, row in rows(args.methods).items():
        seeds = args.seeds or ([0, 1, 2] if name in MAIN else [0, 1])
        results |= runs.results({name: settings_of(row, args)}, seeds, {name: f"idda_to_day-{name}"})
    out = pathlib.Path(args.out or runs.runs / "results" / "idda_to_camvid")
    table = study.seeds_table(results, list(SCORED))
    table += "\n" + study.paired_rows(results, list(SCORED), [(row, "source_only") for row in results])
    study.write(out, table, study.small(results), scale=args.scale, protocol="all", settings=camvid.shown(runs))
    plots.dots(results, "day_val", out.with_suffix(".png"))


if __name__ == "__main__":
    study.run(main)
