"""Winograd's minimal filtering for 3×3 convolutions: fewer multiplications for more additions, for CPUs.

A tile of m×m outputs of one channel depends on (m+2)×(m+2) inputs. After both are transformed, they meet in (m+2)²
products in place of 9 m²: 16 instead of 36 for m = 2, 36 instead of 144 for m = 4. Over all tiles and channels, each
of these products is a matrix product, which CPUs compute fast. Names as in Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016: Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A.

Rounding errors in float32, relative to the standard deviation of the result, are 3e-7 to 7e-7 for m = 2, the same as
those of XLA's own convolution, and two to three times as large for m = 4. This holds for the interpolation points used
here, 0, ±3/4 and ±3/2; the usual 0, ±1 and ±2 double it.
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
    """Cook and Toom's transform, which multiplies polynomials by their values at points and at infinity, transposed."""
    others = [points[:i] + points[i + 1 :] for i in range(len(points))]
    weights = [math.prod(point - other for other in rest) for point, rest in zip(points, others, strict=True)]

    def evaluate(coefficients: int) -> np.ndarray:
        return np.vstack([np.vander(points, coefficients, increasing=True), np.eye(coefficients)[-1]])

    expand = np.polynomial.polynomial.polyfromroots
    of_input = np.vstack([[*expand(rest), 0.0] for rest in others] + [expand(points)])
    return _Transform(of_input, evaluate(3) / np.array([*weights, 1.0])[:, None], evaluate(len(points) - 1).T)


_TRANSFORMS = {2: _transform([0, 1, -1]), 4: _transform([0, 0.75, -0.75, 1.5, -1.5])}

# Costs in multiply-adds of a matrix product; one core of an AMD EPYC does 8e7 of them per millisecond.
_TRANSFORM_COST = 100  # of transforming one number of an input or an output
_KERNEL_TRANSFORM_COST = 150  # of transforming one number of a kernel: these are read once and spill from the cache
_GATHERING_COST = 400  # of one of the nine neighbours that XLA's kernel gradient gathers for each number of the input
_WORTHWHILE = 4e8  # the least saving, 5 ms, that is worth the 0.1 s that each use of tiles takes to compile


def best_tile(shape: tuple[int, ...], channels_out: int, *, for_kernel_gradient: bool = False) -> int | None:
    """The fastest tile size for a convolution of ``[b, h, w, c]``, or for the gradient of its kernel.

    Returns None where tiles are not faster than XLA's own convolution.
    """
    batch, height, width, channels_in = shape
    if min(height, width) < 2:
        # Some taps never meet such a map. Their gradient must be exactly zero, since Adam would turn a rounding error
        # into a full step.
        return None
    numbers = batch * height * width * channels_in
    plain = 9 * numbers * (channels_out + (_GATHERING_COST if for_kernel_gradient else 0))

    def cost(tile: int) -> float:
        tiles = batch * -(-height // tile) * -(-width // tile)
        transforms = _TRANSFORM_COST * tiles * (channels_in + channels_out)
        transforms += _KERNEL_TRANSFORM_COST * channels_in * channels_out
        return (tile + 2) ** 2 * (tiles * channels_in * channels_out + transforms)

    best = min(_TRANSFORMS, key=cost)
    return best if plain - cost(best) > _WORTHWHILE else None


def conv3x3(x: jax.Array, kernel: jax.Array, tile: int) -> jax.Array:
    """A same-size convolution with zero padding: ``[b, h, w, in], [3, 3, in, out] → [b, h, w, out]``; tile: 2 or 4."""
    transform = _TRANSFORMS[tile]
    products = _einsum("tpi,tio->tpo", _transformed_input(x, tile), _both_axes(transform.of_kernel, kernel))
    return _output(products, x.shape, tile)


def input_gradient3x3(gradient: jax.Array, kernel: jax.Array, tile: int) -> jax.Array:
    """The gradient of :func:`conv3x3`'s input: the output's gradient convolved with the kernel rotated by 180°."""
    rotated = _TRANSFORMS[tile].of_kernel[:, ::-1]
    products = _einsum("tpo,tio->tpi", _transformed_input(gradient, tile), _both_axes(rotated, kernel))
    return _output(products, gradient.shape, tile)


def kernel_gradient3x3(x: jax.Array, gradient: jax.Array, tile: int) -> jax.Array:
    """The gradient of :func:`conv3x3`'s kernel ``[3, 3, in, out]``, from its input and its output's gradient."""
    height, width = x.shape[1:3]
    transform = _TRANSFORMS[tile]
    whole_tiles = jnp.pad(gradient, ((0, 0), (0, -height % tile), (0, -width % tile), (0, 0)))
    of_gradient = _both_axes(transform.of_output.T, _split(whole_tiles, tile))
    taps = _einsum("tpi,tpo->tio", _transformed_input(x, tile), of_gradient)
    return _both_axes(transform.of_kernel.T, taps).reshape(3, 3, *taps.shape[1:])


def _transformed_input(x: jax.Array, tile: int) -> jax.Array:
    """The transformed tiles of ``x`` with the convolution's zero padding: ``[b, h, w, c] → [(m+2)², tiles, c]``.

    Tiles of the input overlap by two. So the map is split into tiles of m×m, and each is joined with the first two
    rows and columns of the next ones. A few copies and a matrix product: sums of slices run as fast, but take XLA
    three times as long to compile.
    """
    height, width = x.shape[1:3]
    below, right = (tile - 1 + -length % tile for length in (height, width))
    tiles = _split(jnp.pad(x, ((0, 0), (1, below), (1, right), (0, 0))), tile)
    tiles = jnp.concatenate([tiles[:, :, :, :-1], tiles[:2, :, :, 1:]], 0)
    tiles = jnp.concatenate([tiles[:, :, :, :, :-1], tiles[:, :2, :, :, 1:]], 1)
    return _both_axes(_TRANSFORMS[tile].of_input, tiles)


def _split(x: jax.Array, tile: int) -> jax.Array:
    """``[b, h, w, c] → [m, m, b, h/m, w/m, c]``: position in the tile first."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // tile, tile, width // tile, tile, channels)
    return x.transpose(2, 4, 0, 1, 3, 5)


def _output(products: jax.Array, shape: tuple[int, ...], tile: int) -> jax.Array:
    """``[(m+2)², tiles, c] → [b, h, w, c]``; b, h and w as in ``shape``."""
    batch, height, width, _ = shape
    rows, columns = -(-height // tile), -(-width // tile)
    y = _both_axes(_TRANSFORMS[tile].of_output, products).reshape(tile, tile, batch, rows, columns, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(batch, rows * tile, columns * tile, -1)[:, :height, :width]


def _both_axes(matrix: np.ndarray, values: jax.Array) -> jax.Array:
    """Applies ``matrix [n, k]`` to rows and columns: ``[k, k, ..., c] or [k², ..., c] → [n², p, c]``.

    ``p`` is what lies between. The two products are one by the Kronecker product of the matrix with itself.
    """
    both = np.kron(matrix, matrix).astype(np.float32)
    return _einsum("nk,kpc->npc", both, values.reshape(both.shape[1], -1, values.shape[-1]))
