"""Figure 4: the teacher's attention after 500 and after 1,500 steps. SYNTHIA → Cityscapes.

    python experiments/figure4.py --source_dir=RAND_CITYSCAPES --cityscapes_dir=CITYSCAPES --init_weights=vgg16.pth

Two training runs, of 500 and of 1,500 steps, whose first 500 are the same because the learning rate is constant. Writes
figure4.png: four images spread over the validation split, attention from blue (0) to red (1).

Cost: 2,000 steps, less than a minute on one H100 by the step times in benchmarks/README.md.
Expected: in the paper, attention is high on the road first, later on wider regions, and lowest on the sky. Nobody has
run this command on the real data yet.
--scale=smoke draws attention after two and four steps on the bundled synthetic data set.
"""

import pathlib

import cityscapes
import plots
import study

from sean_jax.scoring.visualize import heat_map


def main() -> None:
    args = cityscapes.parser(__doc__ or "").parse_args()
    trainings = cityscapes.study(args, "synthia")
    (preset, *_), (seed, *_), (scored, *_) = args.preset, args.seeds, trainings.scored
    columns, titles = [], ["input"]
    for steps in (2, 4) if args.scale == "smoke" else (500, 1500):
        workdir = trainings.train(f"sean-{preset}-{steps}_steps", seed, {"preset": preset, "steps": steps})
        scorer, params = trainings.open(workdir, scored)
        examples = scorer.sample(4)
        columns.append([heat_map(scorer.segment(params, example.image)[1]["attention"]) for example in examples])
        titles.append(f"attention, step {steps}")
    rows = list(zip([example.image for example in examples], *columns, strict=True))
    out = pathlib.Path(args.out or trainings.runs / "figure4").with_suffix(".png")
    plots.grid(rows, titles, out)


if __name__ == "__main__":
    study.run(main)
