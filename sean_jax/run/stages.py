"""Trains a method, and before it the stages that it needs: ordinary runs and commands in sub-directories of its own."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from sean_jax.config import DataSettings, NetworkSettings
from sean_jax.methods import METHODS, Stage
from sean_jax.models import NETWORKS
from sean_jax.presets import choose_preset
from sean_jax.run import loop
from sean_jax.run.checkpoints import has_checkpoint
from sean_jax.run.directory import STAGES
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
    stages = {} if has_checkpoint(workdir) else method.STAGES  # a run that has begun needs its stages no longer
    for name, stage in stages.items():
        if values.get(stage.gives):
            continue
        folder = workdir / STAGES / name
        print(f"{folder}: stage {name} of {values.get('method')}", flush=True)
        product = COMMANDS[stage.command](_settings_of(stage, settings, values), folder)
        if product is None:
            return False
        settings[stage.gives] = values[stage.gives] = product
    return loop.train(plan(settings, workdir), workdir, **options)


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


# Command of a stage → function of its settings and directory that gives its product, or None if a signal ended it.
COMMANDS: dict[str, Callable[[Mapping[str, Any], pathlib.Path], str | None]] = {"train": _trained}
