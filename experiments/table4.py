"""Table 4: the attention threshold tau, SYNTHIA → Cityscapes, 16 classes.

    python experiments/table4.py --source_dir=RAND_CITYSCAPES --cityscapes_dir=CITYSCAPES --init_weights=vgg16.pth

Runs whatever training is missing (five values, one seed unless --seeds is given; tau 0.3 is table1.py's run), scores
as table1.py does, and writes table4.md and table4.json. It can be interrupted and rerun.

Cost: five training runs of 56,000 steps: one to two hours on one H100 by the step times in benchmarks/README.md.
Expected: the paper's best is 37.5 at 0.3; thresholds of 0.5 and 0.7 cost six points. Nobody has run this command
on the real data yet.
--scale=smoke runs two of the values on the bundled synthetic data set; its numbers mean nothing.
"""

import cityscapes
import paper
import study


def main() -> None:
    cityscapes.sweep("table4", "attention_threshold", "tau", paper.TABLE_4, __doc__ or "")


if __name__ == "__main__":
    study.run(main)
