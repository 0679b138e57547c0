"""Table 1: SYNTHIA → Cityscapes, 16 classes. All systems of the paper on one network, beside the paper's rows.

    python experiments/table1.py --source_dir=RAND_CITYSCAPES --cityscapes_dir=CITYSCAPES --init_weights=vgg16.pth

Runs whatever training is missing (seven systems or those of --methods, three seeds; `--preset reference` follows the
code of SEAN's authors, `--preset published` each system's own paper and network), scores on the 500 validation images
under protocol 16, with the mean over 13 classes beside it (protocol 13-of-16), and writes table1.md and table1.json. It
can be interrupted and rerun.

Cost: 56,000 steps per training run. By the step times on one H100 (bfloat16 11 ms, TF32 24 ms; benchmarks/README.md),
sean takes ten to twenty-five minutes, source_only less; three seeds of both take one and a half
to two hours. The other systems were not timed.
Expected: sean 36 to 38 (the authors' README and the paper). Nobody has run this command on the real data yet.
--scale=smoke runs everything on the bundled synthetic data set in a minute or two; its numbers mean nothing.
"""

import cityscapes
import paper
import study


def main() -> None:
    rows = cityscapes.PaperRows(paper.TABLE_1, paper.CLASSES_16, paper.CAVEATS_1)
    cityscapes.comparison("table1", "synthia", rows, __doc__ or "", also="13-of-16")


if __name__ == "__main__":
    study.run(main)
