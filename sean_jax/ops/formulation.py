"""Which formulation of an operation runs: one meaning, several ways to compute it, the fastest by platform.

On NVIDIA GPUs the backward pass of a dilated convolution falls to a slow kernel (45 of 800 TFLOP/s on an H100, bf16:
3.8 to 11.6 ms a layer against 0.3 to 0.9 for the formulation used here), a classifier of 19 outputs is faster
as one matrix product, and so is max-pooling's gradient as a reshape. On a CPU those formulations are several times
slower than the plain ones. So ``cuda`` gets the formulations of :mod:`~sean_jax.ops.convolution` and
:mod:`~sean_jax.ops.pooling`, everything else (CPU, TPU, ROCm: nothing was measured on the last two) the plain ones.

The choice is made when a program is lowered for its devices, not by the default backend: a program for the CPU
of a machine with a GPU is a plain one. The environment variable ``SEAN_JAX_FORMULATION`` overrides it for a whole
process: ``plain`` or ``gpu``; ``auto`` is the default. It is read when a function is traced.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from sean_jax.errors import UserError

VARIABLE = "SEAN_JAX_FORMULATION"
CHOICES = ("auto", "plain", "gpu")

Op = Callable[..., jax.Array]
Derivative = Callable[..., tuple[jax.Array, ...]]  # (*inputs, gradient of the output) → gradients of the inputs


def by_platform(plain: Op, *, gpu_forward: Op, gpu_backward: Derivative) -> Op:
    """One differentiable operation computed by ``plain`` or, on an NVIDIA GPU, by the two formulations given."""

    @jax.custom_vjp
    def operation(*inputs: jax.Array) -> jax.Array:
        return _choose(plain, gpu_forward, *inputs)

    def forward(*inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return operation(*inputs), inputs

    def backward(inputs: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
        return _choose(derivative_of(plain), gpu_backward, *inputs, gradient)

    operation.defvjp(forward, backward)
    return operation


def derivative_of(operation: Op) -> Derivative:
    """JAX's own derivative; the operation's value is computed only where the derivative needs it."""

    def derivative(*inputs_and_gradient: jax.Array) -> tuple[jax.Array, ...]:
        *inputs, gradient = inputs_and_gradient
        return jax.vjp(operation, *inputs)[1](gradient)

    return derivative


def _choose(plain: Callable[..., Any], gpu: Callable[..., Any], *args: jax.Array) -> Any:
    chosen = os.environ.get(VARIABLE, "auto")
    if chosen not in CHOICES:
        raise UserError(f"{VARIABLE}={chosen}; expected one of {', '.join(CHOICES)}")
    if plain is gpu or chosen == "plain":
        return plain(*args)
    return gpu(*args) if chosen == "gpu" else lax.platform_dependent(*args, cuda=gpu, default=plain)
