"""Times each convolution's forward pass and both gradients alone, with XLA's convolutions and with Winograd's tiles.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/benchmarks/layers.py

Prints a row for each layer of the reference network at 128x256, batch 2, float32: its GFLOP, then the milliseconds of
the forward pass, the input's gradient and the kernel's gradient with XLA's convolutions ("plain"), and the same three
with this project's CPU implementation ("here").
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from sean_jax.ops.convolution import plain_conv3x3, winograd_conv3x3, winograd_gradients
from sean_jax.ops.implementation import Derivative, Op, derivative_of

# Height, width, channels in and out, dilation.
LAYERS = {
    "conv1_2": (128, 256, 64, 64, 1),
    "conv2_2": (64, 128, 128, 128, 1),
    "conv3_2": (32, 64, 256, 256, 1),
    "conv4_2": (16, 32, 512, 512, 1),
    "conv5_2": (16, 32, 512, 512, 2),
    "fc6": (16, 32, 512, 1024, 4),
    "fc7": (16, 32, 1024, 1024, 4),
}
BATCH, REPEATS = 2, 9


def milliseconds(function: Callable[..., Any], *inputs: jax.Array) -> float:
    """The median time of a compiled call."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*inputs))
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*inputs))
        found.append(time.perf_counter() - start)
    return statistics.median(found) * 1e3


def times(forward: Op, gradients: Derivative, x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> list[float]:
    """Milliseconds of the forward pass, of the input's gradient and of the kernel's."""
    alone = [lambda *inputs, which=which: gradients(*inputs)[which] for which in (0, 1)]  # XLA drops the other
    return [milliseconds(forward, x, kernel), *(milliseconds(function, x, kernel, gradient) for function in alone)]


def main() -> None:
    columns = [
        f"{what}, {how}" for how in ("plain", "here") for what in ("forward", "input gradient", "kernel gradient")
    ]
    print("| layer | GFLOP | " + " | ".join(columns) + " |\n" + "| --- " * 8 + "|")
    for name, (height, width, channels_in, channels_out, dilation) in LAYERS.items():
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[0], (BATCH, height, width, channels_in))
        kernel = jax.random.normal(keys[1], (3, 3, channels_in, channels_out))
        gradient = jax.random.normal(keys[2], (BATCH, height, width, channels_out))
        plain = functools.partial(plain_conv3x3, dilation=dilation)
        tiled = functools.partial(winograd_conv3x3, dilation=dilation)
        gradients_of_tiled = functools.partial(winograd_gradients, dilation=dilation)
        found = times(plain, derivative_of(plain), x, kernel, gradient)
        found += times(tiled, gradients_of_tiled, x, kernel, gradient)
        gflop = 2 * 9 * channels_in * channels_out * height * width * BATCH / 1e9
        print(f"| {name} | {gflop:.1f} | " + " | ".join(f"{t:.0f}" for t in found) + " |", flush=True)


if __name__ == "__main__":
    main()
