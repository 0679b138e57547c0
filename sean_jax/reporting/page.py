"""The page: everything that :mod:`sean_jax.reporting` finds in runs, in one HTML file that needs no other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from sean_jax.errors import UserError
from sean_jax.reporting import checks, pictures, tables
from sean_jax.reporting.charts import COLORS, Line, line_chart
from sean_jax.reporting.rundata import RunData, Series

_LOSSES = {
    "train/loss": "Total loss",
    "train/loss_segmentation": "Segmentation loss, source",
    "train/loss_consistency": "Consistency loss, target",
}


class Figure(NamedTuple):
    title: str
    chart: Markup
    color: str | None = None  # of the class it shows


class Finding(NamedTuple):
    run: str  # empty where it is about all
    text: str


def findings(runs: Sequence[RunData]) -> list[Finding]:
    """Everything that smells in these runs."""
    found = [Finding("", text) for text in checks.check_comparison(runs)]
    return found + [Finding(run.name, text) for run in runs for text in checks.check_run(run)]


def render(runs: Sequence[RunData]) -> str:
    """The HTML page about one run, or several beside each other.

    Raises:
      UserError: more runs than lines can be told apart.
    """
    if len(runs) > len(COLORS):
        raise UserError(f"{len(runs)} runs are too many for one page; give at most {len(COLORS)} --workdir")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sean_jax.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(_contents(runs))


def _contents(runs: Sequence[RunData]) -> dict[str, Any]:
    notable, rest = tables.settings(runs)
    return {
        "title": " · ".join(run.name for run in runs),
        "runs": [_run(run, color) for run, color in zip(runs, COLORS, strict=False)],
        "several": len(runs) > 1,
        "warnings": findings(runs),
        "facts": tables.facts(runs),
        "notable_settings": notable,
        "other_settings": rest,
        "losses": [f for key, title in _LOSSES.items() if (f := _figure(title, key, runs, smooth=True))],
        "kept": _figure("Kept pixels", "train/kept_pixels", runs, unit="percent", scale=100, top=100, smooth=True),
        "mean_iou": _mean_iou(runs),
        "class_iou": _class_iou(runs),
        "class_scores": tables.class_scores(runs),
        "networks": tables.networks(runs),
        "evaluations": tables.evaluations(runs),
        "heat": pictures.heat_colors(),
        "rate": _figure("Images per second", "images_per_second", runs, unit="images/s"),
        "timing": tables.timing(runs),
    }


def _run(run: RunData, color: str) -> dict[str, Any]:
    colors = tables.class_colors([run])
    return {
        "name": run.name,
        "color": color,
        "method": run.settings["method"],
        "threshold": run.settings.get("attention_threshold"),
        "legend": [(name, colors[name]) for name in run.label_space.classes],
        "pictures": [pictures.embed(step, run.pictures[step]) for step in pictures.spread(list(run.pictures))],
        "picture_count": len(run.pictures),
        "scored": run.scores.get("teacher"),
        "eval_split": run.settings.get("eval_split"),
        "confusion": tables.confusion(run) if run.scores else None,
        "adapts": bool(len(run.series("train/kept_pixels").values)),
        "timed": bool(run.timing),
        # A run that began before times were written, or whose file was removed, has them of its last steps only.
        "timed_from": int(run.timing[0]["step"]) if run.timing and run.metrics else 0,
        "recorded_from": int(run.metrics[0]["step"]) if run.metrics else 0,
    }


def _last_step(runs: Sequence[RunData]) -> int:
    return max(max(run.last_step, int(run.timing[-1]["step"]) if run.timing else 0) for run in runs)


def _figure(
    title: str,
    key: str,
    runs: Sequence[RunData],
    *,
    unit: str = "",
    scale: float = 1,
    top: float | None = None,
    smooth: bool = False,
) -> Figure | None:
    """One quantity of all runs, a line each; None where none has it."""
    lines = []
    for run, color in zip(runs, COLORS, strict=False):
        series = run.series(key)
        lines.append(Line(Series(series.steps, scale * series.values), color, smooth=smooth))
    if not any(len(line.series.values) for line in lines):
        return None
    return Figure(title, line_chart(title, lines, last_step=_last_step(runs), unit=unit, top=top))


def _mean_iou(runs: Sequence[RunData]) -> Figure | None:
    pairs = list(zip(runs, COLORS, strict=False))
    lines = [Line(run.series("val/student/mean_iou"), color, dashed=True) for run, color in pairs]
    lines += [Line(run.series("val/mean_iou"), color) for run, color in pairs]
    if not any(len(line.series.values) for line in lines):
        return None
    title = "Mean IoU of teacher and student"
    return Figure(title, line_chart(title, lines, last_step=_last_step(runs), unit="percent"))


def _class_iou(runs: Sequence[RunData]) -> list[Figure]:
    """The teacher's IoU over time, a figure a class, all to one scale; classes that never occur are left out."""
    figures = []
    for name, class_color in tables.class_colors(runs).items():
        lines = [Line(run.series(f"val/iou/{name}"), color) for run, color in zip(runs, COLORS, strict=False)]
        if any(len(line.series.values) for line in lines):
            chart = line_chart(f"IoU of {name}", lines, last_step=_last_step(runs), top=100, small=True)
            figures.append(Figure(name, chart, class_color))
    return figures
