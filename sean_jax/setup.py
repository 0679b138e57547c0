"""From settings to what a run works with: data sets, label space, initial weights, prepared images."""

from typing import Any, NamedTuple

from sean_jax import weights
from sean_jax.config import ARCHITECTURE, Config, choose_preset, reference_architecture, resolve
from sean_jax.data.builder import prepare
from sean_jax.data.classes import load_label_space
from sean_jax.data.datasets import Dataset, label_map, load_dataset
from sean_jax.data.prepared import PreparedSet
from sean_jax.data.sources import default_data_dir, resolve_source_dir
from sean_jax.errors import UserError
from sean_jax.rundir import Run


class Plan(NamedTuple):
    """A run before any file of its data sets was opened."""

    run: Run
    source: Dataset
    target: Dataset
    initial_weights: weights.WeightsFile | None


def plan(given: dict[str, Any]) -> Plan:
    """Resolves the settings that were ``given`` into a whole configuration.

    Raises:
      UserError: an unknown data set or label space, a value out of range, a source that cannot supply the
        label space, unreadable weights.
    """
    values = choose_preset({"data_dir": default_data_dir()} | given)
    source, target = load_dataset(values["source"]), load_dataset(values["target"])
    file = weights.read(values["init_weights"]) if values.get("init_weights") else None
    config = resolve(
        values,
        default_classes=values["source"] if values["source"].endswith(".toml") else source.label_space.name,
        evaluation_split=target.evaluation_split,
        selection_split=target.selection_split,
        input_convention=weights.metadata(file)["input_convention"] if file else None,
    )
    assert config.classes is not None
    space = load_label_space(config.classes)
    label_map(source, space)  # refused here if the source cannot supply the space
    if config.eval_split:
        label_map(target, space)
        if target.split(config.eval_split).labels is None:
            raise UserError(f"--eval_split={config.eval_split} of {target.name} has no labels to score on")
    source.split(config.source_split)
    target.split(config.target_split)
    return Plan(Run(config, space), source, target, file)


def differing_architecture(file: weights.WeightsFile, config: Config) -> list[str]:
    """What the network that ``file`` was trained in does otherwise, as ``name: theirs, here: ours``."""
    theirs = weights.metadata(file).get("architecture", {})
    if theirs == "reference":
        theirs = reference_architecture()
    return [
        f"{name}: {theirs[name]}, here: {getattr(config, name)}"
        for name in ARCHITECTURE
        if name in theirs and theirs[name] != getattr(config, name)
    ]


def prepare_training(plan: Plan, *, reads_target: bool, progress: bool) -> tuple[PreparedSet, PreparedSet | None]:
    """The source with labels and the target without: its label files are neither opened nor looked for."""
    config = plan.run.config
    target = None
    if reads_target:
        target = _prepare(plan.target, config.target_split, "none", config.target_dir, "--target_dir", config, progress)
    source = _prepare(plan.source, config.source_split, "resized", config.source_dir, "--source_dir", config, progress)
    return source, target


def prepare_scoring(
    config: Config, dataset: Dataset, *, progress: bool, flag: str = "--target_dir"
) -> PreparedSet | None:
    """The images of the ``eval_split`` with labels at their own size; None if the configuration names none."""
    if config.eval_split is None:
        return None
    return _prepare(dataset, config.eval_split, "original", config.target_dir, flag, config, progress)


def _prepare(
    dataset: Dataset, split: str, labels: str, folder: str | None, flag: str, config: Config, progress: bool
) -> PreparedSet:
    assert config.data_dir is not None
    place: dict[str, Any] = {"data_dir": config.data_dir, "flag": flag, "progress": progress}
    size: dict[str, Any] = {"height": config.height, "width": config.width}
    source_dir = resolve_source_dir(dataset, folder, **place, **size)
    return prepare(dataset, split=split, source_dir=source_dir, labels=labels, **place, **size)
