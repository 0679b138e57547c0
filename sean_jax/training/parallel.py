"""Data parallelism: the one place that knows about several devices and hosts."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from sean_jax.errors import UserError

Devices = Sequence[Any]  # of jax.Device, which type checkers take for a variable

AXIS = "batch"  # the mapped axis over devices; sums over the global batch are sums over it


def devices_for(batch_size: int, accumulate_steps: int = 1) -> Devices:
    """The devices of all hosts among which a global batch is divided, host by host.

    On each host, the largest number of its devices that divides the host's share of each of the batch's
    ``accumulate_steps`` parts.

    Raises:
      UserError: the hosts cannot share the batch equally.
    """
    hosts = jax.process_count()
    if batch_size % (hosts * accumulate_steps):
        parts = f" in {accumulate_steps} parts (--accumulate_steps)" if accumulate_steps > 1 else ""
        raise UserError(
            f"--batch_size={batch_size} cannot be shared by {hosts} hosts{parts}; "
            f"choose a multiple of {hosts * accumulate_steps}"
        )
    local = range(jax.local_device_count(), 0, -1)
    count = next(n for n in local if (batch_size // hosts // accumulate_steps) % n == 0)
    return [d for host in range(hosts) for d in [d for d in jax.devices() if d.process_index == host][:count]]


def replicate(tree: Any, devices: Devices) -> Any:
    """``tree`` on each of this host's devices, laid out as :func:`pmap_step` returns its state.

    If the state were elsewhere at the first step, the second step would compile everything again.
    """
    return jax.device_put(tree, jax.sharding.NamedSharding(_mesh(devices), jax.sharding.PartitionSpec()))


def shard(batch: dict[str, np.ndarray], devices: Devices) -> dict[str, jax.Array]:
    """Divides this host's share ``[b, ...]`` of a batch among its devices: ``[local devices, b / devices, ...]``."""
    mesh = _mesh(devices)
    shards = {name: x.reshape(mesh.size, -1, *x.shape[1:]) for name, x in batch.items()}
    return jax.device_put(shards, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS)))


def _mesh(devices: Devices) -> jax.sharding.Mesh:
    """This host's devices."""
    return jax.sharding.Mesh(np.array([d for d in devices if d.process_index == jax.process_index()]), (AXIS,))


class Steps(Protocol):
    """What :func:`pmap_step` maps; see :class:`sean_jax.methods.Method`."""

    def step(self, state: Any, batch: Any, rng: Any) -> tuple[Any, Any]: ...


def pmap_step(method: Steps, devices: Devices) -> Callable[..., Any]:
    """``(state, batch, rng) → (state, metrics)``: the method's step on ``devices``, of this host's share of a batch.

    The state goes in and comes out unreplicated and is donated. The numbers in the method's settings are arguments of
    the compiled program: methods that differ only in them share it. An example's index in the global batch is its
    index on its device plus the number of examples on the devices before it, whatever their number.
    """
    method = replicate(method, devices)
    step = mapped_step(tuple(devices))
    return lambda state, batch, rng: step(method, state, shard(batch, devices), rng)


@functools.cache
def mapped_step(devices: tuple[Any, ...]) -> Callable[..., Any]:
    """``(method, state, batch, rng) → (state, metrics)`` with every argument on the devices already."""

    def step(method: Steps, state: Any, batch: Any, rng: Any) -> tuple[Any, Any]:
        return method.step(state, batch, rng)

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0, None),
        out_axes=(None, None),
        donate_argnums=1,
        devices=list(devices),
    )


def pmap_predict(predict: Callable[..., Any], devices: Devices) -> Callable[..., Any]:
    """``predict(params, batch) → tree`` over ``devices``; each leaf comes back with the devices as its first axis.

    ``params`` come from :func:`replicate` and the batch from :func:`shard`, so that several networks can be applied to
    one copy of it.
    """
    return jax.pmap(predict, axis_name=AXIS, in_axes=(None, 0), out_axes=0, devices=devices)
