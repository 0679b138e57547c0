"""Where a step's time goes: each convolution's forward pass and both gradients, alone, as XLA computes them plainly.

    python experiments/benchmarks/layers.py

A row a layer of the reference network at 128x256, batch 2, float32: its operations, milliseconds of the forward pass,
of the gradient of its input, of its kernel, and of the kernel's gradient as nine matrix products, one for each tap.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sean_jax.ops.convolution import plain_conv3x3

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
BATCH, REPEATS = 2, 3


def milliseconds(function: Callable[..., Any], *inputs: jax.Array) -> float:
    """Of one call, compiled, averaged over a few."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*inputs))
    start = time.perf_counter()
    for _ in range(REPEATS):
        result = compiled(*inputs)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / REPEATS * 1e3


def kernel_gradient_by_taps(x: jax.Array, gradient: jax.Array, dilation: int) -> jax.Array:
    """The kernel's gradient ``[9, in, out]`` as a matrix product a tap."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0)))
    corners = [(i * dilation, j * dilation) for i in range(3) for j in range(3)]
    shifted = [padded[:, i : i + height, j : j + width] for i, j in corners]
    return jnp.stack([jnp.einsum("bhwi,bhwo->io", part, gradient) for part in shifted])


def main() -> None:
    print("| layer | GFLOP | forward | of the input | of the kernel | by nine products |\n" + "| --- " * 6 + "|")
    for name, (height, width, channels_in, channels_out, dilation) in LAYERS.items():
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[0], (BATCH, height, width, channels_in))
        kernel = jax.random.normal(keys[1], (3, 3, channels_in, channels_out))
        gradient = jax.random.normal(keys[2], (BATCH, height, width, channels_out))

        def convolve(x: jax.Array, kernel: jax.Array, dilation: int = dilation) -> jax.Array:
            return plain_conv3x3(x, kernel, dilation=dilation)

        def of_input(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> Any:
            return jax.vjp(lambda x: convolve(x, kernel), x)[1](gradient)

        def of_kernel(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> Any:
            return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](gradient)

        times = [
            milliseconds(convolve, x, kernel),
            milliseconds(of_input, x, kernel, gradient),
            milliseconds(of_kernel, x, kernel, gradient),
            milliseconds(lambda x, g, d=dilation: kernel_gradient_by_taps(x, g, d), x, gradient),
        ]
        gflop = 2 * 9 * channels_in * channels_out * height * width * BATCH / 1e9
        print(f"| {name} | {gflop:.1f} | " + " | ".join(f"{t:.0f}" for t in times) + " |", flush=True)


if __name__ == "__main__":
    main()
