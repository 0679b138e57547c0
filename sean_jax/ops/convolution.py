"""3×3 convolutions, implemented for the platform they run on (see :mod:`~sean_jax.ops.implementation`)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from sean_jax.ops import winograd
from sean_jax.ops.implementation import Derivative, Implementation, Op, by_platform, derivative_of

DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    dilation: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """A same-size 3×3 convolution with zero padding: ``[b, h, w, in], [3, 3, in, out] → [b, h, w, out]``.

    On NVIDIA GPUs, dilated convolutions have implementations of their own. With few outputs (a classifier whose nine
    taps together have no more outputs than there are inputs), one matrix product computes all taps, which are then
    shifted and added; the backward pass is computed likewise. Other dilated convolutions run plainly forward and on
    interleaved sub-grids backward. On CPUs, float32 convolutions use Winograd's tiles where these are faster.

    Only reverse-mode derivatives are defined (``jax.grad``, ``jax.vjp``).

    Args:
      precision: of float32 products, as in ``lax.conv_general_dilated``.
      preferred_element_type: type of the output; default: the inputs' type. Products are added in float32 at least.
        The backward pass casts the output's gradient to the inputs' type, and its results have that type.
    """
    channels_in, channels_out = kernel.shape[2:]
    make = _classifier if dilation > 1 and 9 * channels_out <= channels_in else _layer
    out_type = jnp.dtype(preferred_element_type or x.dtype)
    return make(dilation, precision, out_type)(x, kernel)


@functools.cache
def _layer(dilation: int, precision: Any, out_type: jnp.dtype) -> Op:
    settings = {"dilation": dilation, "precision": precision}
    plain = _plain(dilation, precision, out_type)
    cpu = Implementation(
        functools.partial(winograd_conv3x3, **settings, preferred_element_type=out_type),
        functools.partial(winograd_gradients, **settings),
    )
    backward = derivative_of(functools.partial(sub_grid_conv3x3, **settings)) if dilation > 1 else plain.backward
    return by_platform(plain, cpu=cpu, gpu=Implementation(plain.forward, _in_row_major_order(backward)))


@functools.cache
def _classifier(dilation: int, precision: Any, out_type: jnp.dtype) -> Op:
    # CPUs run it plainly: tiles never pay with so few outputs, and they would give taps that hardly meet the map a
    # rounding error for a gradient in place of zero, which Adam turns into a full step.
    settings = {"dilation": dilation, "precision": precision}
    gpu = Implementation(
        functools.partial(tap_product_conv3x3, **settings, preferred_element_type=out_type),
        functools.partial(tap_product_gradients, **settings),
    )
    plain = _plain(dilation, precision, out_type)
    return by_platform(plain, cpu=Implementation(plain.forward, functools.partial(nhwc_gradients, **settings)), gpu=gpu)


def _plain(dilation: int, precision: Any, out_type: jnp.dtype) -> Implementation:
    plain = functools.partial(plain_conv3x3, dilation=dilation, precision=precision)
    # The derivative of the convolution with the inputs' type: with another output type, JAX would multiply in float32.
    return Implementation(functools.partial(plain, preferred_element_type=out_type), derivative_of(plain))


def _in_row_major_order(backward: Derivative) -> Derivative:
    """Fixes how the kernel's gradient lies in memory: as the kernel does.

    cuDNN puts the output channels first. Left to itself, XLA converts the optimiser's float32 moments and parameters to
    that order and back in every step; so it transposes the gradient once, in the type of ``x``.
    """

    def ordered(*inputs_and_gradient: jax.Array) -> tuple[jax.Array, ...]:
        of_x, of_kernel = backward(*inputs_and_gradient)
        return of_x, with_layout_constraint(of_kernel, Layout(tuple(range(of_kernel.ndim))))

    return ordered


def conv1x1(x: jax.Array, kernel: jax.Array, precision: Any = None, preferred_element_type: Any = None) -> jax.Array:
    """A 1×1 convolution: ``[b, h, w, in], [1, 1, in, out] → [b, h, w, out]``; arguments as for :func:`conv3x3`."""
    return _conv1x1(precision, jnp.dtype(preferred_element_type or x.dtype))(x, kernel)


@functools.cache
def _conv1x1(precision: Any, out_type: jnp.dtype) -> Op:
    plain = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=DIMENSION_NUMBERS,
        precision=precision,
    )
    product = functools.partial(product_conv1x1, precision=precision)
    of_plain, of_product = (
        Implementation(functools.partial(function, preferred_element_type=out_type), derivative_of(function))
        for function in (plain, product)
    )
    return by_platform(of_plain, cpu=of_product)


def product_conv1x1(x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    """A matrix product, which CPUs compute fast in loops and conditionals too; see :func:`nhwc_gradients`."""
    return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0], **options)


def plain_conv3x3(
    x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None, preferred_element_type: Any = None
) -> jax.Array:
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
        preferred_element_type=preferred_element_type,
    )


def nhwc_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, dilation: int, precision: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The derivative of :func:`plain_conv3x3`, as convolutions of ``NHWC`` maps and ``HWIO`` kernels.

    JAX's own derivative has its dimensions in another order. XLA's CPU compiler puts them in this one, but not in the
    bodies of loops and conditionals, where its fallback takes sixty times as long.
    """
    gradient = gradient.astype(x.dtype)
    of_x = plain_conv3x3(gradient, kernel[::-1, ::-1].swapaxes(2, 3), dilation=dilation, precision=precision)
    of_kernel = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (dilation, dilation),
        [(dilation, dilation)] * 2,
        dimension_numbers=DIMENSION_NUMBERS,
        precision=precision,
    )
    return of_x, of_kernel.transpose(1, 2, 0, 3)


def sub_grid_conv3x3(x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None) -> jax.Array:
    """An undilated convolution of each of the d×d interleaved sub-grids, which never mix (space-to-batch).

    Sizes that d does not divide are padded with zeros, which act as the convolution's own padding; the result is
    cropped.
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


def winograd_conv3x3(
    x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None, preferred_element_type: Any = None
) -> jax.Array:
    """Winograd's tiles of the sub-grids, at the highest precision, where a CPU is faster that way; plain elsewhere."""
    grids = _to_sub_grids(x, dilation)
    tile = _tile(grids, kernel.shape[3])
    if tile is None:
        return _plain(dilation, precision, preferred_element_type).forward(x, kernel)
    value = winograd.conv3x3(grids, kernel, tile).astype(preferred_element_type or x.dtype)
    return _from_sub_grids(value, dilation, x.shape)


def winograd_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, dilation: int, precision: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The derivative of :func:`winograd_conv3x3`; each gradient uses tiles where they are faster."""
    gradient = gradient.astype(x.dtype)
    # The compiler drops what is replaced below.
    of_x, of_kernel = nhwc_gradients(x, kernel, gradient, dilation=dilation, precision=precision)
    grids, of_grids = _to_sub_grids(x, dilation), _to_sub_grids(gradient, dilation)
    channels_in, channels_out = kernel.shape[2:]
    if (tile := _tile(of_grids, channels_in)) is not None:
        of_x = _from_sub_grids(winograd.input_gradient3x3(of_grids, kernel, tile), dilation, x.shape)
    if (tile := _tile(grids, channels_out, for_kernel_gradient=True)) is not None:
        of_kernel = winograd.kernel_gradient3x3(grids, of_grids, tile)
    return of_x, of_kernel


def _tile(grids: jax.Array, channels_out: int, **options: bool) -> int | None:
    # The transforms would lose digits of narrower types.
    return winograd.best_tile(grids.shape, channels_out, **options) if grids.dtype == jnp.float32 else None


def tap_product_conv3x3(
    x: jax.Array, kernel: jax.Array, *, dilation: int, precision: Any = None, preferred_element_type: Any = None
) -> jax.Array:
    """One matrix product computes all nine taps, which are then shifted and added in float32."""
    taps = kernel.reshape(9, *kernel.shape[2:])
    products = jnp.einsum("bhwi,tio->bhwto", x, taps, precision=precision, preferred_element_type=jnp.float32)
    shifted = [_shift(products[:, :, :, t], *offset) for t, offset in enumerate(_offsets(dilation))]
    return functools.reduce(jnp.add, shifted).astype(preferred_element_type or x.dtype)


def tap_product_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, dilation: int, precision: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The derivative of :func:`tap_product_conv3x3`: nine shifted copies of the gradient, then two matrix products.

    Written by hand so that the products have operands of the type of ``x``; JAX's own derivative would multiply in
    float32.
    """
    gradient = gradient.astype(x.dtype)
    copies = jnp.stack([_shift(gradient, -down, -right) for down, right in _offsets(dilation)], axis=3)
    taps = kernel.reshape(9, *kernel.shape[2:])
    of_x = jnp.einsum("bhwto,tio->bhwi", copies, taps, precision=precision)
    of_kernel = jnp.einsum("bhwi,bhwto->tio", x, copies, precision=precision)
    return of_x, of_kernel.reshape(kernel.shape)


def _offsets(dilation: int) -> list[tuple[int, int]]:
    """The offset (rows, columns) at which each tap reads, relative to its output."""
    return [(i * dilation, j * dilation) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def _shift(x: jax.Array, down: int, right: int) -> jax.Array:
    """``out[:, i, j] = x[:, i + down, j + right]``, zero where that lies outside the map."""

    def axis(length: int, by: int) -> tuple[slice, tuple[int, int]]:
        kept = slice(min(max(by, 0), length), max(length + min(by, 0), 0))
        return kept, (min(max(-by, 0), length), min(max(by, 0), length))

    (rows, rows_padding), (columns, columns_padding) = axis(x.shape[1], down), axis(x.shape[2], right)
    return jnp.pad(x[:, rows, columns], ((0, 0), rows_padding, columns_padding, (0, 0)))
