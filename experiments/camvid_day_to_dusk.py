"""CamVid, daylight → dusk, real images: SEAN against source-only of the same network, with sweeps and ablations.

    python experiments/camvid_day_to_dusk.py --camvid_dir=CAMVID

camvid.py describes CAMVID. Dusk labels are used for scoring only, except by the oracle row (target-supervised), which
trains on those of the sequence's first half (31 frames) and is scored on the second half, as every method is. The last
checkpoint counts. All runs have the same number of steps, initialisation and EMA. --part=NAME runs one of the parts,
each of which can be interrupted and rerun:

  methods              source_only and sean with the paper's and the authors' settings, the preset best, the oracle row
  consistency_weight   the paper's Table 3 on these images: lambda
  attention_threshold  Table 4: tau
  diagnosis            ablations: mask, attention module, consistency loss, noise, EMA decay
  precision            sean in float32 and in bfloat16 (at a scale whose own precision is float32)
  learning_rate        how the learning rate was chosen, by daylight validation of source_only; not run by default

`methods` uses seeds 0, 1 and 2, the others seed 0, unless --seeds is given. With --start_steps=N, source_only trains
for N steps first, once per seed, and each row goes on from there.

Cost: --scale=cpu (width multiplier 1/8, 160x120) takes two to four minutes per training run on one core, 27 runs;
--scale=gpu (full network, 480x352, bfloat16) is for one H100 and has not been run.
Expected: no clear gain. experiments/README.md has the measured tables and conclusions.
"""

import dataclasses
import pathlib

import camvid
import plots
import study

SCORED = {
    "dusk_train": (camvid.DUSK, "train"),
    "dusk second half": (camvid.DUSK, "second_half"),
    "day_val": (camvid.DAY, "val"),
}
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)

SOURCE_ONLY = {"method": "source_only"}
METHODS: dict[str, study.Settings] = {
    "source_only": SOURCE_ONLY,
    "sean": {},
    "best": {"method": "dacs", "preset": "best"},
    "source_only, reference": SOURCE_ONLY | {"preset": "reference"},
    "sean, reference": {"preset": "reference"},
    "oracle": SOURCE_ONLY | {"source": camvid.DUSK, "source_split": "first_half"},
}
DIAGNOSIS: dict[str, study.Settings] = {
    "no consistency loss": SOURCE_ONLY,  # its gradients are those of source_only
    "no mask (tau 0)": {"attention_threshold": 0.0},
    "no attention module": {"attention": False},
    "no noise": {"noise_std": 0.0},
    "noise doubled": {"noise_std": 51.0},
    "alpha 0.9": {"ema_decay": 0.9},  # the ramp stays below 0.99 for 990 steps
}
# Rows whose training run belongs to another part: same settings, same run directory.
SAME = {
    **dict.fromkeys(("lambda 0.3", "tau 0.3", "float32"), "sean"),
    **{"no consistency loss": "source_only", "no mask (tau 0)": "tau 0"},
}
PARTS: dict[str, dict[str, study.Settings]] = {
    "methods": METHODS,
    "consistency_weight": {f"lambda {value:g}": {"consistency_weight": value} for value in WEIGHTS},
    "attention_threshold": {f"tau {value:g}": {"attention_threshold": value} for value in THRESHOLDS},
    "diagnosis": {"sean": {}} | DIAGNOSIS,
    "precision": {"float32": {}, "bfloat16": {"precision": "bfloat16"}},
}
# Rows that suffice at smoke scale.
SMOKE_ROWS = (
    *("source_only", "sean", "oracle"),
    *("lambda 0.1", "lambda 0.3", "tau 0", "tau 0.3", "no attention module"),
)
# Gain of adaptation: differences to the same network without it, seed by seed.
PAIRS = [("sean", "source_only"), ("best", "source_only"), ("sean, reference", "source_only, reference")]
# The oracle trained on images of dusk_train, so it gets no score there.
SEEN = {"oracle": ["dusk_train"]}


def training(row: str) -> str:
    """The name of a row's training run."""
    return "day_to_dusk-" + SAME.get(row, row).replace(", ", "-").replace(" ", "_")


def main() -> None:
    parts = {"choices": (*PARTS, "learning_rate"), "action": "append", "help": "default: everything, in this order"}
    every_row = dict.fromkeys(row for rows in PARTS.values() for row in rows)
    rows_flag = {"nargs": "+", "choices": list(every_row), "metavar": "ROW", "help": "default: all of the part"}
    start_flag = {"type": int, "default": 0, "help": "steps of source_only before each row; default: none"}
    parser = camvid.parser(__doc__ or "", part=parts, rows=rows_flag, start_steps=start_flag)
    parser.set_defaults(seeds=None)
    args = parser.parse_args()
    trainings = camvid.study(args, SCORED, source=camvid.DAY, target=camvid.DUSK)
    start = None
    if args.start_steps:
        start = SOURCE_ONLY | {"steps": args.start_steps}
        trainings = dataclasses.replace(trainings, runs=trainings.runs / f"start_{args.start_steps}")
    out = pathlib.Path(args.out or trainings.runs / "results" / "day_to_dusk")
    for part in args.part or PARTS:
        if part == "learning_rate":
            choose_learning_rate(trainings)
            continue
        rows = PARTS[part]
        if args.scale == "smoke":
            rows = {row: rows[row] for row in SMOKE_ROWS if row in rows}
        if args.rows:
            rows = {row: rows[row] for row in args.rows if row in rows}
        if not rows:
            continue
        seeds = args.seeds or ([0, 1, 2] if part == "methods" else [0])
        results = trainings.results(rows, seeds, {row: training(row) for row in rows}, start)
        file = out.with_name(f"{out.name}_{part}")
        table = study.seeds_table(results, list(SCORED), SEEN)
        if part == "methods":
            table += "\n" + study.paired_rows(results, list(SCORED), PAIRS)
        settings = camvid.shown(trainings) | {"start_steps": args.start_steps}
        study.write(file, table, study.small(results), scale=args.scale, protocol="all", settings=settings)
        plots.dots(results, "dusk second half", file.with_suffix(".png"))


def choose_learning_rate(trainings: study.Study) -> None:
    """Scores `source_only` on daylight validation by learning rate, one seed; reads no dusk image."""
    scored = {"day_val": trainings.scored["day_val"]}
    day = study.Study(trainings.runs, {**trainings.settings, "target": camvid.DAY}, scored)
    rows = {f"learning rate {rate:g}": SOURCE_ONLY | {"learning_rate": rate} for rate in RATES}
    results = day.results(rows, [0], {row: row.replace(" ", "_") for row in rows})
    study.write(
        trainings.runs / "results" / "learning_rate", study.seeds_table(results, ["day_val"]), study.small(results)
    )


if __name__ == "__main__":
    study.run(main)
