"""Plots of results, for people; the numbers stand in the JSON beside them."""

import pathlib

from matplotlib.figure import Figure
from study import NETWORKS, Results, mean_ious

COLORS = {"student": "#0072b2", "teacher": "#d55e00"}  # told apart by the colour-blind too


def dots(results: Results, scored: str, file: pathlib.Path) -> None:
    """A PNG: a line a row with a dot for each seed's mean IoU on ``scored``, and a bar at the seeds' mean."""
    rows = list(results)
    figure = Figure(figsize=(7, 0.8 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for network, shift in zip(NETWORKS, (-0.14, 0.14), strict=True):
        for place, row in enumerate(rows):
            values = mean_ious(results, row, scored, network)
            label = network if place == 0 else None
            axes.plot(values, [place + shift] * len(values), "o", color=COLORS[network], alpha=0.75, label=label)
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [place + shift - 0.13, place + shift + 0.13], color=COLORS[network])
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlabel(f"mean IoU on {scored}, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)
    print(f"wrote {file}")
