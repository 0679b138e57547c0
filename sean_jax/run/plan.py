"""Resolves settings into the configuration, data sets, label space and initial weights of a run."""

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
    """A resolved run; the images of its data sets are not read yet."""

    experiment: Experiment
    source: Dataset
    target: Dataset
    initial_weights: weights.WeightsFile | None  # None if the run starts from scratch or resumes


def plan(given: Mapping[str, Any], workdir: pathlib.Path | None = None) -> Plan:
    """Resolves settings into a complete configuration.

    Args:
      given: the settings given by the user, by name.
      workdir: the run directory. If it has a checkpoint, ``init_weights`` is not read, since the file may have moved.

    Raises:
      UserError: a data set or label space is unknown, a value is out of range, the source lacks classes of the label
        space, or the initial weights cannot be read.
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
        default_classes=default_classes(str(values["source"])),
        evaluation_split=target.evaluation_split,
        selection_split=target.selection_split,
        input_convention=weights.metadata(file)["input_convention"] if file else None,
    )
    assert config.classes is not None
    space = load_label_space(config.classes)
    source_label_map(source, space)  # raises an error if the source lacks classes
    if config.eval_split:
        label_map(target, space)
        if target.split(config.eval_split).labels is None:
            raise UserError(
                f"--eval_split={config.eval_split}: this split of {target.name} has no labels; choose a labelled one, "
                "or none"
            )
    source.split(config.source_split)
    target.split(config.target_split)
    return Plan(Experiment(config, space), source, target, file)


def default_classes(source: str) -> str:
    """The label space of a source: its TOML file, or the name of a built-in one."""
    return source if source.endswith(".toml") else load_dataset(source).label_space.name


def read_initial_weights(path: str) -> weights.WeightsFile:
    """Reads weights from a file, or the main network from a run directory."""
    return read_run(path) if os.path.isdir(path) else weights.read(path)


def weights_differences(file: weights.WeightsFile, experiment: Experiment) -> list[str]:
    """Lists how the network that ``file`` was trained in differs from the run's, as ``name: theirs, here: ours``."""
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
    """Checks that the folders of all data sets contain images, before the first data set is prepared.

    Raises:
      UserError: a folder is missing or contains no images of its data set.
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
    """Returns 12 hexadecimal digits that identify a data set's description, split and image list.

    File times do not enter, so that a run can resume after its data were copied or moved.
    """
    facts = [dataset.identity(), prepared.metadata["split"], prepared.names]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def prepare_training(plan: Plan, *, reads_target: bool, progress: bool) -> tuple[PreparedSet, PreparedSet | None]:
    """Prepares the source with labels and the target without; target label files are neither listed nor read."""
    config = plan.experiment.config
    target = None
    if reads_target:
        target = _prepare(plan.target, config.target_split, "none", config.target_dir, "--target_dir", config, progress)
    source = _prepare(plan.source, config.source_split, "resized", config.source_dir, "--source_dir", config, progress)
    return source, target


def prepare_scoring(
    config: Config, dataset: Dataset, *, progress: bool, flag: str = "--target_dir"
) -> PreparedSet | None:
    """Prepares the ``eval_split`` with labels at their original size; returns None if there is no such split."""
    if config.eval_split is None:
        return None
    return _prepare(dataset, config.eval_split, "original", config.target_dir, flag, config, progress)


def _prepare(
    dataset: Dataset, split: str, labels: str, folder: str | None, flag: str, config: Config, progress: bool
) -> PreparedSet:
    assert config.data_dir is not None
    options: dict[str, Any] = {"data_dir": config.data_dir, "flag": flag, "progress": progress}
    size: dict[str, Any] = {"height": config.height, "width": config.width}
    source_dir = resolve_source_dir(dataset, folder, **options, **size)
    return prepare(dataset, split=split, source_dir=source_dir, labels=labels, **options, **size)
