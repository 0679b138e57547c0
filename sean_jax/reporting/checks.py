"""What smells in a run: each finding one sentence with its numbers. Functions of the data alone.

A finding says where to look, not that something is wrong: the thresholds are rules of thumb.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sean_jax.reporting.rundata import RunData, Series

# A class counts as predicted, or as present, from this share of all pixels on: below it a few stray pixels would do.
# The rarest class of Cityscapes, motorcycle, has about this share.
NOTABLE_SHARE = 1e-3
# A network that predicts fewer than this part of the classes that are there has collapsed to the frequent ones; a
# healthy one misses some of the rarest.
COLLAPSED_PART = 0.5
# Kept shares below and above which the mask is as good as closed or open.
NOTHING_KEPT, EVERYTHING_KEPT = 0.01, 0.99
# Percentage points by which the teacher must be worse than the student: less is the noise of single evaluations.
TEACHER_MARGIN = 0.5
# An IoU in percent that a table shows as 0.0.
ZERO_IOU = 0.05
# The last quarter of a curve is its end, compared with the quarter before; fewer lines than this say nothing.
END_PART, LEAST_LINES = 0.25, 20
# Relative change of a loss's mean from one quarter to the next, from which on it rose, and up to which it no longer
# falls. A rise must also exceed two standard errors: single steps of small batches scatter widely.
ROSE, NO_LONGER_FALLS, STANDARD_ERRORS = 0.05, -0.01, 2.0

# Not the consistency loss by itself: it is small while both networks are unsure and rightly grows as they commit.
LOSSES = {"train/loss": "total loss", "train/loss_segmentation": "segmentation loss"}

# What two scores must share to be compared; as in sean_jax.scoring.protocols, which cannot be imported without JAX.
COMPARABLE = ("protocol", "dataset", "split", "images", "input_size", "resolution", "interpolation", "selection")


def check_run(run: RunData) -> list[str]:
    """Everything that smells in one run, the gravest first."""
    return [sentence for check in CHECKS if (sentence := check(run))]


def check_comparison(runs: Sequence[RunData]) -> list[str]:
    """Why scores of these runs cannot be compared with the first one's."""
    scored = [run for run in runs if run.scores]
    found = []
    for run in scored[1:]:
        first, other = scored[0].scores["teacher"], run.scores["teacher"]
        differing = [
            f"{key} {first.get(key)} and {other.get(key)}" for key in COMPARABLE if first.get(key) != other.get(key)
        ]
        if first["classes"] != other["classes"]:
            differing.append(f"{len(first['classes'])} and {len(other['classes'])} classes, or others")
        if differing:
            found.append(f"Scores of {scored[0].name} and {run.name} cannot be compared: {'; '.join(differing)}.")
    return found


def unfinished(run: RunData) -> str | None:
    if run.last_step >= run.steps:
        return None
    if not run.last_step:
        return f"The run is unfinished: nothing is recorded yet of its {run.steps} steps."
    return f"The run is unfinished: the last recorded step is {run.last_step} of {run.steps}."


def oracle_selection(run: RunData) -> str | None:
    if run.settings.get("selection") != "oracle":
        return None
    split = f"{run.settings['target']}/{run.settings.get('eval_split')}"
    chosen = f" (step {run.scores['teacher'].get('step')})" if run.scores else ""
    return f"Oracle selection: the checkpoint{chosen} is chosen by its score on the labels of {split}, the score shown."


def collapse(run: RunData) -> str | None:
    if not run.scores:
        return None
    true, predicted = shares(run)
    there, found = int((true >= NOTABLE_SHARE).sum()), int((predicted >= NOTABLE_SHARE).sum())
    if found >= COLLAPSED_PART * there:
        return None
    largest = int(predicted.argmax())
    return (
        f"Collapse to few classes: the teacher predicts {found} on at least {NOTABLE_SHARE:.1%} of the pixels each, "
        f"the ground truth has {there} such classes; {run.scores['teacher']['classes'][largest]} makes up "
        f"{predicted[largest]:.0%} of the prediction and {true[largest]:.0%} of the truth."
    )


def mask(run: RunData) -> str | None:
    kept = run.series("train/kept_pixels")
    if not len(kept.values) or not run.settings.get("attention", True):  # without attention all are kept on purpose
        return None
    end = kept.values[-_end_length(kept) :]
    share = float(end.mean())
    if NOTHING_KEPT <= share <= EVERYTHING_KEPT:
        return None
    recorded = f"over the last {len(end)} recorded steps" if len(end) > 1 else "at the last recorded step"
    meaning = "hardly anything is adapted on the target" if share < NOTHING_KEPT else "it does nothing"
    threshold = run.settings.get("attention_threshold")
    return f"The attention mask keeps {share:.1%} of the pixels {recorded} (threshold {threshold}): {meaning}."


def teacher_worse(run: RunData) -> str | None:
    if "student" not in run.scores:
        return None
    teacher, student = (run.scores[name]["mean_iou"] for name in ("teacher", "student"))
    if teacher >= student - TEACHER_MARGIN:
        return None
    return f"The teacher is worse than the student: mean IoU {teacher:.1f} and {student:.1f}."


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
    iou = run.scores["teacher"]["iou"]
    zero = [name for name, value in iou.items() if value is not None and value < ZERO_IOU]
    if not zero:
        return None
    true = dict(zip(run.scores["teacher"]["classes"], shares(run)[0], strict=True))
    untrue = [name for name in zero if true.get(name) == 0]
    rest = f" (no label holds {', '.join(untrue)})" if untrue else ""
    scored = sum(value is not None for value in iou.values())
    return f"{len(zero)} of {scored} classes have IoU 0: {', '.join(zero)}{rest}."


def shares(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the scored pixels by class ``[classes]``: in the ground truth, and in the teacher's prediction."""
    confusion = np.array(run.scores["teacher"]["confusion_matrix"], float)
    return confusion.sum(1) / max(confusion.sum(), 1), confusion.sum(0) / max(confusion.sum(), 1)


def _end_length(series: Series) -> int:
    return max(1, int(END_PART * len(series.values)))


CHECKS: tuple[Callable[[RunData], str | None], ...] = (
    unfinished,
    oracle_selection,
    collapse,
    mask,
    teacher_worse,
    losses,
    zero_iou,
)
