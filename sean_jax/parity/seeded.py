"""Draws the seeded inputs and weights of the comparison systems' parity cases with NumPy alone.

Every tensor has a random stream of its own, seeded with the case's seed and the CRC-32 of the tensor's name. It
depends on nothing else, so tensors may be drawn in any order.
"""

import math
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

Spec = Iterable[tuple[str, tuple[int, ...], float]]  # name, shape and standard deviation of each tensor

_LARGEST = 1 << 28  # elements of a tensor; fc6 of VGG-16 has 2.6 times fewer
VGG_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one tensor."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))


def normal(seed: int, name: str, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Normal values of standard deviation ``std``; float32."""
    check_size(name, shape)
    return stream(seed, name).standard_normal(shape, dtype=np.float32) * np.float32(std)


def check_size(name: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError if a shape, which may be a case's, is absurd."""
    if math.prod(shape) > _LARGEST:
        raise ValueError(f"a tensor {name} of shape {shape}; expected at most {_LARGEST} elements")


def direction(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The direction on which the tensor of that name is projected, the same in all cases."""
    return normal(0, f"direction/{name}", shape, 1.0)


def weights(seed: int, spec: Spec) -> dict[str, np.ndarray]:
    """Tensors by name."""
    return {name: normal(seed, name, shape, std) for name, shape, std in spec}


def conv(
    name: str, out: int, fan_in: int, size: int, *, gain: float = 2.0, scale: float = 1.0
) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Weight and bias of a convolution in PyTorch's layout ``[out, in, size, size]``."""
    yield f"{name}.weight", (out, fan_in, size, size), scale * (gain / (fan_in * size * size)) ** 0.5
    yield f"{name}.bias", (out,), 0.1


def image(seed: int, name: str, batch: int, height: int, width: int, block: int = 8) -> np.ndarray:
    """``[b, h, w, 3]`` float32, RGB, whole numbers in 0–255: blocks of one colour with noise."""
    check_size(name, (batch, height, width, 3))
    rng = stream(seed, name)
    cells = rng.uniform(0, 255, (batch, -(-height // block), -(-width // block), 3))
    values = cells.repeat(block, 1).repeat(block, 2)[:, :height, :width]
    return np.clip(values + rng.normal(0, 12, values.shape), 0, 255).round().astype(np.float32)


def label(
    seed: int, name: str, batch: int, height: int, width: int, num_classes: int, ignore: int, block: int = 8
) -> np.ndarray:
    """``[b, h, w]`` int32: blocks of one class, with a tenth of the pixels set to ``ignore``."""
    check_size(name, (batch, height, width))
    rng = stream(seed, name)
    cells = rng.integers(0, num_classes, (batch, -(-height // block), -(-width // block)))
    values = cells.repeat(block, 1).repeat(block, 2)[:, :height, :width].astype(np.int32)
    values[rng.random(values.shape) < 0.1] = ignore
    return values
