"""Trains a method, and before it the stages that it needs: ordinary runs and commands in sub-directories of its own."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from sean_jax.config import DataSettings, NetworkSettings
from sean_jax.methods import METHODS, Method, Stage
from sean_jax.models import NETWORKS
from sean_jax.presets import PRESETS, choose_preset
from sean_jax.run import directory, loop, properties
from sean_jax.run.checkpoints import has_checkpoint
from sean_jax.run.plan import plan
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
    settings = dict(given)
    values = choose_preset(given)
    method = METHODS[values.get("method", "sean")]
    if has_checkpoint(workdir):  # a run that has begun needs its stages no longer
        return loop.train(plan(_given_by_stages(method, workdir) | settings, workdir), workdir, **options)
    for name, stage in method.STAGES.items():
        if values.get(stage.gives):
            continue
        folder = workdir / directory.STAGES / name
        print(f"{folder}: stage {name} of {values.get('method')}", flush=True)
        product = COMMANDS[stage.command](_settings_of(stage, settings, values), folder)
        if product is None:
            return False
        settings[stage.gives] = values[stage.gives] = product
    return loop.train(plan(settings, workdir), workdir, **options)


def _given_by_stages(method: type[Method], workdir: pathlib.Path) -> dict[str, Any]:
    """What the stages of a run gave it when it began."""
    if not directory.exists(workdir):
        return {}
    config = directory.load(workdir).config.flat()
    gives = {stage.gives for stage in method.STAGES.values()}
    return {name: config[name] for name in gives if config.get(name) is not None}


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


# Command of a stage → function of its settings and directory that gives its product, or None if a signal ended it.
COMMANDS: dict[str, Callable[[Mapping[str, Any], pathlib.Path], str | None]] = {
    "train": _trained,
    "infer_properties": properties.infer,
}
