"""Table 2: GTA-5 → Cityscapes, 19 classes. All systems of the paper on one network, beside the paper's rows.

    python experiments/table2.py --source_dir=GTA5 --cityscapes_dir=CITYSCAPES --init_weights=vgg16.pth

Runs whatever training is missing (seven systems or those of --methods, three seeds; `--preset reference` follows the
code of SEAN's authors, `--preset published` each system's own paper and network), scores on the 500 validation images
under protocol 19, and writes table2.md and table2.json. It can be interrupted and rerun.

Cost: 150,000 steps per training run. By the step times on one H100 (bfloat16 11 ms, TF32 24 ms; benchmarks/README.md),
sean takes half an hour to an hour, source_only less; three seeds of both take four to six
hours. The other systems were not timed.
Expected: sean 34 to 36, source_only about 33 (the authors' README and a user of their code): a gain of one to three
points, not the 14 points over the paper's NoAdapt row. Nobody has run this command on the real data yet.
--scale=smoke runs everything on the bundled synthetic data set in a minute or two; its numbers mean nothing.
"""

import cityscapes
import paper
import study


def main() -> None:
    rows = cityscapes.PaperRows(paper.TABLE_2, paper.CLASSES_19, paper.CAVEATS_2)
    cityscapes.comparison("table2", "gta5", rows, __doc__ or "")


if __name__ == "__main__":
    study.run(main)
