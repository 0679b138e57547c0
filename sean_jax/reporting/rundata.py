"""The contents of a run directory as the report needs them, read without JAX."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError
from sean_jax.run.records import read_configuration, read_lines
from sean_jax.scoring.stored import read_scores


class Series(NamedTuple):
    """Values by step: both ``[n]``, steps ascending; empty if the run recorded none."""

    steps: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float | None:
        return float(self.values[-1]) if len(self.values) else None


@dataclasses.dataclass(frozen=True)
class RunData:
    """A run as it is on the disk, finished or not.

    Attributes:
      name: the run's name on the page; unique among the runs of a page.
      settings: name → value, from ``config.json``.
      metrics, timing: the lines of ``metrics.jsonl`` and ``timing.jsonl``; empty if there is no such file.
      scores: the entries of ``evaluation.json`` by network, the one that counts first; empty if nothing was scored.
      pictures: step → path.
      groups: setting → the method, network or optimizer that it belongs to; common settings are not listed.
    """

    name: str
    settings: dict[str, Any]
    label_space: LabelSpace
    metrics: list[dict[str, float]] = dataclasses.field(default_factory=list)
    timing: list[dict[str, float]] = dataclasses.field(default_factory=list)
    scores: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    pictures: dict[int, pathlib.Path] = dataclasses.field(default_factory=dict)
    groups: dict[str, str] = dataclasses.field(default_factory=dict)

    def series(self, key: str) -> Series:
        """A quantity of ``metrics.jsonl`` or ``timing.jsonl`` over the steps at which it was recorded."""
        found = [(line["step"], line[key]) for line in (*self.metrics, *self.timing) if key in line]
        return Series(np.array([step for step, _ in found], int), np.array([value for _, value in found], float))

    @property
    def quantities(self) -> list[str]:
        """The keys that occur in ``metrics.jsonl``, in order of appearance."""
        return list(dict.fromkeys(key for line in self.metrics for key in line if key != "step"))

    @property
    def last_step(self) -> int:
        """The last step that was recorded, 0 if none was."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def steps(self) -> int:
        """The number of steps that the run is to take."""
        return int(self.settings["steps"])

    @property
    def network(self) -> str:
        """The name of the network that counts."""
        return next(iter(self.scores), "first network")

    @property
    def score(self) -> dict[str, Any]:
        """The scores of the network that counts; empty if nothing was scored."""
        return self.scores.get(self.network, {})

    @property
    def mean_ious(self) -> dict[str, Series]:
        """The mean IoU of each network over the steps, the network that counts first."""
        others = [match[1] for key in self.quantities if (match := re.fullmatch("val/(.+)/mean_iou", key))]
        found = {self.network: "val/mean_iou"} | {name: f"val/{name}/mean_iou" for name in others}
        return {name: series for name, key in found.items() if len((series := self.series(key)).values)}


def load_runs(workdirs: Sequence[str]) -> list[RunData]:
    """The runs in these directories, each named by the shortest end of its path that is unique among them.

    Raises:
      UserError: a directory does not exist, holds no run, is given twice, or one of its files is damaged.
    """
    paths = [pathlib.Path(workdir).resolve() for workdir in workdirs]
    for workdir, path in zip(workdirs, paths, strict=True):
        if paths.count(path) > 1:
            raise UserError(f"--workdir={workdir} is given more than once; name each run once")
    depth = 1
    while len({_end(path, depth) for path in paths}) < len(paths):
        depth += 1
    return [_load(workdir, path, _end(path, depth)) for workdir, path in zip(workdirs, paths, strict=True)]


def _end(path: pathlib.Path, depth: int) -> str:
    return "/".join(path.parts[-depth:])


def _load(workdir: str, path: pathlib.Path, name: str) -> RunData:
    if not path.is_dir():
        raise UserError(f"--workdir={workdir} is not a folder; give a run directory")
    if not (path / "config.json").exists():
        raise UserError(f"--workdir={workdir} holds no run (config.json is missing); train one there first")
    configuration = read_configuration(path / "config.json")
    evaluation = path / "evaluation.json"
    pictures = {}
    for picture in sorted((path / "pictures").glob("step_*.png")):
        number = picture.stem.removeprefix("step_")
        if number.isdecimal():
            pictures[int(number)] = picture
    return RunData(
        name=name,
        settings=configuration.settings,
        label_space=configuration.label_space,
        metrics=read_lines(path / "metrics.jsonl"),
        timing=read_lines(path / "timing.jsonl"),
        scores=read_scores(evaluation) if evaluation.exists() else {},
        pictures=dict(sorted(pictures.items())),
        groups=configuration.groups,
    )
