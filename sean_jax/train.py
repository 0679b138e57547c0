"""``python -m sean_jax.train``: trains; the same command resumes. Flags are the fields of ``config.Config``."""

import dataclasses
import os
import pathlib
from typing import Any

from absl import flags

from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache
from sean_jax.config import Config, choices, kind
from sean_jax.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "run directory; default: runs/METHOD-SOURCE-TARGET-seedN")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of host 0, to train on several hosts")
HOSTS = flags.DEFINE_integer("host_count", None, "number of hosts, with --coordinator_address")
HOST = flags.DEFINE_integer("host_index", None, "which of them this is, from 0, with --coordinator_address")


def _define_flags() -> None:
    define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}
    for field in dataclasses.fields(Config):
        text = field.metadata["help"]
        if field.default is not None:
            text += f" (default {field.default})"
        if choices(field.name):
            flags.DEFINE_enum(field.name, None, choices(field.name), text)
        else:
            define[kind(field.name)](field.name, None, text)


def _given() -> dict[str, Any]:
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Config)}
    return {name: value for name, value in values.items() if value is not None}


def _default_workdir(config: Config) -> str:
    names = [pathlib.Path(str(name)).stem for name in (config.source, config.target)]
    return os.path.join("runs", "-".join([config.method, *names, f"seed{config.seed}"]))


def _prepare_xla(deterministic: bool) -> None:
    """Must run before JAX starts: XLA reads its flags once."""
    if deterministic:
        # Kernels that do not depend on the order of atomic operations, chosen without timing them: a choice by
        # timing may fall otherwise in the process that resumes.
        wanted = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {wanted}".strip()


def main() -> None:
    given = _given()
    _prepare_xla(bool(given.get("deterministic")))
    import jax  # after the flags above

    compilation_cache.enable()
    hosts = (COORDINATOR.value, HOSTS.value, HOST.value)
    if any(value is not None for value in hosts):
        if None in hosts:
            raise UserError("several hosts need --coordinator_address, --host_count and --host_index, each of them")
        assert HOSTS.value is not None
        assert HOST.value is not None
        if not 0 <= HOST.value < HOSTS.value:
            raise UserError(
                f"--host_index={HOST.value} with --host_count={HOSTS.value}; expected an index from 0 to the count - 1"
            )
        jax.distributed.initialize(COORDINATOR.value, HOSTS.value, HOST.value)
    from sean_jax.run.loop import train
    from sean_jax.run.plan import plan

    planned = plan(given)
    train(planned, pathlib.Path(WORKDIR.value or _default_workdir(planned.run.config)))
    if COORDINATOR.value is not None:
        jax.distributed.shutdown()  # waits for the others: JAX aborts a host that outlives host 0


_define_flags()

if __name__ == "__main__":
    cli.run(main, "sean_jax.train", computes=True)
