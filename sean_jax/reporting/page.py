"""The report: one self-contained HTML page about one or several runs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from sean_jax.errors import UserError
from sean_jax.reporting import checks, pictures, tables
from sean_jax.reporting.charts import COLORS, Line, line_chart, line_dash
from sean_jax.reporting.rundata import RunData, Series

# Titles of the quantities that are known; others are titled by their key.
_LOSSES = {
    "train/loss": "Total loss",
    "train/loss_segmentation": "Segmentation loss, source",
    "train/loss_consistency": "Consistency loss, target",
}
_OPTIMISATION = {
    "train/learning_rate": "Learning rate",
    "train/gradient_norm": "Gradient norm",
    "train/update_norm": "Update norm",
    "train/parameter_norm": "Parameter norm",
}
_MASK_RATIO = "train/kept_pixels"


class Figure(NamedTuple):
    title: str
    chart: Markup
    color: str | None = None  # of the class that it shows


class Finding(NamedTuple):
    run: str  # empty for a finding about all runs
    text: str


def findings(runs: Sequence[RunData]) -> list[Finding]:
    """The warnings about these runs."""
    found = [Finding("", text) for text in checks.check_comparison(runs)]
    return found + [Finding(run.name, text) for run in runs for text in checks.check_run(run)]


def render(runs: Sequence[RunData]) -> str:
    """The HTML page about one run, or about several side by side.

    Raises:
      UserError: there are more runs than line colours.
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
        "losses": _figures(_LOSSES, runs),
        "optimisation": _figures(_OPTIMISATION | _other_quantities(runs), runs),
        "mask_ratio": _figure("Mask ratio", _MASK_RATIO, runs, unit="percent", scale=100, top=100, smooth=True),
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
        "networks": [{"name": name, "dash": line_dash(i)} for i, name in enumerate(run.mean_ious)],
        "network": run.network,
        "threshold": run.settings.get("attention_threshold"),
        "legend": [(name, colors[name]) for name in run.label_space.classes],
        "pictures": [pictures.embed(step, run.pictures[step]) for step in pictures.selection(list(run.pictures))],
        "picture_count": len(run.pictures),
        "scored": run.score,
        "eval_split": run.settings.get("eval_split"),
        "confusion": tables.confusion(run) if run.scores else None,
        "has_mask": _MASK_RATIO in run.quantities,
        "timed": bool(run.timing),
        # If timing.jsonl was removed during the run, times are known for the last steps only.
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
    """One quantity, one line per run; None if no run recorded it."""
    lines = []
    for run, color in zip(runs, COLORS, strict=False):
        series = run.series(key)
        lines.append(Line(Series(series.steps, scale * series.values), color, smooth=smooth))
    if not any(len(line.series.values) for line in lines):
        return None
    return Figure(title, line_chart(title, lines, last_step=_last_step(runs), unit=unit, top=top))


def _figures(titles: dict[str, str], runs: Sequence[RunData]) -> list[Figure]:
    return [figure for key, title in titles.items() if (figure := _figure(title, key, runs, smooth=True))]


def _other_quantities(runs: Sequence[RunData]) -> dict[str, str]:
    """What else a method records of its training, titled by its key: ``train/loss_adversarial`` → Loss adversarial."""
    known = {*_LOSSES, *_OPTIMISATION, _MASK_RATIO}
    keys = {key for run in runs for key in run.quantities if key.startswith("train/")}
    return {key: key.removeprefix("train/").replace("_", " ").capitalize() for key in sorted(keys - known)}


def _mean_iou(runs: Sequence[RunData]) -> Figure | None:
    """Mean IoU of all networks; the lines of the network that counts are solid and drawn last."""
    lines = []
    for run, color in zip(runs, COLORS, strict=False):
        lines += [Line(series, color, dash=i) for i, series in enumerate(run.mean_ious.values())]
    if not lines:
        return None
    lines.sort(key=lambda line: -line.dash)
    title = "Mean IoU of each network"
    return Figure(title, line_chart(title, lines, last_step=_last_step(runs), unit="percent"))


def _class_iou(runs: Sequence[RunData]) -> list[Figure]:
    """The IoU of the network that counts over the steps, one figure per class, all with one scale.

    Classes that never occur are left out.
    """
    figures = []
    for name, class_color in tables.class_colors(runs).items():
        lines = [Line(run.series(f"val/iou/{name}"), color) for run, color in zip(runs, COLORS, strict=False)]
        if any(len(line.series.values) for line in lines):
            chart = line_chart(f"IoU of {name}", lines, last_step=_last_step(runs), top=100, small=True)
            figures.append(Figure(name, chart, class_color))
    return figures
