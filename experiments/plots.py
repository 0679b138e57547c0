"""Plots of results; the numbers are in the JSON files beside them."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from study import Results, Study, mean_ious, networks_of

from sean_jax.scoring.scorer import truth_of
from sean_jax.scoring.visualize import colorize

COLORS = ("#d55e00", "#0072b2", "#009e73")  # the network that counts first; distinguishable for the colour-blind


def grid(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], file: pathlib.Path) -> None:
    """Writes a PNG of pictures (RGB uint8) in rows and columns, with a title above each column."""
    height, width = rows[0][0].shape[:2]
    figure = Figure(figsize=(3.2 * len(titles), 3.2 * len(rows) * height / width + 0.4), layout="constrained")
    all_axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_of_row, pictures in zip(all_axes, rows, strict=True):
        for axes, picture in zip(axes_of_row, pictures, strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
    for axes, title in zip(all_axes[0], titles, strict=True):
        axes.set_title(title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    print(f"wrote {file}")


def predictions(
    trainings: Study, runs: Mapping[str, pathlib.Path], scored: str, file: pathlib.Path, count: int = 4
) -> None:
    """Writes a PNG of input, ground truth and predictions: ``count`` images spread over a scored set.

    Args:
      runs: title of a column → the run directory of the network that counts there.
    """
    columns = []
    for workdir in runs.values():
        scorer, params = trainings.open(workdir, scored)
        examples = scorer.sample(count)
        columns.append([colorize(scorer.segment(params, example.image)[0], scorer.palette) for example in examples])
    truth = [colorize(truth_of(example), scorer.palette) for example in examples]
    rows = list(zip([example.image for example in examples], truth, *columns, strict=True))
    grid(rows, ["input", "ground truth", *runs], file)


def dots(results: Results, scored: str, file: pathlib.Path) -> None:
    """Writes a PNG with one line per row: a dot for each seed's mean IoU on ``scored``, a bar at their mean."""
    rows = list(results)
    figure = Figure(figsize=(7, 0.8 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    labelled = set()
    for i, row in enumerate(rows):
        for color, shift, network in zip(COLORS, (0.14, -0.14, 0.0), reversed(networks_of(results, row)), strict=False):
            values = mean_ious(results, row, scored, network)
            label = None if network in labelled else network
            labelled.add(network)
            axes.plot(values, [i + shift] * len(values), "o", color=color, alpha=0.75, label=label)
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [i + shift - 0.13, i + shift + 0.13], color=color)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlabel(f"mean IoU on {scored}, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)
    print(f"wrote {file}")
