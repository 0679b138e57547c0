"""Does SEAN's attention tell where the network is right? Diagnosis of finished runs, with labels of the target.

    python experiments/attention.py --workdir runs/camvid/cpu/idda_to_day-sean-seed0

For each run, over the target's labelled evaluation split: the share of pixels in the consistency mask, the accuracy
of the network that counts inside and outside it, and the area under the ROC curve (AUROC) of attention and of
confidence (the largest class probability) as predictors of right against wrong pixels: 0.5 is chance, 1 is perfect.
The last two columns show whether attention follows the image or its border: its mean in the outer eighth of the image
on each side, and elsewhere. Labels are used for this diagnosis only.

Cost: less than a minute per run on two cores, for 60 images of 128x96 at full width.
"""

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import study
from scipy.stats import mannwhitneyu

from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.ops.resize import resize_bilinear, resize_map
from sean_jax.run.score import open_scorer
from sean_jax.run.trained import open_network
from sean_jax.scoring.scorer import truth_of

COLUMNS = ("run", "mask", "right inside", "right outside", "AUROC attention", "AUROC confidence", "border", "elsewhere")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", nargs="+", required=True, help="run directories")
    parser.add_argument("--threshold", type=float, default=0.3, help="attention above it is in the mask")
    parser.add_argument("--data_dir", help="prepared data; default: $SEAN_JAX_DATA_DIR or ~/sean_jax_data")
    args = parser.parse_args()
    print(" | ".join(["| " + COLUMNS[0], *COLUMNS[1:]]) + " |\n" + "| --- " * len(COLUMNS) + "|")
    for workdir in args.workdir:
        cells = [f"{value:.2f}" for value in diagnose(workdir, args.threshold, args.data_dir)]
        print(" | ".join([f"| {pathlib.Path(workdir).name}", *cells]) + " |", flush=True)


def diagnose(workdir: str, threshold: float, data_dir: str | None) -> list[float]:
    """The numbers of a run, in the order of ``COLUMNS``."""
    opened = open_network(workdir)
    scorer = open_scorer(opened, data_dir=data_dir)
    network = opened.experiment.network()

    @jax.jit
    def predict(params: Any, image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Classes, confidence and attention of an image, at its size."""
        size = image.shape[0], image.shape[1]
        prediction = network.predict(params, image[None])
        logits = resize_bilinear(prediction.logits, size)[0]
        return jnp.argmax(logits, -1), jnp.max(jax.nn.softmax(logits), -1), resize_map(prediction.attention, size)[0]

    pixels = []
    for example in scorer.examples(range(len(scorer.prepared))):
        truth = truth_of(example)
        classes, confidence, attention = jax.device_get(predict(opened.params, example.image))
        height, width = truth.shape
        rows, columns = np.ogrid[:height, :width]
        top, left = height // 8, width // 8
        border = (rows < top) | (rows >= height - top) | (columns < left) | (columns >= width - left)
        found = np.stack([classes == truth, confidence, attention, border], -1)
        pixels.append(found[truth != IGNORE_LABEL])
    right, confidence, attention, border = np.concatenate(pixels).T
    right, border, mask = right == 1, border == 1, attention > threshold
    return [
        mask.mean(),
        right[mask].mean() if mask.any() else np.nan,
        right[~mask].mean() if not mask.all() else np.nan,
        auroc(attention, right),
        auroc(confidence, right),
        attention[border].mean(),
        attention[~border].mean(),
    ]


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive has a higher score than a negative: the area under the ROC curve."""
    statistic = mannwhitneyu(score[positive], score[~positive]).statistic
    return float(statistic / (positive.sum() * (~positive).sum()))


if __name__ == "__main__":
    study.run(main)
