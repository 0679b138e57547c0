"""GTA-5 or SYNTHIA → Cityscapes: training runs and tables of the paper's experiments.

``--scale=paper`` needs the data sets as downloaded and VGG-16 weights. ``--scale=smoke`` runs a whole experiment on
the bundled synthetic data set, at a size whose numbers mean nothing: it shows that the command works.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from paper import CAVEATS_SWEEPS, METHODS, NETWORKS
from study import Results, Study, arguments, mean_ious, networks_of, seed_spread, small, write

from sean_jax.config import describe_settings
from sean_jax.errors import UserError
from sean_jax.scoring.protocols import score
from sean_jax.scoring.stored import COMPARABLE

SMOKE: dict[str, Any] = {
    "source": "minicity_game", "target": "minicity_camera", "width_multiplier": 1 / 32, "fc_channels": 256,
    "height": 24, "width": 48, "steps": 4, "learning_rate": 1e-3, "log_every": 2, "eval_every": 4, "save_every": 4,
    "eval_batch_size": 4,
}  # fmt: skip
SOURCE_ONLY = {"method": "source_only"}


def parser(description: str, **flags: Any) -> argparse.ArgumentParser:
    """A parser with the flags of the paper's experiments."""
    return arguments(
        description,
        ("paper", "smoke"),
        source_dir={"help": "the source's folder, as downloaded"},
        cityscapes_dir={"help": "Cityscapes' folder, as downloaded"},
        init_weights={"help": "VGG-16 weights (.pth, .safetensors, .npz); the paper starts from ImageNet's"},
        preset={"nargs": "+", "choices": ["paper", "reference", "published"], "default": ["paper"]},
        **flags,
    )


def study(args: argparse.Namespace, source: str) -> Study:
    """The training runs from ``source`` (gta5: 19 classes, synthia: 16), scored as in the paper."""
    classes = {"gta5": "19", "synthia": "16"}[source]
    common = {"classes": classes, "data_dir": args.data_dir, "loader": args.loader, "precision": args.precision}
    runs = pathlib.Path(args.runs) / args.scale / f"{source}-cityscapes"
    if args.scale == "smoke":
        scored = {"minicity_camera": {"dataset": "minicity_camera", "split": "test"}}
        return Study(runs, common | SMOKE, scored, protocol=classes)
    if not (args.source_dir and args.cityscapes_dir):
        raise UserError("--source_dir and --cityscapes_dir are needed, as downloaded; --scale=smoke does without")
    where = {"source": source, "source_dir": args.source_dir, "init_weights": args.init_weights}
    where |= {"target": "cityscapes", "target_dir": args.cityscapes_dir}
    scored = {"cityscapes": {"dataset": "cityscapes", "dataset_dir": args.cityscapes_dir, "split": "val"}}
    return Study(runs, common | where, scored, protocol=classes)


def methods(presets: Sequence[str], chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The chosen methods on the same network, under each preset."""
    return {f"{method}, {preset}": {"method": method, "preset": preset} for preset in presets for method in chosen}


def training(row: str) -> str:
    """The name of a row's training run."""
    return row.replace(", ", "-").replace(" ", "_")


class PaperRows(NamedTuple):
    """A table of the paper.

    Attributes:
      rows: row → IoU by class in percent, then the mean; None where the paper has none.
      short_names: class → its name in the table, in the order of the rows.
      caveats: notes under the table.
    """

    rows: Mapping[str, Sequence[float | None]]
    short_names: Mapping[str, str]
    caveats: Sequence[str]


def comparison(name: str, source: str, paper: PaperRows, description: str, also: str | None = None) -> None:
    """Tables 1 and 2: all systems of the paper, under its rows; ``also``: see :func:`class_table`."""
    systems = list(METHODS.values())
    args = parser(description, methods={"nargs": "+", "choices": systems, "default": systems}).parse_args()
    trainings = study(args, source)
    rows = methods(args.preset, args.methods)
    results = trainings.results(rows, args.seeds, {row: training(row) for row in rows})
    networks = [f"{row} (paper): {NETWORKS[row]}." for row in paper.rows]
    text = class_table(paper, results, also) + "\n" + notes(results, [*paper.caveats, *networks])
    out = pathlib.Path(args.out or trainings.runs / name)
    write(out, text, small(results), scale=args.scale, paper=paper.rows)


def class_table(paper: PaperRows, results: Results, also: str | None = None) -> str:
    """Markdown: the paper's rows, then ours (means over seeds; the mean IoU with its standard deviation).

    ``also``: a protocol whose mean is given in a further column, computed from the same confusion matrices.
    """
    short_names = paper.short_names
    further = [f"mIoU ({also})"] if also else []
    lines = [" | ".join(["| method", *short_names.values(), "mIoU", *further]) + " |"]
    lines.append("| --- " * (2 + len(short_names) + len(further)) + "|")
    for row, values in paper.rows.items():
        cells = ["–" if value is None else f"{value:.1f}" for value in values]
        lines.append(" | ".join([f"| {row} (paper)", *cells, *(_paper_mean(values, short_names, also))]) + " |")
    for row, seeds in results.items():
        for network in networks_of(results, row):
            scores = [scores[network] for found in seeds.values() for scores in found["scores"].values()]
            cells = [_mean_iou_of(scores, name) for name in short_names]
            cells.append(seed_spread([found["mean_iou"] for found in scores]))
            if also:
                again = [score(np.array(s["confusion_matrix"]), tuple(s["classes"]), also)["mean_iou"] for s in scores]
                cells.append(seed_spread(again))
            chosen = ", oracle selection" if scores[0]["selection"] == "oracle selection" else ""
            lines.append(" | ".join([f"| {row}, {network}{chosen}", *cells]) + " |")
    return "\n".join(lines)


def _paper_mean(values: Sequence[float | None], names: Mapping[str, str], also: str | None) -> list[str]:
    if also is None:
        return []
    kept = [v for v, name in zip(values, names, strict=False) if name not in ("wall", "fence", "pole")]
    return [f"{np.mean([v for v in kept if v is not None]):.1f}"]


def _mean_iou_of(scores: Sequence[Mapping[str, Any]], name: str) -> str:
    present = [s["iou"][name] for s in scores if s["iou"][name] is not None]
    return f"{np.mean(present):.1f}" if present else "–"


def sweep(name: str, setting: str, symbol: str, paper_values: Mapping[float, float], description: str) -> None:
    """Tables 3 and 4: ``sean`` from SYNTHIA with one setting at the paper's values, under the paper's mean IoU."""
    flags = parser(description)
    flags.set_defaults(seeds=[0])
    args = flags.parse_args()
    trainings = study(args, "synthia")
    values = list(paper_values)[:2] if args.scale == "smoke" else list(paper_values)
    default = describe_settings()[setting][0]
    lines = [
        " | ".join([f"| {symbol}", *(f"{value:g}" for value in values)]) + " |",
        "| --- " * (1 + len(values)) + "|",
    ]
    lines.append(" | ".join(["| SEAN (paper)", *(f"{paper_values[value]:.1f}" for value in values)]) + " |")
    found: Results = {}
    for preset in args.preset:
        of = {f"sean, {preset}, {symbol} {v:g}": {"preset": preset, setting: v} for v in values}
        shared = {row: f"sean, {preset}" for row, settings in of.items() if settings[setting] == default}
        results = trainings.results(of, args.seeds, {row: training(shared.get(row, row)) for row in of})
        for network in networks_of(results, next(iter(of))):
            cells = [seed_spread(mean_ious(results, row, scored, network)) for row in of for scored in trainings.scored]
            lines.append(" | ".join([f"| sean, {preset}, {network}", *cells]) + " |")
        found |= results
    text = "\n".join([*lines, notes(found, CAVEATS_SWEEPS)])
    out = pathlib.Path(args.out or trainings.runs / name)
    write(out, text, small(found), scale=args.scale, paper={f"{v:g}": iou for v, iou in paper_values.items()})


def notes(results: Results, caveats: Sequence[str]) -> str:
    """Notes under a table: what all our scores have in common, and the caveats.

    Raises:
      UserError: the scores differ in more than how their checkpoint was selected, so they are not comparable.
    """
    scores = [
        s for seeds in results.values() for f in seeds.values() for by in f["scores"].values() for s in by.values()
    ]
    said = {}
    for key in COMPARABLE:
        values = sorted({str(s[key]) for s in scores})
        if len(values) > 1 and key != "selection":
            raise UserError(f"scores of unlike {key} ({', '.join(values)}) cannot stand in one table")
        said[key] = " and ".join(values)
    seeds = len(next(iter(results.values())))
    counted = "one seed" if seeds == 1 else f"mean ± standard deviation of {seeds} seeds"
    ours = f"Ours: {counted}; " + ", ".join(f"{key} {value}" for key, value in said.items()) + "."
    return "\n".join(["", *(f"- {line}" for line in (ours, *caveats))])
