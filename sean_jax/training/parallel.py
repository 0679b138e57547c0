"""Data parallelism over devices and hosts; no other module of ``training``, ``methods`` or ``models`` uses pmap."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from sean_jax import compiler
from sean_jax.errors import UserError

Devices = Sequence[Any]  # of jax.Device, which type checkers treat as a variable
AXIS = "batch"  # name of the mapped axis; psum over it sums over the global batch


def devices_for(batch_size: int, accumulate_steps: int = 1) -> Devices:
    """Returns the devices of all hosts that share a global batch, host by host.

    Each host uses the largest number of its devices that divides its share of the batch, or of each of the
    ``accumulate_steps`` parts of it.

    Raises:
      UserError: the batch cannot be divided equally among the hosts.
    """
    hosts = jax.process_count()
    if batch_size % (hosts * accumulate_steps):
        parts = f" in {accumulate_steps} parts (--accumulate_steps)" if accumulate_steps > 1 else ""
        raise UserError(
            f"--batch_size={batch_size} cannot be divided equally among {hosts} hosts{parts}; "
            f"choose a multiple of {hosts * accumulate_steps}"
        )
    local = range(jax.local_device_count(), 0, -1)
    count = next(n for n in local if (batch_size // hosts // accumulate_steps) % n == 0)
    return [d for host in range(hosts) for d in [d for d in jax.devices() if d.process_index == host][:count]]


def replicate(tree: Any, devices: Devices) -> Any:
    """Copies ``tree`` to each of this host's devices, with the layout in which :func:`pmap_step` returns its state.

    With another layout at the first step, the second step would be compiled again.
    """
    return jax.device_put(tree, jax.sharding.NamedSharding(_mesh(devices), jax.sharding.PartitionSpec()))


def shard(batch: dict[str, np.ndarray], devices: Devices) -> dict[str, jax.Array]:
    """Divides this host's share ``[b, ...]`` of a batch among its devices: ``[local devices, b / devices, ...]``."""
    mesh = _mesh(devices)
    shards = {name: x.reshape(mesh.size, -1, *x.shape[1:]) for name, x in batch.items()}
    return jax.device_put(shards, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS)))


def _mesh(devices: Devices) -> jax.sharding.Mesh:
    """Returns a mesh of this host's devices."""
    return jax.sharding.Mesh(np.array([d for d in devices if d.process_index == jax.process_index()]), (AXIS,))


class Steps(Protocol):
    """The part of :class:`sean_jax.methods.Method` that this module needs."""

    def init(self, key: jax.Array, params: Any) -> Any: ...

    def step(self, state: Any, batch: Any, rng: Any) -> tuple[Any, Any]: ...


@functools.partial(jax.jit, donate_argnums=2)
def initial_state(method: Steps, key: jax.Array, params: Any) -> Any:
    """Returns the method's state at step 0, computed by one program; ``params`` are donated."""
    return method.init(key, params)


def pmap_step(method: Steps, devices: Devices) -> Callable[..., Any]:
    """Returns ``(state, batch, rng) → (state, metrics)``: the method's step, mapped over ``devices``.

    ``batch`` is this host's share. The state goes in and comes out unreplicated, and is donated. The numbers in the
    method's settings are arguments of the compiled program, so methods that differ only in them share it. An example's
    index in the global batch is its index on its device plus the number of examples on the devices before it.
    """
    method = replicate(method, devices)
    step = mapped_step(tuple(devices))
    return lambda state, batch, rng: step(method, state, shard(batch, devices), rng)


@functools.cache
def mapped_step(devices: tuple[Any, ...]) -> Callable[..., Any]:
    """Returns ``(method, state, batch, rng) → (state, metrics)``, whose arguments are already on the devices."""

    def step(method: Steps, state: Any, batch: Any, rng: Any) -> tuple[Any, Any]:
        return method.step(state, batch, rng)

    mapped = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0, None),
        out_axes=(None, None),
        donate_argnums=1,
        devices=list(devices),
    )
    options = compiler.options(devices[0].platform)
    if options is None or jax.process_count() > 1:
        return mapped
    # pmap itself takes no options. Inside jit, it would not join the arrays of several hosts.
    return jax.jit(mapped, donate_argnums=1, compiler_options=options)


def pmap_predict(predict: Callable[..., Any], devices: Devices) -> Callable[..., Any]:
    """Maps ``predict(params, batch) → tree`` over ``devices``; the first axis of each output is the device axis.

    ``params`` must come from :func:`replicate` and ``batch`` from :func:`shard`, so that several networks can be
    applied to one copy of the batch.
    """
    return jax.pmap(predict, axis_name=AXIS, in_axes=(None, 0), out_axes=0, devices=devices)
