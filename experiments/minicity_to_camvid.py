"""minicity → CamVid by daylight: from synthetic to real images, as in the paper.

    python experiments/minicity_to_camvid.py --camvid_dir=CAMVID

The source is the bundled data set minicity_game (300 synthetic scenes, labels in CamVid's 11 classes). The target is
the 517 daylight frames of CamVid, whose labels only the oracle row (target-supervised) reads: it is `source_only` of
camvid_day_to_dusk.py, the same budget on the target's own labels. Scores are on the 60 daylight frames day_val and on
dusk_train. (day_val lies between the frames of day_train, so it is optimistic for methods that trained on those, with
or without labels.) Settings and scales are those of camvid.py; learning rate and schedule were chosen for CamVid by
daylight, not for minicity. The last checkpoint counts.

Cost: --scale=cpu (width multiplier 1/8, 160x120) takes two to three minutes per training run on two cores, 12 runs;
--scale=gpu (full network, 480x352, bfloat16) is for one H100 and has not been run.
Expected: every method is far below the oracle row. experiments/README.md has the measured table.
"""

import pathlib

import camvid
import camvid_day_to_dusk as day_to_dusk
import plots
import study

SCORED = {"day_val": (camvid.DAY, "val"), "dusk_train": (camvid.DUSK, "train")}
ORACLE = day_to_dusk.SOURCE_ONLY | {"source": camvid.DAY, "target": camvid.DUSK}
ROWS: dict[str, study.Settings] = {
    "source_only": day_to_dusk.SOURCE_ONLY,
    "sean": {},
    "source_only, reference": day_to_dusk.SOURCE_ONLY | {"preset": "reference"},
    "sean, reference": {"preset": "reference"},
    "oracle": ORACLE,
}


def main() -> None:
    args = camvid.parser(__doc__ or "").parse_args()
    trainings = camvid.study(args, SCORED)
    drawn = {"source": "minicity_game", "source_dir": None, "target": camvid.DAY}
    rows = {row: {**drawn, **settings} if row != "oracle" else settings for row, settings in ROWS.items()}
    if args.scale == "smoke":
        rows = {row: rows[row] for row in day_to_dusk.SMOKE_ROWS if row in rows}
    names = {row: "minicity_to_day-" + row.replace(", ", "-") for row in rows}
    names["oracle"] = day_to_dusk.training("source_only")
    results = trainings.results(rows, args.seeds, names)
    out = pathlib.Path(args.out or trainings.runs / "results" / "minicity_to_camvid")
    table = study.seeds_table(results, list(SCORED))
    table += "\n" + study.paired_rows(results, list(SCORED), day_to_dusk.PAIRS)
    study.write(out, table, study.small(results), scale=args.scale, protocol="all", settings=camvid.shown(trainings))
    plots.dots(results, "day_val", out.with_suffix(".png"))


if __name__ == "__main__":
    study.run(main)
