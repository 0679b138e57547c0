"""Data parallelism: the one place that knows about several devices and hosts."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sean_jax.errors import UserError

Devices = list[Any]  # of jax.Device, which type checkers take for a variable

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


def local_shards(devices: Devices, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Splits this host's share ``[b, ...]`` of a batch into ``[local devices, b / devices, ...]``, in order."""
    local = sum(d.process_index == jax.process_index() for d in devices)
    return {name: x.reshape(local, -1, *x.shape[1:]) for name, x in batch.items()}


def replicate(tree: Any, devices: Devices) -> Any:
    """``tree`` on each of this host's devices, laid out as :func:`pmap_step` hands its state back.

    A state that lies elsewhere at the first step would have the second compile the whole step again.
    """
    local = [d for d in devices if d.process_index == jax.process_index()]
    mesh = jax.sharding.Mesh(np.array(local), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def pmap_step(step: Callable[..., Any], devices: Devices) -> Callable[..., Any]:
    """``step(state, batch, rng) → (state, metrics)`` over ``devices``, given this host's share of the batch.

    The state goes in and comes out unreplicated and is donated. An example's place in the global batch is its
    place on its device plus the examples of the devices before it, whatever their number.
    """
    mapped = jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=0, devices=devices
    )
    return lambda state, batch, rng: mapped(state, local_shards(devices, batch), rng)


def shard(batch: dict[str, np.ndarray], devices: Devices) -> dict[str, jax.Array]:
    """This host's share of a batch on its devices, ``[local devices, b / devices, ...]``; the copies are under way."""
    local = [d for d in devices if d.process_index == jax.process_index()]
    mesh = jax.sharding.Mesh(np.array(local), (AXIS,))
    over_devices = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
    return jax.device_put(local_shards(devices, batch), over_devices)


def pmap_predict(predict: Callable[..., Any], devices: Devices) -> Callable[..., Any]:
    """``predict(params, batch) → tree`` over ``devices``; each leaf comes back with the devices as its first axis.

    ``params`` come from :func:`replicate` and the batch from :func:`shard`, so that several networks can be applied to
    one copy of it.
    """
    return jax.pmap(predict, axis_name=AXIS, in_axes=(None, 0), out_axes=0, devices=devices)
