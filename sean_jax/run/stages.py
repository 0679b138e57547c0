"""Trains a method, and before it the stages that it needs: ordinary runs and commands in sub-directories of its own."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils

from sean_jax.config import Config, DataSettings, NetworkSettings
from sean_jax.data.catalogue import load_dataset
from sean_jax.data.folders import default_data_dir, resolve_source_dir
from sean_jax.methods import METHODS, Stage
from sean_jax.models import NETWORKS
from sean_jax.presets import choose_preset
from sean_jax.run import directory, loop
from sean_jax.run.checkpoints import has_checkpoint
from sean_jax.run.directory import STAGES
from sean_jax.run.plan import plan
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
    settings = {**given, "preset": values["preset"]}
    for name, stage in METHODS[values.get("method", "sean")].STAGES.items():
        product = _product(name, stage, settings, values, workdir)
        if product is None:
            return False
        if stage.gives in _FOLDERS and product != values[stage.gives]:  # the given folder is that of the replaced set
            settings[_FOLDERS[stage.gives]] = values[_FOLDERS[stage.gives]] = None
        settings[stage.gives] = values[stage.gives] = product
    return loop.train(plan(values, workdir), workdir, **options)


def _product(
    name: str, stage: Stage, given: Mapping[str, Any], values: Mapping[str, Any], workdir: pathlib.Path
) -> str | None:
    """What a stage gives, made or resumed if it is needed; None if a signal ended it.

    A setting of the user's replaces the stage, except for a data set, which the stage replaces. A run that has begun
    needs its stages no longer.
    """
    folder = workdir / STAGES / name
    if has_checkpoint(workdir):
        before = directory.load(workdir).config.flat()[stage.gives]
        described = folder / DESCRIPTION  # the run may have been moved since
        return str(described) if stage.gives in _FOLDERS and described.exists() else before
    if values.get(stage.gives) and stage.gives not in _FOLDERS:
        return values[stage.gives]
    print(f"{folder}: stage {name} of {values.get('method')}", flush=True)
    return COMMANDS[stage.command](_settings_of(stage, given, values), folder)


def _settings_of(stage: Stage, given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stage: the run's data and network, the user's flags, and what the stage sets itself.

    The stage's method takes its other settings from its own part of the preset.
    """
    method = METHODS[values.get("method", "sean")]
    inherited = {*names(DataSettings), *names(NetworkSettings)}
    inherited.update(*(names(network.Settings) for network in NETWORKS.values()))
    of_stage = {name: value for name, value in values.items() if name in inherited} | dict(given)
    if stage.command == "train":
        foreign = set(names(method.Settings)) - set(names(METHODS[stage.settings["method"]].Settings))
        of_stage = {name: value for name, value in of_stage.items() if name not in foreign}
    return of_stage | dict(stage.settings) | dict(stage.presets.get(values["preset"], {}))


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
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the source is translated")
    return str(described)


# Command of a stage → function of its settings and directory that gives its product, or None if a signal ended it.
# train gives the run directory; translate gives the TOML file of the translated source.
COMMANDS: dict[str, Callable[[Mapping[str, Any], pathlib.Path], str | None]] = {
    "train": _trained,
    "translate": _translated,
}
_FOLDERS = {"source": "source_dir", "target": "target_dir"}  # settings that name a data set → that of its folder
