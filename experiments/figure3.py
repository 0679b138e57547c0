"""Figure 3: input, ground truth, without adaptation, adapted (Figure 1 is its first row). GTA-5 → Cityscapes.

    python experiments/figure3.py --source_dir=GTA5 --cityscapes_dir=CITYSCAPES --init_weights=vgg16.pth

Uses the teachers of table2.py's runs (the first of --seeds), which are trained if they are missing. Writes
figure3.png: four images spread over the validation split.

Cost: almost nothing after table2.py; otherwise two training runs of 150,000 steps, one to two hours on one H100 by a
prototype's step times.
Expected: adaptation repairs road and sidewalk. Nobody has run this command on the real data yet.
--scale=smoke draws predictions of networks that have learned nothing, on the bundled synthetic data set.
"""

import pathlib

import cityscapes
import plots
import study

from sean_jax.scoring.scorer import truth_of
from sean_jax.scoring.visualize import colorize


def main() -> None:
    args = cityscapes.parser(__doc__ or "").parse_args()
    trainings = cityscapes.study(args, "gta5")
    (preset, *_), (seed, *_), (scored, *_) = args.preset, args.seeds, trainings.scored
    columns = []
    for row, settings in cityscapes.methods([preset], ["source_only", "sean"]).items():
        scorer, params = trainings.open(trainings.train(cityscapes.training(row), seed, settings), scored)
        examples = scorer.sample(4)
        columns.append([colorize(scorer.segment(params, e.image)[0], scorer.palette) for e in examples])
        truth = [colorize(truth_of(example), scorer.palette) for example in examples]
    rows = list(zip([example.image for example in examples], truth, *columns, strict=True))
    out = pathlib.Path(args.out or trainings.runs / "figure3").with_suffix(".png")
    plots.grid(rows, ["input", "ground truth", "without adaptation", "adapted"], out)


if __name__ == "__main__":
    study.run(main)
