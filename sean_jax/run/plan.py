"""Resolves settings into the configuration, data sets, label space and initial weights of a run."""

import hashlib
import json
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from sean_jax import weights
from sean_jax.config import Config, resolve
from sean_jax.data.catalogue import load_dataset, load_label_space
from sean_jax.data.dataset import Dataset, label_map, source_label_map
from sean_jax.data.folders import default_data_dir, resolve_source_dir
from sean_jax.data.preparation.builder import prepare, prepared_sets
from sean_jax.data.preparation.listing import find_pairs
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError
from sean_jax.experiment import Experiment
from sean_jax.methods import METHODS
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
    values = choose_preset(given)
    values["data_dir"] = values.get("data_dir") or default_data_dir()
    source, target = load_dataset(values["source"]), load_dataset(values["target"])
    file = None
    resumes = False
    if workdir is not None and directory.exists(workdir) and has_checkpoint(workdir):
        resumes = True
        before = directory.load(workdir).config
        values = {"initialization": before.initialization, "input_convention": before.input_convention} | values
    elif values.get("init_weights"):
        file = read_initial_weights(values["init_weights"], values.get("input_convention"))
    config = resolve(
        values,
        default_classes=default_classes(str(values["source"])),
        evaluation_split=target.evaluation_split,
        selection_split=target.selection_split,
        input_convention=weights.input_convention(file) if file else None,
    )
    if config.target_sampling != "uniform" and not resumes:
        _check_target_sampling(config, file)
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


def _check_target_sampling(config: Config, file: weights.WeightsFile | None) -> None:
    setting = f"--target_sampling={config.target_sampling}"
    method = METHODS[config.method]
    if not method.READS.target or not method.SEGMENTS:
        raise UserError(f"{setting}: {config.method} does not segment the target; leave it out")
    if file is None or not weights.is_complete(file):
        raise UserError(
            f"{setting} needs --init_weights of a network that predicts the run's classes: the run directory of "
            "--method=source_only, or weights from it"
        )


def default_classes(source: str) -> str:
    """The label space of a source: its TOML file, or the name of a built-in one."""
    return source if source.endswith(".toml") else load_dataset(source).label_space.name


def read_initial_weights(path: str, input_convention: str | None = None) -> weights.WeightsFile:
    """Reads weights from a file, or the main network from a run directory.

    ``input_convention`` is what a file's weights need, if the user says so.
    """
    return read_run(path) if os.path.isdir(path) else weights.read(path, input_convention)


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


def check_folders(plan: Plan, *, reads_target: bool, known: Mapping[str, str] = types.MappingProxyType({})) -> None:
    """Checks that the folders of all data sets contain images, before the first data set is prepared.

    The folder of a set that is known may be gone if the set was prepared; ``known`` is as in
    :func:`prepare_training`.

    Raises:
      UserError: a folder is missing or contains no images of its data set.
    """
    config = plan.experiment.config
    sets = [("source", plan.source, config.source_split, config.source_dir, "--source_dir")]
    if reads_target:
        sets.append(("target", plan.target, config.target_split, config.target_dir, "--target_dir"))
    if config.eval_split:
        sets.append(("scored", plan.target, config.eval_split, config.target_dir, "--target_dir"))
    for role, dataset, split, folder, flag in sets:
        if folder or not dataset.generated:
            assert config.data_dir is not None
            root = resolve_source_dir(dataset, folder, config.data_dir, config.height, config.width, flag)
            if role in known and not root.is_dir():
                continue
            find_pairs(dataset, split, root, labels=False, flag=flag)


def fingerprint(dataset: Dataset, prepared: PreparedSet) -> str:
    """Returns 12 hexadecimal digits that identify a data set's description, split and image list.

    File times do not enter, so that a run can resume after its data were copied or moved.
    """
    facts = [dataset.identity(), prepared.metadata["split"], prepared.names]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def prepare_training(
    plan: Plan, *, reads_target: bool, progress: bool, known: Mapping[str, str] = types.MappingProxyType({})
) -> tuple[PreparedSet, PreparedSet | None]:
    """Prepares the source with labels and the target without; target label files are neither listed nor read.

    ``known`` holds the fingerprints of the data that a run which is resumed began with, by role. If the folder of such
    a set is gone, the set that was prepared before is used.
    """
    config = plan.experiment.config
    target = None
    if reads_target:
        where = (plan.target, config.target_split, "none", config.target_dir, "--target_dir")
        target = _prepare(*where, config, progress, known.get("target"))
    where = (plan.source, config.source_split, "resized", config.source_dir, "--source_dir")
    return _prepare(*where, config, progress, known.get("source")), target


def prepare_scoring(
    config: Config,
    dataset: Dataset,
    *,
    progress: bool,
    flag: str = "--target_dir",
    known: Mapping[str, str] = types.MappingProxyType({}),
) -> PreparedSet | None:
    """Prepares the ``eval_split`` with labels at their original size; returns None if there is no such split.

    For ``known`` see :func:`prepare_training`.
    """
    if config.eval_split is None:
        return None
    where = (dataset, config.eval_split, "original", config.target_dir, flag)
    return _prepare(*where, config, progress, known.get("scored"))


def _prepare(
    dataset: Dataset,
    split: str,
    labels: str,
    folder: str | None,
    flag: str,
    config: Config,
    progress: bool,
    known: str | None,
) -> PreparedSet:
    assert config.data_dir is not None
    options: dict[str, Any] = {"data_dir": config.data_dir, "flag": flag, "progress": progress}
    size: dict[str, Any] = {"height": config.height, "width": config.width}
    source_dir = resolve_source_dir(dataset, folder, **options, **size)
    if known is not None and not source_dir.is_dir():
        for found in prepared_sets(config.data_dir, dataset, split, labels, **size):
            if fingerprint(dataset, found) == known:
                return found
    return prepare(dataset, split=split, source_dir=source_dir, labels=labels, **options, **size)
