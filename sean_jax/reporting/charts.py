"""Line charts as inline SVG that inherits its text colour from the page. Equal lines give equal bytes."""

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

# Line colours, one per run: Okabe and Ito's palette for colour-blind readers, with a contrast of at least 3:1 to white
# and to the page's dark background. No two differ in red against green alone.
COLORS = ("#3d7fd9", "#d55e00", "#009e73", "#cc6fa8", "#a8862a", "#8a8f98")

_INK = "#010203"  # replaced by currentColor: a colour that nothing else has
_MOST_POINTS = 1200  # per line, more than a screen shows; longer series are averaged in groups of equal size
_SMOOTHED_PART, _LEAST_SMOOTHED = (
    0.05,
    40,
)  # window of the running mean as a share of the points; least points to draw one
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar sign in a name is only that
    "font.family": ["DejaVu Sans"],  # to lay out the text; the page draws it in its own font, which is narrower
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
      dash: index into the dash patterns: 0 is solid.
      smooth: draw the line faintly, with its running mean on top.
    """

    series: Series
    color: str
    dash: int = 0
    smooth: bool = False


_DASHES = {"solid": "-", "dashed": (0, (4, 2)), "dotted": (0, (1, 1.5))}  # CSS → matplotlib


def line_dash(index: int) -> str:
    """The CSS border style that stands for a dash pattern in a legend."""
    return list(_DASHES)[index % len(_DASHES)]


def line_chart(
    name: str,
    lines: Sequence[Line],
    *,
    last_step: int,
    unit: str = "",
    top: float | None = None,
    small: bool = False,
) -> Markup:
    """Lines over steps as an SVG element that fills the available width.

    Args:
      name: the chart's title, also its label for screen readers; unique on a page.
      lines: empty series are left out.
      last_step: right end of the horizontal axis.
      unit: unit of the values, written beside the vertical axis.
      top: upper end of the vertical axis; None for the largest value.
      small: one of many small charts, with fewer numbers on its axes.
    """
    style: Any = _STYLE | {"svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(2.0, 1.2) if small else (4.6, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            _draw(axes, line)
        drawn = np.concatenate([thin(line.series).values for line in lines])
        axes.set_xlim(0, max(last_step, 1))
        bottom, largest = 1.05 * drawn.min(initial=0), 1.05 * drawn.max(initial=0)
        axes.set_ylim(bottom, top if top is not None else (largest or -bottom or 1))
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
    """At most ``most`` points, each the mean of a group of equal size; the last group may be smaller."""
    size = -(-len(series.values) // most)
    if size <= 1:
        return series
    starts = np.arange(0, len(series.values), size)
    counts = np.diff(np.append(starts, len(series.values)))
    return Series(series.steps[starts + counts - 1], np.add.reduceat(series.values, starts) / counts)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred means over ``window`` values (fewer at both ends); ``[n]`` → ``[n]``."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones_like(values), ones, "same")


def _draw(axes, line: Line) -> None:
    steps, values = thin(line.series)
    if not len(values):
        return
    style = {"color": line.color, "linestyle": _DASHES[line_dash(line.dash)], "clip_on": False}
    if line.smooth and len(values) >= _LEAST_SMOOTHED:
        axes.plot(steps, values, alpha=0.35, linewidth=0.7, **style)
        axes.plot(steps, running_mean(values, max(3, int(_SMOOTHED_PART * len(values)))), linewidth=1.6, **style)
    else:
        axes.plot(steps, values, linewidth=1.4, marker="o" if len(values) <= 30 else "", markersize=2.5, **style)


def _inline(svg: str, name: str) -> Markup:
    """matplotlib's SVG file as an element of the page: without prologue, size, global styles, clips and unused ids."""
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
