"""Trains a method, and before it the stages that it needs: ordinary runs in sub-directories of its own."""

import pathlib
from collections.abc import Mapping
from typing import Any

from sean_jax.methods import METHODS
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
        foreign = set(names(method.Settings)) - set(names(METHODS[stage.settings["method"]].Settings))
        of_stage = {key: value for key, value in settings.items() if key not in foreign} | dict(stage.settings)
        folder = workdir / STAGES / name
        print(f"{folder}: stage {name} of {values.get('method')}", flush=True)
        if not train(of_stage, folder):
            return False
        settings[stage.gives] = str(folder)
    return loop.train(plan(settings, workdir), workdir, **options)
