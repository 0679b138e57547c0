"""Convolutions with one meaning, formulated for the platform they run on (see :mod:`~sean_jax.ops.implementation`)."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.ops import winograd
from sean_jax.ops.implementation import Formulation, Op, by_platform, derivative_of

DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **options: Any,
) -> jax.Array:
    """``lax.conv_general_dilated``, for Flax's ``nn.Conv``: same-size 3×3 convolutions go another way."""
    dilation = tuple(rhs_dilation or (1, 1))
    same_size = rhs.shape[:2] == (3, 3) and list(map(tuple, padding)) == [(dilation[0],) * 2] * 2
    strided = {*window_strides, *(lhs_dilation or ()), feature_group_count} != {1}
    if dilation[0] == dilation[1] and same_size and not strided and not options:
        return conv3x3(lhs, rhs, dilation[0], precision)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
        **options,
    )


def conv3x3(x: jax.Array, kernel: jax.Array, dilation: int = 1, precision: Any = None) -> jax.Array:
    """A same-size 3×3 convolution with zero padding: ``[b, h, w, in], [3, 3, in, out] → [b, h, w, out]``.

    On an NVIDIA GPU, if dilated: with few outputs (a classifier: the nine taps together have no more than there are
    inputs) one matrix product by all taps, then shift and add, both ways; else the plain convolution forward and the
    convolution of sub-grids backward. On a CPU, in float32: by Winograd's tiles, both ways, where they pay.
    Derivatives are taken in reverse only (``jax.grad``, ``jax.vjp``).
    """
    channels_in, channels_out = kernel.shape[2:]
    make = _classifier if dilation > 1 and 9 * channels_out <= channels_in else _layer
    return make(dilation, precision)(x, kernel)


@functools.cache
def _layer(dilation: int, precision: Any) -> Op:
    settings = {"dilation": dilation, "precision": precision}
    plain = functools.partial(plain_conv3x3, **settings)
    cpu = Formulation(
        functools.partial(winograd_conv3x3, **settings), functools.partial(winograd_gradients, **settings)
    )
    gpu = Formulation(plain, derivative_of(functools.partial(sub_grid_conv3x3, **settings)))
    return by_platform(plain, cpu=cpu, gpu=gpu if dilation > 1 else None)


@functools.cache
def _classifier(dilation: int, precision: Any) -> Op:
    # No tiles on a CPU: they never pay with so few outputs, and a tap that hardly meets the map would get a gradient
    # that is zero but for rounding, which Adam makes a whole step of.
    settings = {"dilation": dilation, "precision": precision}
    gpu = Formulation(
        functools.partial(tap_product_conv3x3, **settings), functools.partial(tap_product_gradients, **settings)
    )
    return by_platform(functools.partial(plain_conv3x3, **settings), gpu=gpu)


def plain_conv3x3(x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None) -> jax.Array:
    """The definition: XLA's own dilated convolution."""
    padding = [(dilation, dilation)] * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=DIMENSION_NUMBERS,
        precision=precision,
    )


def sub_grid_conv3x3(x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None) -> jax.Array:
    """The same as an undilated convolution of the d×d interleaved sub-grids, which never mix (space-to-batch).

    Sizes that d does not divide are filled up with zeros, which act as the padding does, and cut off again.
    """
    grids = _to_sub_grids(x, dilation)
    return _from_sub_grids(plain_conv3x3(grids, kernel, dilation=1, precision=precision), dilation, x.shape)


def _to_sub_grids(x: jax.Array, d: int) -> jax.Array:
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % d), (0, -width % d), (0, 0)))
    rows, columns = x.shape[1] // d, x.shape[2] // d
    x = x.reshape(batch, rows, d, columns, d, channels).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(batch * d * d, rows, columns, channels)


def _from_sub_grids(grids: jax.Array, d: int, shape: tuple[int, ...]) -> jax.Array:
    batch, height, width, _ = shape
    _, rows, columns, channels = grids.shape
    x = grids.reshape(batch, d, d, rows, columns, channels).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(batch, rows * d, columns * d, channels)[:, :height, :width]


def winograd_conv3x3(x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None) -> jax.Array:
    """The same by Winograd's tiles of the sub-grids, at the highest precision, where a CPU is faster so; else plain."""
    grids = _to_sub_grids(x, dilation)
    tile = _tile(grids, kernel.shape[3])
    if tile is None:
        return plain_conv3x3(x, kernel, dilation=dilation, precision=precision)
    return _from_sub_grids(winograd.conv3x3(grids, kernel, tile), dilation, x.shape)


def winograd_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, dilation: int, precision: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The derivative of :func:`winograd_conv3x3`, each gradient by the way that is faster."""
    plain = functools.partial(plain_conv3x3, dilation=dilation, precision=precision)
    of_x, of_kernel = derivative_of(plain)(x, kernel, gradient)  # what is replaced below, JAX drops
    grids, of_grids = _to_sub_grids(x, dilation), _to_sub_grids(gradient, dilation)
    channels_in, channels_out = kernel.shape[2:]
    if (tile := _tile(of_grids, channels_in)) is not None:
        of_x = _from_sub_grids(winograd.input_gradient3x3(of_grids, kernel, tile), dilation, x.shape)
    if (tile := _tile(grids, channels_out, for_kernel_gradient=True)) is not None:
        of_kernel = winograd.kernel_gradient3x3(grids, of_grids, tile)
    return of_x, of_kernel


def _tile(grids: jax.Array, channels_out: int, **options: bool) -> int | None:
    # Narrower types are left to XLA: transformed, they would lose digits.
    return winograd.best_tile(grids.shape, channels_out, **options) if grids.dtype == jnp.float32 else None


def tap_product_conv3x3(x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None) -> jax.Array:
    """The same as one matrix product by all nine taps, whose results are then shifted and added in float32."""
    taps = kernel.reshape(9, *kernel.shape[2:])
    products = jnp.einsum("bhwi,tio->bhwto", x, taps, precision=precision, preferred_element_type=jnp.float32)
    shifted = [_shift(products[:, :, :, t], *offset) for t, offset in enumerate(_offsets(dilation))]
    return functools.reduce(jnp.add, shifted).astype(x.dtype)


def tap_product_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, dilation: int, precision: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The derivative of :func:`tap_product_conv3x3`: nine shifted copies of the gradient, then two matrix products.

    By hand, since the products read the type of ``x`` here; the automatic derivative would multiply in float32.
    """
    copies = jnp.stack([_shift(gradient, -down, -right) for down, right in _offsets(dilation)], axis=3)
    taps = kernel.reshape(9, *kernel.shape[2:])
    of_x = jnp.einsum("bhwto,tio->bhwi", copies, taps, precision=precision)
    of_kernel = jnp.einsum("bhwi,bhwto->tio", x, copies, precision=precision)
    return of_x, of_kernel.reshape(kernel.shape)


def _offsets(dilation: int) -> list[tuple[int, int]]:
    """Where each tap reads, relative to its output."""
    return [(i * dilation, j * dilation) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def _shift(x: jax.Array, down: int, right: int) -> jax.Array:
    """``out[:, i, j] = x[:, i + down, j + right]``, zero where that is outside."""

    def axis(length: int, by: int) -> tuple[slice, tuple[int, int]]:
        kept = slice(min(max(by, 0), length), max(length + min(by, 0), 0))
        return kept, (min(max(-by, 0), length), min(max(by, 0), length))

    (rows, rows_padding), (columns, columns_padding) = axis(x.shape[1], down), axis(x.shape[2], right)
    return jnp.pad(x[:, rows, columns], ((0, 0), rows_padding, columns_padding, (0, 0)))
