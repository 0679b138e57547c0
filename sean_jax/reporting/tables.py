"""The page's tables, as text by cell; nothing here is escaped yet."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sean_jax.config import Config
from sean_jax.reporting.checks import shares
from sean_jax.reporting.rundata import RunData

NONE = "–"


class Row(NamedTuple):
    """``color``: of a class, for the swatch before its name; ``explanation``: small, under the name."""

    name: str
    cells: list[str]
    color: str | None = None
    explanation: str = ""


class Table(NamedTuple):
    head: list[str]
    rows: list[Row]


class HeatRow(NamedTuple):
    """A true class: its share of all pixels, and of each predicted class the text, the share in [0, 1], in words."""

    name: str
    color: str
    share: str
    cells: list[tuple[str, float, str]]


def facts(runs: Sequence[RunData]) -> Table:
    """The runs in short, a column each."""
    columns = [_facts(run) for run in runs]
    return Table(["", *(run.name for run in runs)], [Row(name, [c[name] for c in columns]) for name in columns[0]])


def _facts(run: RunData) -> dict[str, str]:
    settings, teacher = run.settings, run.scores.get("teacher")
    kept = run.series("train/kept_pixels").last
    scored = at = NONE
    if teacher:
        scored = f"{teacher['dataset']}/{teacher['split']}, {teacher['images']} images, protocol {teacher['protocol']}"
        at = f"{teacher['checkpoint']}, {teacher['selection']}"
    return {
        "method": f"{settings['method']}, preset {settings.get('preset')}",
        "data": f"{settings['source']} → {settings['target']}",
        "classes": f"{run.label_space.num_classes}, label space {run.label_space.name}",
        "steps recorded": f"{run.last_step} of {run.steps}",
        "scored on": scored,
        "scored at": at,
        "mean IoU, teacher": number(run.scores.get("teacher", {}).get("mean_iou")),
        "mean IoU, student": number(run.scores.get("student", {}).get("mean_iou")),
        "kept pixels, last": NONE if kept is None else f"{kept:.1%}",
        "images/s, median": times(run)["images/s, median"],
        "training time": times(run)["training"],
    }


def settings(runs: Sequence[RunData]) -> tuple[Table, Table]:
    """All settings in two tables: those unlike the default (of several runs: in which they differ), and the rest."""
    fields = {field.name: field for field in dataclasses.fields(Config)}
    several = len(runs) > 1
    first, rest = [], []
    for name in dict.fromkeys(name for run in runs for name in run.settings):
        values = [run.settings.get(name) for run in runs]
        field = fields.get(name)
        cells = [_setting(value) for value in values]
        if several:
            notable = any(value != values[0] for value in values)
        else:
            notable = field is None or (field.default is not None and values[0] != field.default)
            cells.append("by data or weights" if field is None or field.default is None else _setting(field.default))
        row = Row(name, cells, explanation=field.metadata["help"] if field else "")
        (first if notable else rest).append(row)
    if several and any(run.label_space != runs[0].label_space for run in runs):
        first.append(Row("label space", [", ".join(run.label_space.classes) for run in runs]))
    head = ["setting", *(run.name for run in runs)] if several else ["setting", "value", "default"]
    return Table(head, first), Table(head, rest)


def _setting(value: Any) -> str:
    return NONE if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def class_scores(runs: Sequence[RunData]) -> Table | None:
    """IoU by class at the end in percent, of one run both networks, of several teachers; None if nothing is scored."""
    scored = [run for run in runs if run.scores]
    if not scored:
        return None
    if len(scored) == 1:
        columns = {name: scored[0].scores[name] for name in ("teacher", "student") if name in scored[0].scores}
        more, less = 0, 1  # columns whose difference is shown
    else:
        columns = {run.name: run.scores["teacher"] for run in scored}
        more, less = 1, 0
    names = list(columns)

    def cells(values: list[float | None]) -> list[str]:
        shown = [number(value) for value in values]
        if len(values) != 2:
            return shown
        first, second = values[more], values[less]
        return [*shown, NONE if first is None or second is None else difference(first - second)]

    pixels = dict(zip(scored[0].scores["teacher"]["classes"], shares(scored[0])[0], strict=True))
    colors = class_colors(scored)
    rows = []
    for name in dict.fromkeys(name for entry in columns.values() for name in entry["iou"]):
        iou = [entry["iou"].get(name) for entry in columns.values()]
        rows.append(Row(name, [share(pixels.get(name)), *cells(iou)], colors[name]))
    rows.append(Row("mean IoU", ["", *cells([entry["mean_iou"] for entry in columns.values()])]))
    compared = [f"{names[more]} − {names[less]}"] if len(names) == 2 else []
    return Table(["class", "pixels", *names, *compared], rows)


def networks(runs: Sequence[RunData]) -> Table | None:
    """Mean IoU of teacher and student, a row a run; None where no run has both."""
    rows = []
    for run in runs:
        if "student" in run.scores:
            teacher, student = (run.scores[name]["mean_iou"] for name in ("teacher", "student"))
            rows.append(Row(run.name, [number(teacher), number(student), difference(teacher - student)]))
    return Table(["mean IoU", "teacher", "student", "teacher − student"], rows) if rows else None


def evaluations(runs: Sequence[RunData]) -> Table | None:
    """Every evaluation: mean IoU of both networks by step and run; None where there was none."""
    head, columns = ["step"], []
    for run in runs:
        for key, name in (("val/mean_iou", "teacher"), ("val/student/mean_iou", "student")):
            series = run.series(key)
            if len(series.values):
                head.append(name if len(runs) == 1 else f"{run.name}, {name}")
                columns.append(dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)))
    steps = sorted({step for column in columns for step in column})
    rows = [Row(str(step), [number(column.get(step)) for column in columns]) for step in steps]
    return Table(head, rows) if rows else None


def confusion(run: RunData) -> list[HeatRow]:
    """The teacher's confusion matrix, each true class's row divided by its sum."""
    matrix = np.array(run.scores["teacher"]["confusion_matrix"], float)
    classes, colors = run.scores["teacher"]["classes"], class_colors([run])
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
    """Times of a run from ``timing.jsonl``, in words; dashes where there are none."""
    training, evaluation = run.series("training_seconds"), run.series("evaluation_seconds")
    rate = run.series("images_per_second").values
    # The first line holds the compilation of the step.
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
    """``#rrggbb`` by class name; grey for classes that only an evaluation knows."""
    names = {name: "#808080" for run in runs for entry in run.scores.values() for name in entry["iou"]}
    for run in runs:
        for name, color in zip(run.label_space.classes, run.label_space.palette, strict=True):
            names[name] = "#{:02x}{:02x}{:02x}".format(*color)
    return names


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def difference(value: float) -> str:
    """With its sign, to one decimal."""
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def share(value: float | None) -> str:
    if value is None or value == 0:
        return NONE
    return f"{value:.1%}" if value >= 0.001 else "< 0.1%"


def duration(seconds: float) -> str:
    """Seconds in words: ``9.5 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
