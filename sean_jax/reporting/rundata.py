"""What a run directory holds, read without JAX: configuration, metrics, times, scores, and where its pictures are."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError

# What a score must say of itself to be shown.
SAID = ("dataset", "split", "images", "checkpoint", "protocol", "selection", "classes", "iou", "mean_iou")


class Series(NamedTuple):
    """Values by step: both ``[n]``, steps ascending; empty where the run recorded none."""

    steps: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float | None:
        return float(self.values[-1]) if len(self.values) else None


@dataclasses.dataclass(frozen=True)
class RunData:
    """A run as it lies on the disk, finished or not.

    Attributes:
      name: what the page calls it; no two runs of a page share one.
      settings: of ``config.json``, by name, in its order.
      metrics, timing: lines of ``metrics.jsonl`` and ``timing.jsonl``; empty where there is no such file.
      scores: entries of ``evaluation.json`` by network; empty where nothing was scored.
      pictures: path by step.
    """

    name: str
    settings: dict[str, Any]
    label_space: LabelSpace
    metrics: list[dict[str, float]] = dataclasses.field(default_factory=list)
    timing: list[dict[str, float]] = dataclasses.field(default_factory=list)
    scores: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    pictures: dict[int, pathlib.Path] = dataclasses.field(default_factory=dict)

    def series(self, key: str) -> Series:
        """A quantity of ``metrics.jsonl`` or ``timing.jsonl`` over the steps at which it was recorded."""
        found = [(line["step"], line[key]) for line in (*self.metrics, *self.timing) if key in line]
        return Series(np.array([step for step, _ in found], int), np.array([value for _, value in found], float))

    @property
    def last_step(self) -> int:
        """The last step that was recorded, 0 if none was."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def steps(self) -> int:
        """The steps that the run is meant to take."""
        return int(self.settings["steps"])


def load_runs(workdirs: Sequence[str]) -> list[RunData]:
    """The runs in these directories, each under the shortest end of its path that no other one shares.

    Raises:
      UserError: a directory is not there, holds no run, is named twice, or one of its files is damaged.
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
    settings, label_space = _configuration(path / "config.json")
    pictures = {}
    for picture in sorted((path / "pictures").glob("step_*.png")):
        number = picture.stem.removeprefix("step_")
        if number.isdecimal():
            pictures[int(number)] = picture
    return RunData(
        name=name,
        settings=settings,
        label_space=label_space,
        metrics=_lines(path / "metrics.jsonl"),
        timing=_lines(path / "timing.jsonl"),
        scores=_scores(path / "evaluation.json"),
        pictures=dict(sorted(pictures.items())),
    )


def _configuration(path: pathlib.Path) -> tuple[dict[str, Any], LabelSpace]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = dict(content["settings"])
        if unsaid := [name for name in ("steps", "method", "source", "target") if settings.get(name) is None]:
            raise ValueError(f"nothing is said of {', '.join(unsaid)}")
        int(settings["steps"])
        return settings, LabelSpace.from_dict(content["label_space"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a run's configuration ({error!r}); train anew or restore the file") from None


def _lines(path: pathlib.Path) -> list[dict[str, float]]:
    """The lines of a file of metrics. A last line that was cut off when its process was killed is left out."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if line.endswith(b"\n"):
            found.append(_line(line, path, number))
    return found


def _line(line: bytes, path: pathlib.Path, number: int) -> dict[str, float]:
    try:
        values = json.loads(line)
        if "step" in values and all(_is_number(value) for value in values.values()):
            return values
    except (ValueError, TypeError, AttributeError):
        pass
    raise UserError(f"{path}, line {number} is damaged; expected an object of numbers with a step; remove the line")


def _scores(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, entry in content.items():
            if unsaid := [key for key in SAID if key not in entry]:
                raise ValueError(f"{name}: nothing is said of {', '.join(unsaid)}")
            shape = np.array(entry["confusion_matrix"], np.int64).shape
            if shape != (len(entry["classes"]),) * 2:
                raise ValueError(f"{name}: a matrix of {shape} for {len(entry['classes'])} classes")
            if not all(_is_number(v) for v in (entry["mean_iou"], *entry["iou"].values()) if v is not None):
                raise ValueError(f"{name}: a score that is no number")
        if "teacher" not in content:
            raise ValueError("the teacher is missing")
        return content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no scores ({error!r}); remove it, or restore the file") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
