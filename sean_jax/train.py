"""Trains a network on labelled source images and adapts it to unlabelled target images.

The same command on the same --workdir resumes. With neither --source nor --preset it trains on the bundled synthetic
data set for a few minutes.
"""

import os
import pathlib
from typing import Any

import jax
from absl import flags

from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache
from sean_jax.config import GROUPS
from sean_jax.errors import UserError
from sean_jax.methods import METHODS
from sean_jax.models import NETWORKS
from sean_jax.presets import PRESETS, choose_preset
from sean_jax.run import stages
from sean_jax.run.determinism import request_deterministic_kernels
from sean_jax.run.profile import parse_steps
from sean_jax.settings import choices, field, kind, names

_COMMAND, _HOSTS = "Command", "Several hosts"
WORKDIR = flags.DEFINE_string(
    "workdir", None, "run directory; default: runs/METHOD-SOURCE-TARGET-seedN", module_name=_COMMAND
)
PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", None, "write a JAX profiler trace of steps a to b (a:b) to WORKDIR/profile", module_name=_COMMAND
)
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of host 0", module_name=_HOSTS)
HOSTS = flags.DEFINE_integer("host_count", None, "number of hosts", module_name=_HOSTS)
HOST = flags.DEFINE_integer("host_index", None, "index of this host, from 0", module_name=_HOSTS)

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


def _join_hosts() -> None:
    hosts = (COORDINATOR.value, HOSTS.value, HOST.value)
    if all(value is None for value in hosts):
        return
    if COORDINATOR.value is None or HOSTS.value is None or HOST.value is None:
        raise UserError("several hosts need --coordinator_address, --host_count and --host_index, all of them")
    if not 0 <= HOST.value < HOSTS.value:
        raise UserError(
            f"--host_index={HOST.value} with --host_count={HOSTS.value}; expected an index from 0 to the count - 1"
        )
    jax.distributed.initialize(COORDINATOR.value, HOSTS.value, HOST.value)


def main() -> None:
    given = _given()
    profile_steps = parse_steps(PROFILE_STEPS.value) if PROFILE_STEPS.value else None
    if given.get("deterministic"):
        request_deterministic_kernels()  # before hosts join
    compilation_cache.enable()
    _join_hosts()
    workdir = pathlib.Path(WORKDIR.value or _default_workdir(given))
    stages.train(given, workdir, profile_steps=profile_steps)
    if COORDINATOR.value is not None:
        jax.distributed.shutdown()  # waits for the others: JAX aborts a host that outlives host 0


SETTINGS = _define_flags()

if __name__ == "__main__":
    cli.run(main, "sean_jax.train", computes=True)
