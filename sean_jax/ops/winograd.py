"""Winograd's minimal filtering for 3×3 convolutions: fewer multiplications for more additions, for CPUs.

A tile of m×m outputs of one channel depends on (m+2)×(m+2) inputs. Transformed, the two meet in (m+2)² products in
place of 9 m²: 16 for 36 with m = 2, 36 for 144 with m = 4. Over all tiles and channels each of those products is a
matrix product, which is what CPUs are good at (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
CVPR 2016: Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, their names).

Rounding errors in float32, relative to a result's standard deviation: 3e-7 to 7e-7 with m = 2, as XLA's own
convolution's, and about twice to three times that with m = 4. That is with the interpolation points used here, 0, ±3/4
and ±3/2; the usual 0, ±1 and ±2 double it.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_einsum = functools.partial(jnp.einsum, precision="highest")


class _Transform(NamedTuple):
    of_input: np.ndarray  # Bᵀ [m+2, m+2]
    of_kernel: np.ndarray  # G [m+2, 3]
    of_output: np.ndarray  # Aᵀ [m, m+2]


def _transform(points: list[float]) -> _Transform:
    """Cook and Toom's: products of polynomials by their values at points and at infinity, here transposed."""
    others = [points[:i] + points[i + 1 :] for i in range(len(points))]
    weights = [math.prod(point - other for other in rest) for point, rest in zip(points, others, strict=True)]

    def evaluate(coefficients: int) -> np.ndarray:
        return np.vstack([np.vander(points, coefficients, increasing=True), np.eye(coefficients)[-1]])

    expand = np.polynomial.polynomial.polyfromroots
    of_input = np.vstack([[*expand(rest), 0.0] for rest in others] + [expand(points)])
    return _Transform(of_input, evaluate(3) / np.array([*weights, 1.0])[:, None], evaluate(len(points) - 1).T)


_TRANSFORMS = {2: _transform([0, 1, -1]), 4: _transform([0, 0.75, -0.75, 1.5, -1.5])}
# In multiply-adds of a matrix product, of which two cores of an AMD EPYC do 6e7 a millisecond, with huge pages:
_TRANSFORM_COST = 60  # what transforming one number takes
_GATHERING_COST = 150  # what XLA's kernel gradient takes to gather one of the nine neighbours of each number
_WORTHWHILE = 6e8  # what must be saved, ten milliseconds, since each use takes the compiler up to a second


def best_tile(shape: tuple[int, ...], channels_out: int, *, for_kernel_gradient: bool = False) -> int | None:
    """The fastest tile for a convolution of ``[b, h, w, c]``, or for its kernel's gradient; None if none pays."""
    batch, height, width, channels_in = shape
    if min(height, width) < 2:
        return None  # taps that never meet the map must get a gradient of zero; a rounding error, Adam would magnify
    numbers = batch * height * width * channels_in
    plain = 9 * numbers * (channels_out + (_GATHERING_COST if for_kernel_gradient else 0))

    def cost(tile: int) -> float:
        tiles = batch * -(-height // tile) * -(-width // tile)
        transformed = tiles * (channels_in + channels_out) + channels_in * channels_out
        return (tile + 2) ** 2 * (tiles * channels_in * channels_out + _TRANSFORM_COST * transformed)

    best = min(_TRANSFORMS, key=cost)
    return best if plain - cost(best) > _WORTHWHILE else None


def conv3x3(x: jax.Array, kernel: jax.Array, tile: int) -> jax.Array:
    """A same-size convolution with zero padding: ``[b, h, w, in], [3, 3, in, out] → [b, h, w, out]``; tile: 2 or 4."""
    transform = _TRANSFORMS[tile]
    products = _einsum("tpi,tio->tpo", _of_input(x, tile), _both_axes(transform.of_kernel, kernel))
    return _of_output(products, x.shape, tile)


def input_gradient3x3(gradient: jax.Array, kernel: jax.Array, tile: int) -> jax.Array:
    """The gradient of :func:`conv3x3`'s input: the convolution of its output's by the kernel turned about."""
    turned = _TRANSFORMS[tile].of_kernel[:, ::-1]
    products = _einsum("tpo,tio->tpi", _of_input(gradient, tile), _both_axes(turned, kernel))
    return _of_output(products, gradient.shape, tile)


def kernel_gradient3x3(x: jax.Array, gradient: jax.Array, tile: int) -> jax.Array:
    """The gradient of :func:`conv3x3`'s kernel ``[3, 3, in, out]``, from its input and its output's gradient."""
    height, width = x.shape[1:3]
    transform = _TRANSFORMS[tile]
    whole_tiles = jnp.pad(gradient, ((0, 0), (0, -height % tile), (0, -width % tile), (0, 0)))
    of_gradient = _of_tiles(transform.of_output.T, whole_tiles, tile)
    taps = _einsum("tpi,tpo->tio", _of_input(x, tile), of_gradient)
    return _both_axes(transform.of_kernel.T, taps).reshape(3, 3, *taps.shape[1:])


def _of_input(x: jax.Array, tile: int) -> jax.Array:
    """Tiles of x, with the convolution's own zeros and as many more as fill the last: ``[(m+2)², tiles, in]``."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1 + -height % tile), (1, 1 + -width % tile), (0, 0)))
    return _of_tiles(_TRANSFORMS[tile].of_input, padded, tile)


def _of_output(products: jax.Array, shape: tuple[int, ...], tile: int) -> jax.Array:
    """``[(m+2)², tiles, c] → [b, h, w, c]``; b, h and w as in ``shape``."""
    batch, height, width, _ = shape
    rows, columns = -(-height // tile), -(-width // tile)
    y = _both_axes(_TRANSFORMS[tile].of_output, products).reshape(tile, tile, batch, rows, columns, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(batch, rows * tile, columns * tile, -1)[:, :height, :width]


def _both_axes(matrix: np.ndarray, values: jax.Array) -> jax.Array:
    """``matrix [n, k]`` applied to rows and columns, which come first: ``[k², ...]`` or ``[k, k, ...] → [n², ...]``."""
    both = np.kron(matrix, matrix).astype(np.float32)
    values = values.reshape(both.shape[1], *values.shape[-2:])
    return _einsum("nk,kpc->npc", both, values)


def _of_tiles(matrix: np.ndarray, x: jax.Array, tile: int) -> jax.Array:
    """``matrix [n, k]`` applied to rows and columns of k×k tiles, ``tile`` apart: ``[b, h, w, c] → [n², tiles, c]``.

    By sums of slices: a matrix product would have to copy every tile first.
    """
    n, size = matrix.shape
    last = [length - size + 1 for length in x.shape[1:3]]
    by_row = jnp.stack(_combine(matrix, [x[:, i : i + last[0] : tile] for i in range(size)]))
    both = jnp.stack(_combine(matrix, [by_row[:, :, :, j : j + last[1] : tile] for j in range(size)]), 1)
    return both.reshape(n * n, -1, x.shape[3])


def _combine(matrix: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
    rows = [[float(c) * part for c, part in zip(row, parts, strict=True) if c] for row in matrix]
    return [functools.reduce(jnp.add, row) for row in rows]
