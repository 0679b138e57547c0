"""Trains a method, and before it the stages that it needs: ordinary runs and commands in sub-directories of its own."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sean_jax import weights
from sean_jax.config import Config, DataSettings, NetworkSettings
from sean_jax.data.catalogue import load_dataset
from sean_jax.data.folders import default_data_dir, resolve_source_dir
from sean_jax.data.prepared import MissingExtraError
from sean_jax.methods import METHODS, Method, Stage
from sean_jax.models import NETWORKS
from sean_jax.presets import PRESETS, choose_preset
from sean_jax.run import directory, hosts, loop, properties
from sean_jax.run.checkpoints import has_checkpoint
from sean_jax.run.plan import default_classes, plan, read_initial_weights
from sean_jax.run.trained import open_translators
from sean_jax.run.translation import DESCRIPTION, make_translation, translate_dataset
from sean_jax.settings import names


def train(given: Mapping[str, Any], workdir: pathlib.Path, **options: Any) -> bool:
    """Makes or resumes the stages of a run that the user did not supply, then the run itself.

    Args:
      given: settings by name, as for :func:`sean_jax.run.plan.plan`.
      workdir: the run directory.
      **options: of :func:`sean_jax.run.loop.train`.

    Returns:
      Whether it finished; False if SIGTERM ended it before.
    """
    values = choose_preset(given)
    method = METHODS[values.get("method", "sean")]
    if has_checkpoint(workdir):  # a run that has begun needs its stages no longer
        values = _as_begun(values, method, workdir)
        try:
            return loop.train(plan(values, workdir), workdir, **options)
        except MissingExtraError:  # the prepared target was damaged and deleted, and what was inferred of it with it
            if properties.infer(values, workdir / directory.STAGES / "properties") != values["properties"]:
                raise
        return loop.train(plan(values, workdir), workdir, **options)
    given = dict(given)
    needed = {name: stage for name, stage in method.STAGES.items() if _is_needed(stage, values)}
    for name, stage in needed.items():
        folder = workdir / directory.STAGES / name
        print(f"{folder}: stage {name} of {values.get('method')}", flush=True)
        product = COMMANDS[stage.command](_settings_of(stage, given, values), folder)
        if product is None:
            return False
        products = _settings_from(stage, product, values)
        given, values = given | products, values | products
    return loop.train(plan(values, workdir), workdir, **options)


def _is_needed(stage: Stage, values: Mapping[str, Any]) -> bool:
    def is_set(name: str) -> bool:
        value = values.get(name)
        return bool(value) and (name != "init_weights" or _is_complete(value))

    return not any(is_set(name) for name in stage.unless or (stage.gives,))


def _is_complete(path: str) -> bool:
    """Whether initial weights are those of a complete segmentation network."""
    return os.path.isdir(path) or weights.is_complete(read_initial_weights(path))


def _settings_from(stage: Stage, product: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change with the product of a stage.

    Another source has its own folder, and is used in the label space of the one that it replaces.
    """
    source = values["source"]
    if stage.gives != "source" or product == source:
        return {stage.gives: product}
    return {"source": product, "source_dir": None, "classes": values.get("classes") or default_classes(source)}


def _as_begun(values: Mapping[str, Any], method: type[Method], workdir: pathlib.Path) -> dict[str, Any]:
    """The settings of a run that has begun, with what its stages gave it.

    Products inside the run directory are looked for where it is now, in case it was moved.
    """
    config, values = directory.load(workdir).config.flat(), dict(values)
    for name, stage in method.STAGES.items():
        recorded, folder = config.get(stage.gives), os.path.join(directory.STAGES, name)
        if recorded is None:
            continue
        _, made_by_stage, rest = str(recorded).rpartition(folder)
        product = f"{workdir / folder}{rest}"
        if made_by_stage and os.path.exists(product):
            values |= _settings_from(stage, product, values)
        else:
            values.setdefault(stage.gives, recorded)
    return values


def _settings_of(stage: Stage, given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stage.

    A run takes the preset, data and network of the run that needs it, the user's flags, and what the stage sets itself;
    its method takes its other settings from its own part of the preset. A command takes all settings of the run.
    """
    of_stage = dict(stage.settings) | dict(stage.presets.get(values["preset"], {}))
    if stage.command != "train":
        return {**values, **of_stage}
    inherited = {*names(DataSettings), *names(NetworkSettings)}
    inherited.update(*(names(network.Settings) for network in NETWORKS.values()))
    method, trained = (METHODS[name] for name in (values.get("method", "sean"), stage.settings["method"]))
    if values["preset"] in {*PRESETS, *trained.PRESETS}:
        inherited.add("preset")
    foreign = set(names(method.Settings)) - set(names(trained.Settings))
    of_run = {name: value for name, value in values.items() if name in inherited} | dict(given)
    return {name: value for name, value in of_run.items() if name not in foreign} | of_stage


def _trained(settings: Mapping[str, Any], folder: pathlib.Path) -> str | None:
    return str(folder) if train(settings, folder) else None


def _translated(settings: Mapping[str, Any], folder: pathlib.Path) -> str | None:
    """Translates the source by the run in ``translator``; gives the source itself if that is ``none``."""
    if settings["translator"] == "none":
        return settings["source"]
    data_dir = settings.get("data_dir") or default_data_dir()
    size = (settings.get("height", Config.height), settings.get("width", Config.width))
    dataset, split = load_dataset(settings["source"]), settings.get("source_split", Config.source_split)
    source_dir = resolve_source_dir(dataset, settings.get("source_dir"), data_dir, *size)
    translation = make_translation(open_translators(settings["translator"], settings.get("precision")), "target")
    described = folder / DESCRIPTION
    if jax.process_index() == 0:
        described = translate_dataset(translation, dataset, split, source_dir, folder, data_dir=data_dir)
    hosts.wait_for_all("the source is translated")
    return str(described)


# Command of a stage → function of its settings and directory that gives its product, or None if a signal ended it.
# train gives the run directory, translate the TOML file of the translated source, infer_properties their name.
COMMANDS: dict[str, Callable[[Mapping[str, Any], pathlib.Path], str | None]] = {
    "train": _trained,
    "translate": _translated,
    "infer_properties": properties.infer,
}
