"""The page's tables. Cells are plain text: the template escapes them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sean_jax.config import describe_settings
from sean_jax.reporting.checks import shares
from sean_jax.reporting.rundata import RunData

NONE = "–"


class Row(NamedTuple):
    """``color``: of a class, shown before its name; ``explanation``: shown in small print under the name.

    ``group``: a heading is shown before the first row of each group.
    """

    name: str
    cells: list[str]
    color: str | None = None
    explanation: str = ""
    group: str = ""


class Table(NamedTuple):
    head: list[str]
    rows: list[Row]


class HeatRow(NamedTuple):
    """A true class: its share of all pixels, and per predicted class the text, the share in [0, 1] and a tooltip."""

    name: str
    color: str
    share: str
    cells: list[tuple[str, float, str]]


def facts(runs: Sequence[RunData]) -> Table:
    """A summary of the runs, one column per run."""
    columns = [_facts(run) for run in runs]
    return Table(["", *(run.name for run in runs)], [Row(name, [c[name] for c in columns]) for name in columns[0]])


def _facts(run: RunData) -> dict[str, str]:
    settings, score = run.settings, run.score
    kept = run.series("train/kept_pixels").last
    scored_on = scored_at = NONE
    if score:
        scored_on = f"{score['dataset']}/{score['split']}, {score['images']} images, protocol {score['protocol']}"
        scored_at = f"{score['checkpoint']}, {score['selection']}"
    mean_iou = ", ".join(f"{name} {number(entry['mean_iou'])}" for name, entry in run.scores.items())
    return {
        "method": f"{settings['method']}, preset {settings.get('preset')}",
        "data": f"{settings['source']} → {settings['target']}",
        "classes": f"{run.label_space.num_classes}, label space {run.label_space.name}",
        "steps recorded": f"{run.last_step} of {run.steps}",
        "scored on": scored_on,
        "scored at": scored_at,
        "mean IoU": mean_iou or NONE,
        "mask ratio, last": NONE if kept is None else f"{kept:.1%}",
        "images/s, median": times(run)["images/s, median"],
        "training time": times(run)["training"],
    }


def settings(runs: Sequence[RunData]) -> tuple[Table, Table]:
    """All settings in two tables: the notable ones and the rest.

    Of one run, those that differ from the default are notable; of several, those in which the runs differ.
    """
    known = describe_settings()
    several = len(runs) > 1
    notable, rest = [], []
    groups = {name: group for run in runs for name, group in run.groups.items()}
    names = dict.fromkeys(name for run in runs for name in run.settings)
    for name in sorted(names, key=lambda name: groups.get(name, "")):  # stable: the file's order within a group
        values = [run.settings.get(name) for run in runs]
        default, explanation = known.get(name, (None, ""))
        cells = [_setting(value) for value in values]
        if several:
            is_notable = any(value != values[0] for value in values)
        else:
            is_notable = name not in known or (default is not None and values[0] != default)
            cells.append("set by data or weights" if default is None else _setting(default))
        (notable if is_notable else rest).append(Row(name, cells, explanation=explanation, group=groups.get(name, "")))
    if several and any(run.label_space != runs[0].label_space for run in runs):
        notable.insert(0, Row("label space", [", ".join(run.label_space.classes) for run in runs]))
    head = ["setting", *(run.name for run in runs)] if several else ["setting", "value", "default"]
    return Table(head, notable), Table(head, rest)


def _setting(value: Any) -> str:
    return NONE if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def class_scores(runs: Sequence[RunData]) -> Table | None:
    """IoU by class at the end in percent; None if nothing is scored.

    Of one run, a column for each network; of several runs, a column for the network that counts in each.
    """
    scored = [run for run in runs if run.scores]
    if not scored:
        return None
    if len(scored) == 1:
        columns = scored[0].scores
        more, less = 0, 1  # the columns whose difference is shown, if there are two
    else:
        columns = {run.name: run.score for run in scored}
        more, less = 1, 0
    names = list(columns)

    def cells(values: list[float | None]) -> list[str]:
        shown = [number(value) for value in values]
        if len(values) != 2:
            return shown
        first, second = values[more], values[less]
        return [*shown, NONE if first is None or second is None else difference(first - second)]

    pixels = dict(zip(scored[0].score["classes"], shares(scored[0])[0], strict=True))
    colors = class_colors(scored)
    rows = []
    for name in dict.fromkeys(name for entry in columns.values() for name in entry["iou"]):
        iou = [entry["iou"].get(name) for entry in columns.values()]
        rows.append(Row(name, [share(pixels.get(name)), *cells(iou)], colors[name]))
    rows.append(Row("mean IoU", ["", *cells([entry["mean_iou"] for entry in columns.values()])]))
    compared = [f"{names[more]} − {names[less]}"] if len(names) == 2 else []
    return Table(["class", "pixels", *names, *compared], rows)


def networks(runs: Sequence[RunData]) -> Table | None:
    """Mean IoU of each network, one row per run; None if no run has several networks."""
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    if all(len(run.scores) < 2 for run in runs):
        return None
    rows = [
        Row(run.name, [number(run.scores[name]["mean_iou"] if name in run.scores else None) for name in names])
        for run in runs
        if run.scores
    ]
    return Table(["mean IoU", *names], rows)


def evaluations(runs: Sequence[RunData]) -> Table | None:
    """All evaluations: mean IoU by step, run and network; None if there was none."""
    head, columns = ["step"], []
    for run in runs:
        for name, series in run.mean_ious.items():
            head.append(name if len(runs) == 1 else f"{run.name}, {name}")
            columns.append(dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)))
    steps = sorted({step for column in columns for step in column})
    rows = [Row(str(step), [number(column.get(step)) for column in columns]) for step in steps]
    return Table(head, rows) if rows else None


def confusion(run: RunData) -> list[HeatRow]:
    """The confusion matrix of the network that counts; each row is divided by its sum."""
    matrix = np.array(run.score["confusion_matrix"], float)
    classes, colors = run.score["classes"], class_colors([run])
    totals = matrix.sum(1)
    rows = []
    for name, counts, total in zip(classes, matrix, totals, strict=True):
        parts = counts / total if total else np.zeros_like(counts)
        cells = [
            (f"{100 * part:.0f}" if part >= 0.005 else "", round(float(part), 3), f"{name} → {other}: {part:.1%}")
            for other, part in zip(classes, parts.tolist(), strict=True)
        ]
        rows.append(HeatRow(name, colors[name], share(total / max(totals.sum(), 1)), cells))
    return rows


def times(run: RunData) -> dict[str, str]:
    """Times of a run from ``timing.jsonl``, as text; a dash for each that is not recorded."""
    training, evaluation = run.series("training_seconds"), run.series("evaluation_seconds")
    rate = run.series("images_per_second").values
    # The first value includes the compilation of the step.
    median = f"{np.median(rate[1:] if len(rate) > 1 else rate):.3g}" if len(rate) else NONE
    return {
        "images/s, median": median,
        "training": duration(training.values.sum()) if len(training.values) else NONE,
        "evaluation": duration(evaluation.values.sum()) if len(evaluation.values) else NONE,
        "one evaluation, median": duration(float(np.median(evaluation.values))) if len(evaluation.values) else NONE,
    }


def timing(runs: Sequence[RunData]) -> Table:
    columns = [times(run) for run in runs]
    return Table(["", *(run.name for run in runs)], [Row(name, [c[name] for c in columns]) for name in columns[0]])


def class_colors(runs: Sequence[RunData]) -> dict[str, str]:
    """Class name → ``#rrggbb``; grey for classes that occur in an evaluation only."""
    names = {name: "#808080" for run in runs for entry in run.scores.values() for name in entry["iou"]}
    for run in runs:
        for name, color in zip(run.label_space.classes, run.label_space.palette, strict=True):
            names[name] = hex_color(color)
    return names


def hex_color(color: Sequence[int]) -> str:
    """RGB in 0–255 as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def difference(value: float) -> str:
    """A signed number with one decimal."""
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def share(value: float | None) -> str:
    if value is None or value == 0:
        return NONE
    return f"{value:.1%}" if value >= 0.001 else "< 0.1%"


def duration(seconds: float) -> str:
    """Seconds as text: ``9.5 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
