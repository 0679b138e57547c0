"""What the experiments share: training runs, their scores, and files of results.

Everything runs in one process, so that the libraries are loaded once. Each training run has its own directory under
``--runs``, named after what distinguishes it. Finished runs are reused, interrupted ones are resumed, and experiments
that need the same run share it.
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
from sean_jax.methods import METHODS
from sean_jax.run import stages
from sean_jax.run.directory import write_json
from sean_jax.run.records import read_lines
from sean_jax.run.score import open_scorer
from sean_jax.run.trained import TrainedNetwork, network_names, open_network
from sean_jax.scoring.scorer import Scorer
from sean_jax.settings import names

Settings = Mapping[str, Any]  # fields of sean_jax.config.Config
Scores = dict[str, dict[str, Any]]  # by network, the scores of sean_jax.scoring.scorer
Results = dict[str, dict[int, dict[str, Any]]]  # by row and seed: scores by scored set, and the mask ratio


def arguments(description: str, scales: Iterable[str], **flags: Any) -> argparse.ArgumentParser:
    """A parser with the flags of every experiment and further ones by name: a default, or argparse's options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    scales = list(scales)
    parser.add_argument("--scale", choices=scales, default=scales[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", default="runs", help="folder of the run directories")
    parser.add_argument("--out", help="path of the results without ending; default: below --runs")
    parser.add_argument("--data_dir", help="prepared data; default: $SEAN_JAX_DATA_DIR or ~/sean_jax_data")
    parser.add_argument("--loader", choices=["tf_data", "grain"], default="tf_data")
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--settings", nargs="+", default=[], metavar="NAME=VALUE", help="of all runs, over the scale's")
    for name, options in flags.items():
        parser.add_argument(f"--{name}", **(options if isinstance(options, dict) else {"default": options}))
    return parser


def parse_settings(words: Iterable[str]) -> Settings:
    """``NAME=VALUE`` words as settings; values are numbers, true, false or text."""

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    return {name: value(text) for name, _, text in (word.partition("=") for word in words)}


@dataclasses.dataclass(frozen=True)
class Study:
    """Training runs that share most settings, and what each of them is scored on.

    Attributes:
      runs: folder of the run directories.
      settings: those that all runs share.
      scored: name → arguments of :func:`sean_jax.run.score.open_scorer` (dataset, dataset_dir, split).
      protocol: of the scores.
    """

    runs: pathlib.Path
    settings: Settings
    scored: Mapping[str, Mapping[str, Any]]
    protocol: str = "all"

    def workdir(self, name: str, seed: int) -> pathlib.Path:
        """The directory of a run."""
        return self.runs / f"{name}-seed{seed}"

    def train(self, name: str, seed: int, settings: Settings) -> pathlib.Path:
        """Trains or resumes a run and returns its directory; exits if SIGTERM stops it."""
        workdir = self.workdir(name, seed)
        print(f"\n=== {workdir}", flush=True)
        given = {**self._shared(settings.get("method", "sean")), **settings, "seed": seed}
        given = {key: value for key, value in given.items() if value is not None}
        finished = stages.train(given, workdir)
        if not finished:
            sys.exit(143)
        return workdir

    def _shared(self, method: str) -> Settings:
        """The common settings, without those of methods that lack them, such as the EMA's."""
        own = names(METHODS[method].Settings)
        others = {name for other in METHODS.values() for name in names(other.Settings)} - set(own)
        return {name: value for name, value in self.settings.items() if name not in others}

    def score(self, workdir: pathlib.Path, scored: str) -> Scores:
        """Scores of a run's networks on a scored set, computed once and kept in its directory; the first counts."""
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
        """A scorer that predicts on a scored set, and the parameters of the run's network that counts."""
        network = open_network(str(workdir))
        return self._scorer(network, scored), network.params

    def _scorer(self, network: TrainedNetwork, scored: str) -> Scorer:
        where = {"data_dir": self.settings.get("data_dir"), "loader": self.settings.get("loader")}
        return open_scorer(network, **self.scored[scored], **where)

    def result(self, name: str, seed: int, settings: Settings) -> dict[str, Any]:
        """Scores of one training run by scored set, and the mask ratio in the last line of its metrics."""
        workdir = self.train(name, seed, settings)
        scores = {scored: self.score(workdir, scored) for scored in self.scored}
        lines = read_lines(workdir / "metrics.jsonl")
        kept = [line["train/kept_pixels"] for line in lines if "train/kept_pixels" in line]
        return {"scores": scores, "kept_pixels": kept[-1] if kept else None}

    def results(
        self,
        rows: Mapping[str, Settings],
        seeds: Sequence[int],
        trained: Mapping[str, str],
        start: Settings | None = None,
    ) -> Results:
        """Results of all rows, seed by seed, so that an early stop leaves complete comparisons.

        Args:
          rows: row name → its own settings.
          trained: row name → name of its training run, where that differs.
          start: settings of a run that is trained first for each seed and whose network all rows start from.
        """
        found: Results = {row: {} for row in rows}
        for seed in seeds:
            started = {"init_weights": str(self.train("start", seed, start))} if start else {}
            for row, settings in rows.items():
                found[row][seed] = self.result(trained.get(row, row), seed, {**settings, **started})
        return found


def networks_of(results: Results, row: str) -> list[str]:
    """The names of a row's networks, the one that counts last."""
    scores = next(iter(results[row].values()))["scores"]
    return list(reversed(next(iter(scores.values()))))


def mean_ious(results: Results, row: str, scored: str, network: str) -> list[float]:
    """Mean IoU in percent of each seed."""
    return [found["scores"][scored][network]["mean_iou"] for found in results[row].values()]


def differences(results: Results, one: str, other: str, scored: str, network: str | None = None) -> list[float]:
    """Mean IoU of one row minus another, for each seed that both have; without ``network``, of their main networks."""
    shared = {
        row: {seed: results[row][seed] for seed in results[one] if seed in results[other]} for row in (one, other)
    }
    values = [mean_ious(shared, row, scored, network or networks_of(results, row)[-1]) for row in (one, other)]
    return [a - b for a, b in zip(*values, strict=True)]


def seed_spread(values: Sequence[float], sign: str = "") -> str:
    """``mean ± sample standard deviation``, or the number if there is only one; ``sign``: ``+`` for differences."""
    mean = f"{statistics.mean(values):{sign}.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def seeds_table(results: Results, scored: Sequence[str], held_out_from: Mapping[str, Sequence[str]] = {}) -> str:
    """A Markdown table with a line per row and network: mean ± standard deviation (and each seed's) by scored set.

    Args:
      held_out_from: row → scored sets whose labels it was trained on, on which it gets no score.
    """
    lines = [" | ".join(["| method", "network", *scored, "mask ratio |"]), "| --- " * (3 + len(scored)) + "|"]
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
    """More lines for :func:`seeds_table`: one row minus another, seed by seed, which removes the seed spread."""
    lines = []
    for one, other in pairs:
        if one not in results or other not in results:
            continue
        for network in networks_of(results, one):
            if network not in networks_of(results, other):
                continue
            cells = []
            for name in scored:
                values = differences(results, one, other, name, network)
                each = f" ({', '.join(f'{v:+.1f}' for v in values)})" if len(values) > 1 else ""
                cells.append(seed_spread(values, sign="+") + each)
            lines.append(" | ".join([f"| {one} − {other}", network, *cells, "–"]) + " |")
    return "\n".join(lines)


def gap_table(results: Results, scored: str, baseline: str = "source_only", oracle: str = "oracle") -> str:
    """A Markdown table: how much of the gap between baseline and oracle each other row closes, in percent of it."""
    gap = statistics.mean(differences(results, oracle, baseline, scored))
    if gap <= 0:
        return f"{oracle} is not above {baseline} on {scored}: there is no gap to close."
    lines = [f"| {scored} | share of the gap between {baseline} and {oracle} |", "| --- | --- |"]
    for row in (row for row in results if row not in (baseline, oracle)):
        gain = statistics.mean(differences(results, row, baseline, scored))
        lines.append(f"| {row} | {100 * gain / gap:.0f} % |")
    return "\n".join(lines)


def write(out: pathlib.Path, table: str, results: Any, **facts: Any) -> None:
    """Writes ``out``.md with the table and ``out``.json with its numbers, hardware and versions."""
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
    """Results without confusion matrices: mean and per-class IoU to two decimals."""

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
    """Calls an experiment; bad input and Ctrl-C end it with one line, as in the commands."""
    cli.quiet()
    compilation_cache.enable()
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
