"""Figure 3: input, ground truth, without adaptation, adapted (Figure 1 is its first row). GTA-5 → Cityscapes.

    python experiments/figure3.py --source_dir=GTA5 --cityscapes_dir=CITYSCAPES --init_weights=vgg16.pth

Uses the teachers of table2.py's runs (the first of --seeds), which are trained if they are missing. Writes
figure3.png: four images spread over the validation split.

Cost: almost nothing after table2.py; otherwise two training runs of 150,000 steps, one to two hours on one H100 by
the step times in benchmarks/README.md.
Expected: adaptation repairs road and sidewalk. Nobody has run this command on the real data yet.
--scale=smoke draws predictions of networks that have learned nothing, on the bundled synthetic data set.
"""

import pathlib

import cityscapes
import plots
import study


def main() -> None:
    args = cityscapes.parser(__doc__ or "").parse_args()
    trainings = cityscapes.study(args, "gta5")
    (preset, *_), (seed, *_), (scored, *_) = args.preset, args.seeds, trainings.scored
    titles = {"source_only": "without adaptation", "sean": "adapted"}
    runs = {
        titles[settings["method"]]: trainings.train(cityscapes.training(row), seed, settings)
        for row, settings in cityscapes.methods([preset], list(titles)).items()
    }
    plots.predictions(trainings, runs, scored, pathlib.Path(args.out or trainings.runs / "figure3").with_suffix(".png"))


if __name__ == "__main__":
    study.run(main)
