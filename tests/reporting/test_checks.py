"""Warnings: each is given for a run with that problem, and none for a healthy run."""

import dataclasses

import numpy as np
import pytest

from sean_jax.data.label_spaces import LabelSpace
from sean_jax.reporting import checks
from sean_jax.reporting.rundata import RunData
from sean_jax.scoring import stored

CLASSES = ("road", "car", "sky", "pole")
SPACE = LabelSpace("four", CLASSES, ((1, 2, 3),) * 4, ((),) * 4)
SETTINGS = {
    **{"steps": 400, "method": "sean", "source": "game", "target": "camera", "selection": "last"},
    **{"attention": True, "attention_threshold": 0.3, "eval_split": "val"},
}
CONFUSION = [[80, 5, 5, 0], [5, 70, 5, 0], [2, 2, 60, 2], [0, 2, 2, 9]]


def scores(confusion=CONFUSION, mean_iou=60.0, **changes) -> dict:
    matrix = np.array(confusion, float)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    iou = {name: 100 * i / u if u else None for name, i, u in zip(CLASSES, np.diag(matrix), union, strict=True)}
    said = dict.fromkeys(stored.COMPARABLE, "as before")
    return said | {"mean_iou": mean_iou, "iou": iou, "classes": list(CLASSES), "confusion_matrix": confusion} | changes


def lines(count=40, **changes) -> list[dict]:
    """Losses that fall throughout, with noise, and a mask that keeps half; functions of the fraction of the run."""
    noise = np.random.default_rng(0).normal(scale=0.02, size=count)
    made = {
        "train/loss": lambda t: 1.2 - t,
        "train/loss_segmentation": lambda t: 1.1 - t,
        "train/loss_consistency": lambda t: 0.1 * t,
        "train/kept_pixels": lambda t: 0.5,
    } | changes
    steps = np.arange(1, count + 1) * (400 // count)
    return [
        {"step": int(s)} | {k: float(f(s / 400) + n) for k, f in made.items()}
        for s, n in zip(steps, noise, strict=True)
    ]


HEALTHY = RunData("run", SETTINGS, SPACE, metrics=lines(), scores={"main": scores(), "other": scores(mean_iou=58.0)})


def changed(settings=None, metrics=None, main=None, other=None, **changes) -> RunData:
    run = dataclasses.replace(HEALTHY, settings=SETTINGS | (settings or {}), **changes)
    if metrics is not None:
        run = dataclasses.replace(run, metrics=metrics)
    entries = {"main": main or scores(), "other": other or scores(mean_iou=58.0)}
    return run if "scores" in changes else dataclasses.replace(run, scores=entries)


def test_a_healthy_run_gives_no_warning():
    assert checks.check_run(HEALTHY) == []
    assert checks.check_comparison([HEALTHY, HEALTHY]) == []


ONE_CLASS = [[90, 0, 0, 0], [80, 0, 0, 0], [66, 0, 0, 0], [13, 0, 0, 0]]
NO_POLE = [[80, 5, 5, 0], [5, 70, 5, 0], [2, 2, 60, 2], [0, 2, 11, 0]]
POLE_UNTRUE = [[80, 5, 5, 0], [5, 70, 5, 0], [2, 2, 60, 2], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("check", "run", "parts"),
    [
        (checks.unfinished, changed(metrics=lines()[:10]), ("100 of 400",)),
        (checks.unfinished, changed(metrics=[]), ("none of its 400 steps",)),
        (
            checks.oracle_selection,
            changed({"selection": "oracle"}, main=scores(step=300)),
            ("step 300", "camera/val"),
        ),
        (checks.oracle_selection, changed({"selection": "oracle"}, scores={}), ("camera/val",)),
        (checks.collapse, changed(main=scores(ONE_CLASS)), ("predicts 1 ", "has 4", "road", "100%", "36%")),
        (checks.mask, changed(metrics=lines(**{"train/kept_pixels": lambda t: 0.002 * (t < 2)})), ("threshold 0.3",)),
        (checks.mask, changed(metrics=[{"step": 400, "train/kept_pixels": 0.0}]), ("0.0%", "almost nothing")),
        (checks.mask, changed(metrics=[{"step": 400, "train/kept_pixels": 1.0}]), ("100.0%", "no effect")),
        (
            checks.network_worse,
            changed(other=scores(mean_iou=61.0)),
            ("main is worse than other (61.0)", "60.0"),
        ),
        (
            checks.losses,
            changed(metrics=lines(**{"train/loss": lambda t: abs(t - 0.6) + 0.5})),
            ("total loss rose", "→"),
        ),
        (
            checks.losses,
            changed(metrics=lines(**{"train/loss_segmentation": lambda t: 0.5})),
            ("no longer falls", "0.5"),
        ),
        (checks.zero_iou, changed(main=scores(NO_POLE)), ("1 of 4", "pole")),
        (checks.zero_iou, changed(main=scores(POLE_UNTRUE)), ("1 of 4", "not in the labels: pole")),
    ],
)
def test_a_warning_is_one_sentence_with_its_numbers(check, run, parts):
    sentence = check(run)
    assert sentence in checks.check_run(run)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    for part in parts:
        assert part in sentence, sentence


@pytest.mark.parametrize(
    ("check", "run"),
    [
        (checks.collapse, changed(scores={})),
        (checks.collapse, changed(main=scores(NO_POLE))),  # three of four classes: not a collapse
        (checks.mask, changed({"attention": False}, metrics=[{"step": 400, "train/kept_pixels": 1.0}])),
        (checks.mask, changed({"attention_threshold": 0.0}, metrics=[{"step": 400, "train/kept_pixels": 1.0}])),
        (checks.mask, changed(metrics=[{"step": 400, "train/loss": 1.0}])),  # source_only
        (checks.mask, changed(metrics=lines(**{"train/kept_pixels": lambda t: 1.0 if t < 0.5 else 0.6}))),
        (checks.network_worse, changed(other=scores(mean_iou=60.4))),  # within the noise
        (checks.network_worse, changed(scores={"main": scores()})),
        (checks.losses, changed(metrics=lines(12, **{"train/loss": lambda t: 1 + t}))),  # too few values
        (checks.losses, changed(metrics=lines(**{"train/loss_consistency": lambda t: t}))),  # expected
        (checks.zero_iou, changed(scores={})),
    ],
)
def test_no_warning(check, run):
    assert check(run) is None


def test_scores_that_cannot_be_compared_are_named():
    other = dataclasses.replace(changed(main=scores(split="test")), name="other")
    (sentence,) = checks.check_comparison([HEALTHY, other])
    assert "run and other" in sentence
    assert "split as before and test" in sentence
    fewer = changed(scores={"main": scores() | {"classes": ["road"]}})
    assert "4 and 1 classes" in checks.check_comparison([HEALTHY, fewer])[0]


def test_the_first_network_counts_whatever_its_name():
    networks = {"ensemble": scores(NO_POLE), "head_1": scores(mean_iou=62.0), "head_2": scores(mean_iou=64.0)}
    run = changed(scores=networks)
    assert checks.network_worse(run) == "ensemble is worse than head_1 (62.0) and head_2 (64.0): its mean IoU is 60.0."
    assert "pole" in checks.zero_iou(run)
    assert "ensemble predicts 1 " in checks.collapse(changed(scores={"ensemble": scores(ONE_CLASS)}))
    other = changed(scores={"head_1": scores(split="test")})
    assert "split as before and test" in checks.check_comparison([run, other])[0]
