"""Which formulation of an operation runs: one meaning, several ways to compute it, the fastest by platform.

On NVIDIA GPUs the backward pass of a dilated convolution falls to a slow kernel (45 of 800 TFLOP/s on an H100, bf16:
3.8 to 11.6 ms a layer against 0.3 to 0.9 for the formulation used here), and a classifier of 19 outputs is faster as
one matrix product. On a CPU those are several times slower than the plain ones; there a float32 convolution is a
matrix product's worth of work, of which Winograd's tiles save half and more (:mod:`~sean_jax.ops.winograd`). So
``cuda`` and ``cpu`` get formulations of :mod:`~sean_jax.ops.convolution`, everything else (TPU, ROCm: nothing was
measured there) XLA's plain operations.

The choice is made when a program is lowered for its devices, not by the default backend: a program for the CPU
of a machine with a GPU is a CPU's. The environment variable ``SEAN_JAX_FORMULATION`` overrides it for a whole
process: ``plain``, ``cpu`` or ``gpu``; ``auto`` is the default. It is read when a function is traced.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax

from sean_jax.errors import UserError

VARIABLE = "SEAN_JAX_FORMULATION"
CHOICES = ("auto", "plain", "cpu", "gpu")
_PLATFORMS = {"cpu": "cpu", "cuda": "gpu"}  # JAX's names

Op = Callable[..., jax.Array]
Derivative = Callable[..., tuple[jax.Array, ...]]  # (*inputs, gradient of the output) → gradients of the inputs


class Formulation(NamedTuple):
    forward: Op
    backward: Derivative


def by_platform(plain: Op, *, cpu: Formulation | None = None, gpu: Formulation | None = None) -> Op:
    """One differentiable operation computed by ``plain`` or, on a CPU or an NVIDIA GPU, by the formulation given."""
    default = Formulation(plain, derivative_of(plain))
    formulations = {"plain": default, "cpu": cpu or default, "gpu": gpu or default}

    @jax.custom_vjp
    def operation(*inputs: jax.Array) -> jax.Array:
        return _choose({name: way.forward for name, way in formulations.items()}, *inputs)

    def forward(*inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return operation(*inputs), inputs

    def backward(inputs: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
        return _choose({name: way.backward for name, way in formulations.items()}, *inputs, gradient)

    operation.defvjp(forward, backward)
    return operation


def derivative_of(operation: Op) -> Derivative:
    """JAX's own derivative; the operation's value is computed only where the derivative needs it."""

    def derivative(*inputs_and_gradient: jax.Array) -> tuple[jax.Array, ...]:
        *inputs, gradient = inputs_and_gradient
        return jax.vjp(operation, *inputs)[1](gradient)

    return derivative


def _choose(ways: dict[str, Callable[..., Any]], *args: jax.Array) -> Any:
    chosen = os.environ.get(VARIABLE, "auto")
    if chosen not in CHOICES:
        raise UserError(f"{VARIABLE}={chosen}; expected one of {', '.join(CHOICES)}")
    if chosen != "auto":
        return ways[chosen](*args)
    plain = ways["plain"]
    others = {platform: ways[name] for platform, name in _PLATFORMS.items() if ways[name] is not plain}
    return lax.platform_dependent(*args, **others, default=plain) if others else plain(*args)
