"""minicity_game → minicity_camera: all methods on the bundled synthetic data set, with a thin network.

    python experiments/minicity.py

Needs no download. All rows have the same network (width multiplier 1/4, from scratch), image size (192x96), batch size
and schedule, and 600 steps (cycada 200) after the stages that the method needs: those of `--preset=quick`. The oracle
row trains on labels of the target (target-supervised). Scores are on the target's test split; the last checkpoint
counts. --methods chooses rows.

With --start_steps=N, source_only trains for N steps without noise first, once per seed, and each row goes on from
there at a third of the learning rate. The start gets a row of its own, with its score on the source's test split.

Cost: about 40 minutes per seed on two cores of an Intel Xeon; 12 minutes more for a start of 5,000 steps. One seed
unless --seeds is given.
--scale=smoke shows in a minute that everything runs; its numbers mean nothing.
"""

import pathlib

import cityscapes
import plots
import study

from sean_jax.methods import METHODS

SCORED = {
    "minicity_camera": {"dataset": "minicity_camera", "split": "test"},
    "minicity_game": {"dataset": "minicity_game", "split": "test"},
}
SETTINGS = {"quick": {"preset": "quick"}, "smoke": cityscapes.SMOKE}
START: study.Settings = {"method": "source_only", "noise_std": 0.0}
AFTER_START = {"learning_rate": 1e-4}
BEST = {**METHODS["dacs"].PRESETS["best"], "method": "dacs", "source_sampling": "rare_classes"}
ROWS: dict[str, study.Settings] = {
    **{name: {"method": name} for name, method in METHODS.items() if method.SEGMENTS},
    "source_only, no noise": {"method": "source_only", "noise_std": 0.0},
    "best": BEST,
    "oracle": {"method": "source_only", "source": "minicity_camera", "target": "minicity_camera"},
}


def main() -> None:
    parser = study.arguments(
        __doc__ or "",
        SETTINGS,
        methods={"nargs": "+", "choices": list(ROWS)},
        start_steps={"type": int, "default": 0, "help": "steps of source_only before each row; default: none"},
    )
    parser.set_defaults(seeds=[0])
    args = parser.parse_args()
    common = {"data_dir": args.data_dir, "loader": args.loader, "precision": args.precision}
    common |= study.parse_settings(args.settings)
    folder = pathlib.Path(args.runs) / "minicity" / args.scale
    if args.start_steps:
        folder /= f"start_{args.start_steps}"
    runs = study.Study(folder, SETTINGS[args.scale] | common, SCORED)
    start = {**START, "steps": args.start_steps} if args.start_steps else None
    after_start = AFTER_START if start else {}
    rows = {name: {**after_start, **ROWS[name]} for name in args.methods or ROWS}
    results = runs.results(rows, args.seeds, {}, start)
    if start:
        results = {"start": {seed: runs.result("start", seed, start) for seed in args.seeds}, **results}
    out = pathlib.Path(args.out or runs.runs / "results" / "minicity")
    table = study.seeds_table(results, list(SCORED))
    pairs = [(row, "source_only") for row in rows if row != "source_only"]
    table += "\n" + study.paired_rows(results, list(SCORED), pairs)
    if {"source_only", "oracle"} <= set(rows):
        table += "\n\n" + study.gap_table(results, "minicity_camera")
    study.write(out, table, study.small(results), scale=args.scale, protocol="all", settings=args.settings)
    plots.dots(results, "minicity_camera", out.with_suffix(".png"))


if __name__ == "__main__":
    study.run(main)
