"""Table 3: the consistency weight lambda, SYNTHIA → Cityscapes, 16 classes.

    python experiments/table3.py --source_dir=RAND_CITYSCAPES --cityscapes_dir=CITYSCAPES --init_weights=vgg16.pth

Runs whatever training is missing (five values, one seed unless --seeds is given; lambda 0.3 is table1.py's run), scores
as table1.py does, and writes table3.md and table3.json. It can be interrupted and rerun.

Cost: five training runs of 56,000 steps: one to two hours on one H100 by the step times in benchmarks/README.md.
Expected: the paper's best is 37.5 at 0.3, and weights above 1 cost 13 points and more. Nobody has run this command
on the real data yet.
--scale=smoke runs two of the values on the bundled synthetic data set; its numbers mean nothing.
"""

import cityscapes
import paper
import study


def main() -> None:
    cityscapes.sweep("table3", "consistency_weight", "lambda", paper.TABLE_3, __doc__ or "")


if __name__ == "__main__":
    study.run(main)
