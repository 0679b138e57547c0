"""What the experiments share: trainings that are made once and resumed, their scores, and files of results.

Everything runs in one process, so that the libraries are loaded once; each training has a run directory of its own
under ``--runs``, named after what distinguishes it. A training that is there is not made again, one that was
interrupted goes on, and experiments that ask for the same training share it.
"""

import argparse
import dataclasses
import json
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache
from sean_jax.errors import UserError
from sean_jax.run import stages
from sean_jax.run.directory import write_json
from sean_jax.run.records import read_lines
from sean_jax.run.score import open_scorer
from sean_jax.run.trained import TrainedNetwork, network_names, open_network
from sean_jax.scoring.scorer import Scorer

Settings = Mapping[str, Any]  # fields of sean_jax.config.Config
Scores = dict[str, dict[str, Any]]  # by network, what sean_jax.scoring.scorer says of it
Results = dict[str, dict[int, dict[str, Any]]]  # by row and seed: scores by scored set, and the share of kept pixels


def arguments(description: str, scales: Iterable[str], **flags: Any) -> argparse.ArgumentParser:
    """The flags of every experiment; ``flags`` are further ones by name: a default, or what argparse takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    scales = list(scales)
    parser.add_argument("--scale", choices=scales, default=scales[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", default="runs", help="folder of the run directories")
    parser.add_argument("--out", help="path of the results without ending; default: below --runs")
    parser.add_argument("--data_dir", help="prepared data; default: $SEAN_JAX_DATA_DIR or ~/sean_jax_data")
    parser.add_argument("--loader", choices=["tf_data", "grain"], default="tf_data")
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"])
    for name, options in flags.items():
        parser.add_argument(f"--{name}", **(options if isinstance(options, dict) else {"default": options}))
    return parser


@dataclasses.dataclass(frozen=True)
class Study:
    """Trainings that have most settings in common, and what each of them is scored on.

    Attributes:
      runs: folder of the run directories.
      settings: what all trainings share.
      scored: name → arguments of :func:`sean_jax.run.score.open_scorer` (dataset, dataset_dir, split).
      protocol: of the scores.
    """

    runs: pathlib.Path
    settings: Settings
    scored: Mapping[str, Mapping[str, Any]]
    protocol: str = "all"

    def train(self, name: str, seed: int, settings: Settings) -> pathlib.Path:
        """The directory of a finished training; ends the process if it is stopped by SIGTERM."""
        workdir = self.runs / f"{name}-seed{seed}"
        print(f"\n=== {workdir}", flush=True)
        given = {key: value for key, value in {**self.settings, **settings, "seed": seed}.items() if value is not None}
        finished = stages.train(given, workdir)
        if not finished:
            sys.exit(143)
        return workdir

    def score(self, workdir: pathlib.Path, scored: str) -> Scores:
        """Scores of a run's networks on a scored set, computed once and kept in the run directory; the first counts."""
        file = workdir / "scores" / f"{scored}.json"
        if file.exists():
            return json.loads(file.read_text())
        opened = [open_network(str(workdir), network=name) for name in network_names(workdir)]
        params = {network.name: network.params for network in opened}
        found = self._scorer(opened[0], scored).evaluate(params, opened[0].step, self.protocol)
        file.parent.mkdir(exist_ok=True)
        write_json(file, found)
        return found

    def open(self, workdir: pathlib.Path, scored: str) -> tuple[Scorer, Any]:
        """What draws predictions on a scored set, and the parameters of the run's network that counts."""
        network = open_network(str(workdir))
        return self._scorer(network, scored), network.params

    def _scorer(self, network: TrainedNetwork, scored: str) -> Scorer:
        where = {"data_dir": self.settings.get("data_dir"), "loader": self.settings.get("loader")}
        return open_scorer(network, **self.scored[scored], **where)

    def result(self, name: str, seed: int, settings: Settings) -> dict[str, Any]:
        """Of one training: scores by scored set, and the share of kept pixels in the last line of its metrics."""
        workdir = self.train(name, seed, settings)
        scores = {scored: self.score(workdir, scored) for scored in self.scored}
        lines = read_lines(workdir / "metrics.jsonl")
        kept = [line["train/kept_pixels"] for line in lines if "train/kept_pixels" in line]
        return {"scores": scores, "kept_pixels": kept[-1] if kept else None}

    def results(self, rows: Mapping[str, Settings], seeds: Sequence[int], trained: Mapping[str, str]) -> Results:
        """Of all rows; seed by seed, so that an early stop leaves complete comparisons.

        Args:
          rows: row name → its own settings.
          trained: row name → name of its training, where that differs.
        """
        found: Results = {row: {} for row in rows}
        for seed in seeds:
            for row, settings in rows.items():
                found[row][seed] = self.result(trained.get(row, row), seed, settings)
        return found


def networks_of(results: Results, row: str) -> list[str]:
    """The names of a row's networks, the one that counts last."""
    scores = next(iter(results[row].values()))["scores"]
    return list(reversed(next(iter(scores.values()))))


def mean_ious(results: Results, row: str, scored: str, network: str) -> list[float]:
    """In percent, a number a seed."""
    return [found["scores"][scored][network]["mean_iou"] for found in results[row].values()]


def seed_spread(values: Sequence[float], sign: str = "") -> str:
    """``mean ± sample standard deviation``, or the number itself if there is one; ``sign``: ``+`` for differences."""
    mean = f"{statistics.mean(values):{sign}.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def seeds_table(results: Results, scored: Sequence[str], held_out_from: Mapping[str, Sequence[str]] = {}) -> str:
    """Markdown: a line a row and network, mean ± standard deviation (and each seed's) by scored set.

    Args:
      held_out_from: row → scored sets that it was trained on the labels of, which are no scores of it.
    """
    lines = [" | ".join(["| method", "network", *scored, "kept pixels |"]), "| --- " * (3 + len(scored)) + "|"]
    for row, seeds in results.items():
        for network in networks_of(results, row):
            cells = []
            for name in scored:
                values = mean_ious(results, row, name, network)
                each = f" ({', '.join(f'{v:.1f}' for v in values)})" if len(values) > 1 else ""
                cells.append("–" if name in held_out_from.get(row, ()) else seed_spread(values) + each)
            kept = [found["kept_pixels"] for found in seeds.values() if found["kept_pixels"] is not None]
            cells.append(", ".join(f"{share:.2f}" for share in kept) or "–")
            lines.append(" | ".join([f"| {row}", network, *cells]) + " |")
    return "\n".join(lines)


def paired_rows(results: Results, scored: Sequence[str], pairs: Sequence[tuple[str, str]]) -> str:
    """Further lines of :func:`seeds_table`: one row minus another, seed by seed, which takes the seeds' spread out."""
    lines = []
    for one, other in pairs:
        for network in networks_of(results, one):
            if network not in networks_of(results, other):
                continue
            cells = []
            for name in scored:
                both = zip(*(mean_ious(results, row, name, network) for row in (one, other)), strict=True)
                values = [a - b for a, b in both]
                each = f" ({', '.join(f'{v:+.1f}' for v in values)})" if len(values) > 1 else ""
                cells.append(seed_spread(values, sign="+") + each)
            lines.append(" | ".join([f"| {one} − {other}", network, *cells, "–"]) + " |")
    return "\n".join(lines)


def write(out: pathlib.Path, table: str, results: Any, **facts: Any) -> None:
    """``out``.md with the table and ``out``.json with the numbers behind it, and on what they were measured."""
    record = {
        **facts,
        "hardware": hardware(),
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "results": results,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), record)
    out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\nwrote {out}.md and {out}.json", flush=True)


def small(results: Results) -> Any:
    """Of results what is worth committing: mean and per-class IoU to two decimals, no confusion matrices."""

    def of(scores: dict[str, Any]) -> dict[str, Any]:
        iou = {name: None if value is None else round(value, 2) for name, value in scores["iou"].items()}
        return {"mean_iou": round(scores["mean_iou"], 2), "iou": iou, "selection": scores["selection"]}

    return {
        row: {
            str(seed): {
                "kept_pixels": found["kept_pixels"] and round(found["kept_pixels"], 3),
                **{name: {n: of(s) for n, s in by.items()} for name, by in found["scores"].items()},
            }
            for seed, found in seeds.items()
        }
        for row, seeds in results.items()
    }


def hardware() -> str:
    """The accelerator, or the processor and its cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    models = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{models[0].partition(':')[2].strip()}, {len(models)} cores"


def run(main: Callable[[], None]) -> None:
    """Calls an experiment; bad input and Ctrl-C end it in one line, as they do the commands."""
    cli.quiet()
    compilation_cache.enable()
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
