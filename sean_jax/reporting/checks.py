"""Warnings about a run: each is one sentence with its numbers, computed from the run's files alone.

A warning points at something to look at, not necessarily an error: the thresholds are rules of thumb.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sean_jax.reporting.rundata import RunData, Series
from sean_jax.scoring.stored import COMPARABLE

# A class counts as predicted, or as present, if it has at least this share of all pixels, so that a few stray pixels do
# not count. The rarest class of Cityscapes, motorcycle, has about this share.
NOTABLE_SHARE = 1e-3
# A network that predicts less than this part of the present classes has collapsed to the frequent ones. A network
# that trains well may miss a few of the rarest.
COLLAPSED_PART = 0.5
# Mask ratios below and above which the consistency mask has no useful effect.
NOTHING_KEPT, EVERYTHING_KEPT = 0.01, 0.99
# Percentage points by which the network that counts must be worse than another one; smaller differences are noise.
NETWORK_MARGIN = 0.5
# An IoU in percent that a table shows as 0.0.
ZERO_IOU = 0.05
# The last quarter of a curve is compared with the quarter before it, if the curve has enough points.
END_PART, LEAST_LINES = 0.25, 20
# Relative changes of a loss's mean from the third to the last quarter: above the first the loss rose, above the second
# it no longer falls. A rise must also exceed two standard errors, since single steps of small batches vary widely.
ROSE, NO_LONGER_FALLS, STANDARD_ERRORS = 0.05, -0.01, 2.0

# The consistency loss is left out: it is small while both networks are unsure, and grows as they become confident.
LOSSES = {"train/loss": "total loss", "train/loss_segmentation": "segmentation loss"}


def check_run(run: RunData) -> list[str]:
    """All warnings about one run, the most serious first."""
    return [sentence for check in CHECKS if (sentence := check(run))]


def check_comparison(runs: Sequence[RunData]) -> list[str]:
    """The reasons why scores of these runs cannot be compared with those of the first run."""
    scored = [run for run in runs if run.scores]
    found = []
    for run in scored[1:]:
        first, other = scored[0].score, run.score
        differing = [
            f"{key} {first.get(key)} and {other.get(key)}" for key in COMPARABLE if first.get(key) != other.get(key)
        ]
        if first["classes"] != other["classes"]:
            differing.append(f"{len(first['classes'])} and {len(other['classes'])} classes, or different ones")
        if differing:
            found.append(f"Scores of {scored[0].name} and {run.name} cannot be compared: {'; '.join(differing)}.")
    return found


def unfinished(run: RunData) -> str | None:
    if run.last_step >= run.steps:
        return None
    if not run.last_step:
        return f"The run is unfinished: none of its {run.steps} steps is recorded yet."
    return f"The run is unfinished: the last recorded step is {run.last_step} of {run.steps}."


def oracle_selection(run: RunData) -> str | None:
    if run.settings.get("selection") != "oracle":
        return None
    split = f"{run.settings['target']}/{run.settings.get('eval_split')}"
    chosen = f" (step {run.score.get('step')})" if run.scores else ""
    return f"Oracle selection: the checkpoint{chosen} was chosen by its score on the labels of {split}, which is shown."


def collapse(run: RunData) -> str | None:
    if not run.scores:
        return None
    true, predicted = shares(run)
    present, found = int((true >= NOTABLE_SHARE).sum()), int((predicted >= NOTABLE_SHARE).sum())
    if found >= COLLAPSED_PART * present:
        return None
    largest = int(predicted.argmax())
    return (
        f"Collapse to few classes: {run.network} predicts {found} on at least {NOTABLE_SHARE:.1%} of the pixels each, "
        f"the ground truth has {present} such classes; {run.score['classes'][largest]} makes up "
        f"{predicted[largest]:.0%} of the prediction and {true[largest]:.0%} of the ground truth."
    )


def mask(run: RunData) -> str | None:
    kept = run.series("train/kept_pixels")
    threshold = run.settings.get("attention_threshold")
    if not len(kept.values) or not run.settings.get("attention", True) or threshold == 0:  # every pixel shall be kept
        return None
    end = kept.values[-_end_length(kept) :]
    share = float(end.mean())
    if NOTHING_KEPT <= share <= EVERYTHING_KEPT:
        return None
    recorded = f"over the last {len(end)} recorded steps" if len(end) > 1 else "at the last recorded step"
    meaning = "almost nothing of the target is used" if share < NOTHING_KEPT else "the mask has no effect"
    return f"The mask ratio is {share:.1%} {recorded} (threshold {threshold}): {meaning}."


def network_worse(run: RunData) -> str | None:
    better = [
        f"{name} ({scores['mean_iou']:.1f})"
        for name, scores in run.scores.items()
        if scores["mean_iou"] > run.score["mean_iou"] + NETWORK_MARGIN
    ]
    if not better:
        return None
    return f"{run.network} is worse than {' and '.join(better)}: its mean IoU is {run.score['mean_iou']:.1f}."


def losses(run: RunData) -> str | None:
    found = []
    for key, name in LOSSES.items():
        series = run.series(key)
        if len(series.values) < LEAST_LINES:
            continue
        length = _end_length(series)
        end, before = series.values[-length:], series.values[-2 * length : -length]
        change, level = float(end.mean() - before.mean()), abs(float(before.mean()))
        error = float(np.sqrt((end.var(ddof=1) + before.var(ddof=1)) / length))
        if change > max(ROSE * level, STANDARD_ERRORS * error):
            found.append(f"{name} rose, {before.mean():.3g} → {end.mean():.3g}")
        elif change >= NO_LONGER_FALLS * level:
            found.append(f"{name} no longer falls, {before.mean():.3g} → {end.mean():.3g}")
    if not found:
        return None
    return f"Losses at the end: {'; '.join(found)} (means over the third and the last quarter of the recorded steps)."


def zero_iou(run: RunData) -> str | None:
    if not run.scores:
        return None
    iou = run.score["iou"]
    zero = [name for name, value in iou.items() if value is not None and value < ZERO_IOU]
    if not zero:
        return None
    true = dict(zip(run.score["classes"], shares(run)[0], strict=True))
    unlabelled = [name for name in zero if true.get(name) == 0]
    rest = f" (not in the labels: {', '.join(unlabelled)})" if unlabelled else ""
    scored = sum(value is not None for value in iou.values())
    return f"{len(zero)} of {scored} classes have IoU 0: {', '.join(zero)}{rest}."


def shares(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    """Each class's share of the scored pixels, ``[classes]``: in the ground truth and in the main prediction."""
    confusion = np.array(run.score["confusion_matrix"], float)
    return confusion.sum(1) / max(confusion.sum(), 1), confusion.sum(0) / max(confusion.sum(), 1)


def _end_length(series: Series) -> int:
    return max(1, int(END_PART * len(series.values)))


CHECKS: tuple[Callable[[RunData], str | None], ...] = (
    unfinished,
    oracle_selection,
    collapse,
    mask,
    network_worse,
    losses,
    zero_iou,
)
