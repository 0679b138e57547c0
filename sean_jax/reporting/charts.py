"""Line charts as inline SVG that takes its text colour from the page; the same lines give the same bytes."""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sean_jax.reporting.rundata import Series

# Of lines, a run each. After Okabe and Ito's colours for the colour-blind, in lightnesses that stand out by at least
# 3:1 both from white and from the page's dark background; no two differ by red against green alone.
COLORS = ("#3d7fd9", "#d55e00", "#009e73", "#cc6fa8", "#a8862a", "#8a8f98")

_INK = "#010203"  # becomes currentColor: a colour that nothing else has
_MOST_POINTS = 1200  # of a line: more than a screen shows; longer series are averaged over equal numbers of points
_SMOOTHED_PART, _LEAST_SMOOTHED = 0.05, 40  # of the points: window of the running mean, and when it is drawn at all
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar sign in a name is one
    "font.family": ["DejaVu Sans"],  # for the room that text takes; the page draws it in its own, which is narrower
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


class Line(NamedTuple):
    """One line of a chart; ``smooth``: draw it faintly with its running mean over it."""

    series: Series
    color: str
    dashed: bool = False
    smooth: bool = False


def line_chart(
    name: str,
    lines: Sequence[Line],
    *,
    last_step: int,
    unit: str = "",
    top: float | None = None,
    small: bool = False,
) -> Markup:
    """Lines over steps as an SVG element that fills the width it is given.

    Args:
      name: what is shown; also read to those who cannot see. No two charts of a page may share one.
      lines: values that are not negative; empty series are left out.
      last_step: right end of the axis.
      unit: of the values, written beside the axis.
      top: upper end of the axis; None for the largest value.
      small: for one of many beside each other, with fewer numbers on its axes.
    """
    style: Any = _STYLE | {"svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(2.0, 1.2) if small else (4.6, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            _draw(axes, line)
        drawn = np.concatenate([thin(line.series).values for line in lines])
        axes.set_xlim(0, max(last_step, 1))
        axes.set_ylim(0, top if top is not None else (1.05 * drawn.max(initial=0) or 1))
        steps = [1, 2, 5, 10]
        axes.xaxis.set_major_locator(MaxNLocator(3 if small else 6, integer=True, steps=steps))
        if last_step >= 10_000:
            axes.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step else "0")
        axes.yaxis.set_major_locator(MaxNLocator(2 if small else 5, steps=steps))
        axes.grid(color=_INK, alpha=0.15, linewidth=0.5)
        axes.set_axisbelow(True)
        if not small:
            axes.set_xlabel("step")
            axes.set_ylabel(unit)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), name)


def thin(series: Series, most: int = _MOST_POINTS) -> Series:
    """At most ``most`` points, each the mean of equally many; what does not fill the last one is averaged likewise."""
    size = -(-len(series.values) // most)
    if size <= 1:
        return series
    starts = np.arange(0, len(series.values), size)
    counts = np.diff(np.append(starts, len(series.values)))
    return Series(series.steps[starts + counts - 1], np.add.reduceat(series.values, starts) / counts)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Means over ``window`` values up to and around each (fewer at both ends); ``[n]`` → ``[n]``."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones_like(values), ones, "same")


def _draw(axes, line: Line) -> None:
    steps, values = thin(line.series)
    if not len(values):
        return
    style = {"color": line.color, "linestyle": (0, (4, 2)) if line.dashed else "-", "clip_on": False}
    if line.smooth and len(values) >= _LEAST_SMOOTHED:
        axes.plot(steps, values, alpha=0.35, linewidth=0.7, **style)
        axes.plot(steps, running_mean(values, max(3, int(_SMOOTHED_PART * len(values)))), linewidth=1.6, **style)
    else:
        axes.plot(steps, values, linewidth=1.4, marker="o" if len(values) <= 30 else "", markersize=2.5, **style)


def _inline(svg: str, name: str) -> Markup:
    """matplotlib's file as an element of a page: without prologue, size, styles for all, clips and unused names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<clipPath.*?</clipPath>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' clip-path="[^"]*"', "", svg)
    used = set(re.findall(r'href="#([^"]*)"', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = svg.replace(f": {_INK}", ": currentColor")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box
    head = Markup('<svg {} role="img" aria-label="{}" xmlns:xlink="http://www.w3.org/1999/xlink">').format(
        Markup(box[0]), name
    )
    return head + Markup(svg[svg.index(">") + 1 :].strip())
