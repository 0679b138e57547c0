"""From settings to what a run works with: data sets, label space, initial weights, prepared images."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sean_jax import weights
from sean_jax.config import Config, resolve
from sean_jax.data.catalogue import load_dataset, load_label_space
from sean_jax.data.dataset import Dataset, label_map, source_label_map
from sean_jax.data.folders import default_data_dir, resolve_source_dir
from sean_jax.data.preparation.builder import prepare
from sean_jax.data.preparation.listing import find_pairs
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError
from sean_jax.experiment import Experiment
from sean_jax.presets import choose_preset
from sean_jax.run import directory
from sean_jax.run.checkpoints import has_checkpoint
from sean_jax.run.trained import architecture_of, read_run


class Plan(NamedTuple):
    """A run before any file of its data sets was opened."""

    experiment: Experiment
    source: Dataset
    target: Dataset
    initial_weights: weights.WeightsFile | None  # None from scratch, and for a run that resumes


def plan(given: Mapping[str, Any], workdir: pathlib.Path | None = None) -> Plan:
    """Resolves the settings that were ``given`` into a whole configuration.

    Args:
      given: settings by name.
      workdir: the run directory. If it holds a checkpoint, ``init_weights`` is not read: the file may have moved.

    Raises:
      UserError: an unknown data set or label space, a value out of range, a source that cannot supply the
        label space, unreadable weights.
    """
    values = choose_preset({"data_dir": default_data_dir()} | dict(given))
    source, target = load_dataset(values["source"]), load_dataset(values["target"])
    file = None
    if workdir is not None and directory.exists(workdir) and has_checkpoint(workdir):
        before = directory.load(workdir).config
        values = {"initialization": before.initialization, "input_convention": before.input_convention} | values
    elif values.get("init_weights"):
        file = read_initial_weights(values["init_weights"])
    config = resolve(
        values,
        default_classes=str(values["source"]) if str(values["source"]).endswith(".toml") else source.label_space.name,
        evaluation_split=target.evaluation_split,
        selection_split=target.selection_split,
        input_convention=weights.metadata(file)["input_convention"] if file else None,
    )
    assert config.classes is not None
    space = load_label_space(config.classes)
    source_label_map(source, space)  # raises if the source cannot supply the space
    if config.eval_split:
        label_map(target, space)
        if target.split(config.eval_split).labels is None:
            raise UserError(f"--eval_split={config.eval_split} of {target.name} has no labels to score on")
    source.split(config.source_split)
    target.split(config.target_split)
    return Plan(Experiment(config, space), source, target, file)


def read_initial_weights(path: str) -> weights.WeightsFile:
    """The weights in a file, or those of the network that counts in a run directory."""
    return read_run(path) if os.path.isdir(path) else weights.read(path)


def differing_uses(file: weights.WeightsFile, experiment: Experiment) -> list[str]:
    """How the network that ``file`` was trained in differs from the run's, as ``name: theirs, here: ours``."""
    metadata = weights.metadata(file)
    name, theirs = architecture_of(metadata) or (experiment.config.architecture, {})
    theirs = {"architecture": name, **theirs, "input_convention": metadata["input_convention"]}
    settings = experiment.config.flat()
    ours = {name: settings.get(name) for name in theirs}
    if "classes" in metadata:
        theirs["classes"] = ", ".join(metadata["classes"]["classes"])
        ours["classes"] = ", ".join(experiment.label_space.classes)
    return [f"{name}: {theirs[name]}, here: {ours[name]}" for name in theirs if theirs[name] != ours[name]]


def check_folders(plan: Plan, *, reads_target: bool) -> None:
    """Looks into the folders of all sets, so that one that is missing is said before the first set is prepared.

    Raises:
      UserError: a folder is missing, or none of a set's images is in it.
    """
    config = plan.experiment.config
    sets = [(plan.source, config.source_split, config.source_dir, "--source_dir")]
    if reads_target:
        sets.append((plan.target, config.target_split, config.target_dir, "--target_dir"))
    if config.eval_split:
        sets.append((plan.target, config.eval_split, config.target_dir, "--target_dir"))
    for dataset, split, folder, flag in sets:
        if folder or not dataset.generated:
            assert config.data_dir is not None
            root = resolve_source_dir(dataset, folder, config.data_dir, config.height, config.width, flag)
            find_pairs(dataset, split, root, labels=False, flag=flag)


def fingerprint(dataset: Dataset, prepared: PreparedSet) -> str:
    """Twelve hexadecimal digits that change with a data set's description, the split, or the list of its images.

    Not with the files' times, which copying changes: a run may go on where its data were moved to.
    """
    facts = [dataset.identity(), prepared.metadata["split"], prepared.names]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def prepare_training(plan: Plan, *, reads_target: bool, progress: bool) -> tuple[PreparedSet, PreparedSet | None]:
    """The source with labels and the target without: its label files are neither opened nor looked for."""
    config = plan.experiment.config
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
