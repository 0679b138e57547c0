"""Chooses the implementation of an operation by platform: the same results, computed in the fastest way.

On NVIDIA GPUs XLA falls back to a slow kernel for the backward pass of a dilated convolution (45 of 800 TFLOP/s on an
H100 in bfloat16: 3.8 to 11.6 ms per layer, against 0.3 to 0.9 ms for the implementation used here), and a classifier
of 19 outputs is faster as one matrix product. On CPUs these implementations are several times slower than XLA's own;
there Winograd's tiles (:mod:`~sean_jax.ops.winograd`) halve the time of a training step in float32. So NVIDIA GPUs
(JAX's platform ``cuda``) and CPUs get implementations of their own from :mod:`~sean_jax.ops.convolution`. Every other
platform (nothing was measured on TPU and ROCm) gets XLA's plain operations.

The choice is made when a program is lowered, for the devices it is lowered for, and not by the default backend: a
program for the CPU of a machine with a GPU gets the CPU's implementation. The environment variable
``SEAN_JAX_IMPLEMENTATION`` overrides the choice for a whole process: ``plain``, ``cpu``, ``gpu``, or ``auto`` (the
default). It is read when a function is traced.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax

from sean_jax.errors import UserError

VARIABLE = "SEAN_JAX_IMPLEMENTATION"
CHOICES = ("auto", "plain", "cpu", "gpu")
_PLATFORMS = {"cpu": "cpu", "cuda": "gpu"}  # JAX's names

Op = Callable[..., jax.Array]
Derivative = Callable[..., tuple[jax.Array, ...]]  # (*inputs, gradient of the output) → gradients of the inputs


class Implementation(NamedTuple):
    """An operation and its derivative."""

    forward: Op
    backward: Derivative


def by_platform(plain: Implementation, *, cpu: Implementation | None = None, gpu: Implementation | None = None) -> Op:
    """One differentiable operation, computed by ``cpu`` on CPUs, ``gpu`` on NVIDIA GPUs and ``plain`` elsewhere.

    Without ``cpu`` or ``gpu``, ``plain`` runs there too. Only reverse-mode derivatives are defined.
    """
    implementations = {"plain": plain, "cpu": cpu or plain, "gpu": gpu or plain}

    @jax.custom_vjp
    def operation(*inputs: jax.Array) -> jax.Array:
        return _choose({name: implementation.forward for name, implementation in implementations.items()}, *inputs)

    def forward(*inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return operation(*inputs), inputs

    def backward(inputs: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
        functions = {name: implementation.backward for name, implementation in implementations.items()}
        return _choose(functions, *inputs, gradient)

    operation.defvjp(forward, backward)
    return operation


def derivative_of(operation: Op) -> Derivative:
    """JAX's own derivative; XLA computes the operation's value only where the derivative needs it.

    The gradient of the output is cast to the type of ``operation``'s output first.
    """

    def derivative(*inputs_and_gradient: jax.Array) -> tuple[jax.Array, ...]:
        *inputs, gradient = inputs_and_gradient
        value, pull_back = jax.vjp(operation, *inputs)
        return pull_back(gradient.astype(value.dtype))

    return derivative


def _choose(functions: dict[str, Callable[..., Any]], *args: jax.Array) -> Any:
    chosen = os.environ.get(VARIABLE, "auto")
    if chosen not in CHOICES:
        raise UserError(f"{VARIABLE}={chosen}; expected one of {', '.join(CHOICES)}")
    if chosen != "auto":
        return functions[chosen](*args)
    plain = functions["plain"]
    others = {platform: functions[name] for platform, name in _PLATFORMS.items() if functions[name] is not plain}
    return lax.platform_dependent(*args, **others, default=plain) if others else plain(*args)
