"""Trains a network on labelled source images and adapts it to unlabelled target images.

The same command on the same --workdir resumes. With neither --source nor --preset it trains on the bundled synthetic
data set for a few minutes.
"""

import os
import pathlib
from typing import Any

from absl import flags

from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache, multihost
from sean_jax.config import GROUPS
from sean_jax.methods import METHODS
from sean_jax.models import NETWORKS
from sean_jax.presets import PRESETS, choose_preset
from sean_jax.run import stages
from sean_jax.run.determinism import request_deterministic_kernels
from sean_jax.run.profile import parse_steps
from sean_jax.settings import choices, field, kind, names

_COMMAND = "Command"
WORKDIR = flags.DEFINE_string(
    "workdir", None, "run directory; default: runs/METHOD-SOURCE-TARGET-seedN", module_name=_COMMAND
)
PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", None, "write a JAX profiler trace of steps a to b (a:b) to WORKDIR/profile", module_name=_COMMAND
)

_NAMED = {
    "method": METHODS,
    "architecture": NETWORKS,
    "preset": {**PRESETS, **{name: 0 for method in METHODS.values() for name in method.PRESETS}},
}
_DEFINE = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def _define_flags() -> list[str]:
    """Defines a flag for every setting, once where methods share it; returns their names."""
    defined: list[str] = []
    for heading, group in GROUPS.items():
        for name in names(group):
            if name in defined:
                continue
            defined.append(name)
            default, text = field(group, name).default, field(group, name).metadata["help"]
            if default is not None:
                text += f" (default {default})"
            allowed = list(_NAMED.get(name, choices(group, name)))
            if allowed:
                flags.DEFINE_enum(name, None, allowed, text, module_name=heading)
            else:
                _DEFINE[kind(group, name)](name, None, text, module_name=heading)
    return defined


def _given() -> dict[str, Any]:
    values = {name: flags.FLAGS[name].value for name in SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def _default_workdir(given: dict[str, Any]) -> str:
    values = {"method": "sean", "seed": 0} | choose_preset(given)
    ends = [pathlib.Path(str(values[name])).stem for name in ("source", "target")]
    return os.path.join("runs", "-".join([values["method"], *ends, f"seed{values['seed']}"]))


def main() -> None:
    given = _given()
    profile_steps = parse_steps(PROFILE_STEPS.value) if PROFILE_STEPS.value else None
    if given.get("deterministic"):
        request_deterministic_kernels()  # before hosts join
    compilation_cache.enable()
    multihost.join()
    workdir = pathlib.Path(WORKDIR.value or _default_workdir(given))
    stages.train(given, workdir, profile_steps=profile_steps)
    multihost.leave()


SETTINGS = _define_flags()

if __name__ == "__main__":
    cli.run(main, "sean_jax.train", computes=True)
