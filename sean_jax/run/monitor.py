"""Progress and results of a run: progress bar, metrics files, TensorBoard, pictures and scores."""

import pathlib
import sys
import time
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tqdm import tqdm

from sean_jax.experiment import Experiment
from sean_jax.run.directory import MetricsFile, write_json
from sean_jax.run.records import read_lines
from sean_jax.scoring.metrics import format_table
from sean_jax.scoring.scorer import Evaluation, describe
from sean_jax.scoring.stored import read_scores


class Monitor:
    """Writes ``metrics.jsonl``, ``timing.jsonl``, ``tensorboard/``, ``pictures/`` and ``evaluation.json`` of a run.

    On hosts other than the leader it does nothing.
    """

    def __init__(
        self, workdir: pathlib.Path, experiment: Experiment, restored_step: int, images_per_step: int, leader: bool
    ):
        self._leader = leader
        if not leader:
            return
        self._workdir, self._config = workdir, experiment.config
        self._images_per_step = images_per_step
        self._line: dict[str, float] = {}  # the current step's line of metrics.jsonl
        self._times: dict[str, float] = {}  # the current step's line of timing.jsonl
        kept = restored_step or -1  # what starts again scores its start again
        self._metrics_file = MetricsFile(workdir / "metrics.jsonl", kept)
        self._timing_file = MetricsFile(workdir / "timing.jsonl", kept)
        # TensorBoard hides what an earlier process wrote from this step on.
        purge = restored_step + 1 if restored_step else None
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=purge, write_to_disk=True)
        self._pictures = workdir / "pictures"
        self._pictures.mkdir(exist_ok=True)
        for picture in self._pictures.glob("step_*.png"):
            if int(picture.stem.removeprefix("step_")) > restored_step:
                picture.unlink()
        evaluation = workdir / "evaluation.json"
        if evaluation.exists() and (first_scores(evaluation)["step"] or 0) > restored_step:
            evaluation.unlink()
        self._bar = tqdm(
            total=experiment.config.steps,
            initial=restored_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        self._last_log = (restored_step, time.perf_counter())

    def step(self) -> None:
        """Advances the progress bar by one step."""
        if self._leader:
            self._bar.update()

    def metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Records the metrics of ``step``."""
        if not self._leader:
            return
        self._line |= metrics
        now = time.perf_counter()
        last_step, last_time = self._last_log
        rate = (step - last_step) * self._images_per_step / (now - last_time)
        self._last_log = (step, now)
        self._times |= {"training_seconds": round(now - last_time, 4), "images_per_second": round(rate, 4)}
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        self._board.add_scalar("time/images_per_second", rate, step)
        losses = {name: value for name, value in metrics.items() if "loss" in name}
        shown = ", ".join(f"{name.removeprefix('train/')} {value:.3g}" for name, value in losses.items())
        self._bar.set_postfix_str(f"{shown}, {rate:.3g} images/s", refresh=False)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Records the scores and the picture of ``step``."""
        if not self._leader:
            return
        last_step, last_time = self._last_log
        if last_step == step:  # otherwise the time would include training steps that were still running
            self._times["evaluation_seconds"] = round(time.perf_counter() - last_time, 4)
        (_, first), *others = evaluation.scores.items()
        metrics = {"val/mean_iou": first["mean_iou"]}
        metrics |= {f"val/{name}/mean_iou": scores["mean_iou"] for name, scores in others}
        metrics |= {f"val/iou/{name}": value for name, value in first["iou"].items() if value is not None}
        self._line |= metrics
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        self.picture(step, evaluation.panel)
        if step and self._replaces_evaluation(first):
            write_json(self._workdir / "evaluation.json", evaluation.scores)
        also = ", ".join(f"{name} {scores['mean_iou']:.1f}" for name, scores in others)
        also = f" ({also})" if also else ""
        self.say(f"step {step}: mean IoU {first['mean_iou']:.1f}{also}, protocol {first['protocol']}")

    def picture(self, step: int, panel: np.ndarray) -> None:
        """Records the picture of ``step``, RGB ``[H, W, 3]`` uint8."""
        if not self._leader:
            return
        self._board.add_image("panel", panel, step, dataformats="HWC")
        self._board.flush()
        Image.fromarray(panel).save(self._pictures / f"step_{step:06d}.png")
        self._last_log = (step, time.perf_counter())  # this time is not training time

    def _replaces_evaluation(self, scores: dict[str, Any]) -> bool:
        path = self._workdir / "evaluation.json"
        if self._config.selection == "last" or not path.exists():
            return True
        # Ties go to the later step, as for checkpoints.
        return first_scores(path)["mean_iou"] <= scores["mean_iou"]

    def end_step(self, step: int) -> None:
        """Writes the lines of the step to ``metrics.jsonl`` and ``timing.jsonl``, if it has any."""
        if self._leader and self._line:
            self._metrics_file.write(step, self._line)
            self._line = {}
        if self._leader and self._times:
            self._timing_file.write(step, self._times)
            self._times = {}

    def say(self, line: str) -> None:
        """Prints a line above the progress bar."""
        if self._leader:
            self._bar.write(line, file=sys.stdout)

    def close(self) -> None:
        if self._leader:
            self._bar.close()
            self._metrics_file.close()
            self._timing_file.close()
            self._board.close()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def first_scores(path: pathlib.Path) -> dict[str, Any]:
    """Reads the scores of the main network from ``evaluation.json``."""
    return next(iter(read_scores(path).values()))


def final_report(workdir: pathlib.Path) -> str:
    """Returns the class table of the main network and the mean IoU of the others; empty if the run has no scores."""
    path = workdir / "evaluation.json"
    if not path.exists():
        return ""
    first, *others = read_scores(path).values()
    lines = [describe(first), format_table(first)]
    lines += [f"{describe(scores)}: mean IoU {scores['mean_iou']:.1f}" for scores in others]
    start = next(iter(read_lines(workdir / "metrics.jsonl")), {})
    if start.get("step") == 0:
        lines.append(f"{first['network']}, step 0, before this run: mean IoU {start['val/mean_iou']:.1f}")
    return "\n".join(lines)
