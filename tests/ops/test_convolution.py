"""Every implementation against ``lax.conv_general_dilated``: values, both gradients, and which one runs where."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sean_jax.errors import UserError
from sean_jax.ops import convolution, implementation, winograd

# (batch, height, width, channels in, channels out): odd sizes, maps smaller than the dilation, single cells.
SHAPES = [(1, 8, 16, 6, 5), (2, 9, 13, 3, 7), (3, 5, 4, 40, 4), (1, 1, 3, 19, 2), (2, 7, 31, 64, 3)]
DILATIONS = [2, 6, 24]


def _arrays(shape, dtype=jnp.float32):
    batch, height, width, channels_in, channels_out = shape
    rng = np.random.default_rng(0)
    x, kernel, gradient = (
        rng.normal(size=size).astype(np.float32)
        for size in (
            (batch, height, width, channels_in),
            (3, 3, channels_in, channels_out),
            (batch, height, width, channels_out),
        )
    )
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), jnp.asarray(gradient, dtype)


def _all_three(operation, x, kernel, gradient):
    """Value, gradient of the input, gradient of the kernel."""

    def run(x, kernel, gradient):
        value, pull_back = jax.vjp(operation, x, kernel)
        return value, *pull_back(gradient)

    return jax.jit(run)(x, kernel, gradient)


def _definition(dilation, precision=lax.Precision.HIGHEST):
    return lambda x, kernel: lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(dilation, dilation)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=convolution.DIMENSION_NUMBERS,
        precision=precision,
    )


@functools.cache
def _expected(shape, dilation):
    return _all_three(_definition(dilation), *_arrays(shape))


def _relative_errors(found, expected):
    pairs = [(np.float64(a), np.float64(b)) for a, b in zip(found, expected, strict=True)]
    # Gradients of taps that never meet the map are zero on both sides.
    return [np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30) for a, b in pairs]


@pytest.mark.parametrize(
    ("chosen", "shape", "dilation"),
    [("gpu", shape, dilation) for shape in SHAPES for dilation in DILATIONS]
    + [(chosen, shape, dilation) for chosen in ("plain", "auto") for shape in SHAPES[1:3] for dilation in (1, 4)],
)
def test_values_and_gradients_are_those_of_the_definition(monkeypatch, chosen, shape, dilation):
    monkeypatch.setenv(implementation.VARIABLE, chosen)
    arrays = _arrays(shape)
    found = _all_three(lambda x, kernel: convolution.conv3x3(x, kernel, dilation, lax.Precision.HIGHEST), *arrays)
    assert [a.shape for a in found] == [arrays[2].shape, arrays[0].shape, arrays[1].shape]
    assert max(_relative_errors(found, _expected(shape, dilation))) < 2e-6


@pytest.mark.parametrize("name", ["sub_grid_conv3x3", "tap_product_conv3x3"])
@pytest.mark.parametrize("dilation", DILATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_implementation_is_correct_at_any_shape(name, shape, dilation):
    arrays, operation = _arrays(shape), getattr(convolution, name)
    found = _all_three(lambda x, k: operation(x, k, dilation=dilation, precision=lax.Precision.HIGHEST), *arrays)
    assert max(_relative_errors(found, _expected(shape, dilation))) < 2e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dilation", [1, *DILATIONS])
def test_gradients_as_nhwc_convolutions_are_correct_at_any_shape(shape, dilation):
    options = {"dilation": dilation, "precision": lax.Precision.HIGHEST}
    found = jax.jit(functools.partial(convolution.nhwc_gradients, **options))(*_arrays(shape))
    assert max(_relative_errors(found, _expected(shape, dilation)[1:])) < 2e-6


@pytest.mark.parametrize(("channels_out", "dilation"), [(5, 1), (70, 2), (5, 6)])
def test_convolutions_in_conditionals_have_the_order_that_cpus_are_fast_in(channels_out, dilation):
    """XLA reorders dimensions in the outermost computation only; its CPU fallback for others is very slow."""
    arrays = _arrays((1, 8, 16, 64, channels_out))

    def gradients(x, kernel, gradient):
        return jax.vjp(lambda x, kernel: convolution.conv3x3(x, kernel, dilation), x, kernel)[1](gradient)

    conditional = jax.jit(lambda p, *args: lax.cond(p, gradients, lambda x, kernel, _: (x, kernel), *args))
    program = conditional.lower(True, *arrays).compile().as_text()
    assert set(re.findall(r"dim_labels=(\S+?),? ", program)) == {"b01f_01io->b01f"}


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("dilation", [1, 6])
@pytest.mark.parametrize("shape", SHAPES)
def test_winograd_is_correct_at_any_shape(monkeypatch, tile, dilation, shape):
    monkeypatch.setattr(winograd, "best_tile", lambda *_, **__: tile)
    x, kernel, gradient = _arrays(shape)
    found = jax.jit(
        lambda: (
            convolution.winograd_conv3x3(x, kernel, dilation=dilation),
            *convolution.winograd_gradients(x, kernel, gradient, dilation=dilation),
        )
    )()
    assert [a.shape for a in found] == [gradient.shape, x.shape, kernel.shape]
    assert max(_relative_errors(found, _expected(shape, dilation))) < {2: 2e-6, 4: 8e-6}[tile]


@pytest.mark.parametrize(("tile", "bound"), [(2, 7e-7), (4, 2e-6)])
def test_winograds_rounding_errors_are_as_small_as_documented(tile, bound):
    """With many channels, so that rounding errors add up, against the same sums in float64."""
    x, kernel, _ = _arrays((1, 12, 16, 256, 8))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    exact = np.einsum("bhwikl,klio->bhwo", windows, np.float64(kernel))
    assert _relative_errors([winograd.conv3x3(x, kernel, tile)], [exact])[0] < bound


@pytest.mark.parametrize("dilation", [2, 6])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_bfloat16_stays_bfloat16_and_close(monkeypatch, shape, dilation):
    monkeypatch.setenv(implementation.VARIABLE, "gpu")
    arrays = _arrays(shape, jnp.bfloat16)
    found = _all_three(lambda x, kernel: convolution.conv3x3(x, kernel, dilation), *arrays)
    assert {a.dtype for a in found} == {jnp.dtype(jnp.bfloat16)}
    exact = _all_three(_definition(dilation), *(a.astype(jnp.float32) for a in arrays))
    assert max(_relative_errors(found, exact)) < 6e-3  # a rounding is 2⁻⁹ = 2e-3


@pytest.mark.parametrize("chosen", ["plain", "cpu", "gpu"])
@pytest.mark.parametrize("shape", [(2, 9, 13, 96, 7), (2, 9, 13, 8, 7)], ids=["classifier", "layer"])
@pytest.mark.parametrize("dilation", [1, 6])
def test_bfloat16_with_float32_output_keeps_the_digits(monkeypatch, chosen, shape, dilation):
    monkeypatch.setenv(implementation.VARIABLE, chosen)
    x, kernel, _ = _arrays(shape, jnp.bfloat16)
    gradient = _arrays(shape)[2]

    def operation(x, kernel):
        return convolution.conv3x3(x, kernel, dilation, preferred_element_type=jnp.float32)

    value, *gradients = _all_three(operation, x, kernel, gradient)
    assert (value.dtype, {a.dtype for a in gradients}) == (jnp.float32, {jnp.dtype(jnp.bfloat16)})
    exact = _all_three(_definition(dilation), x.astype(jnp.float32), kernel.astype(jnp.float32), gradient)
    assert _relative_errors([value], exact[:1])[0] < 2e-6
    assert max(_relative_errors(gradients, exact[1:])) < 6e-3


def _lowered(platform: str, shape, dilation=6, dtype=jnp.float32) -> tuple[int, int]:
    """The number of convolutions, and of dilated ones, in the value and both gradients as sent to the compiler."""
    batch, height, width, channels_in, channels_out = shape
    sizes = (batch, height, width, channels_in), (3, 3, channels_in, channels_out), (batch, height, width, channels_out)

    def both(x, kernel, gradient):
        value, pull_back = jax.vjp(lambda x, k: convolution.conv3x3(x, k, dilation), x, kernel)
        return value, *pull_back(gradient)

    traced = jax.jit(both).trace(*(jax.ShapeDtypeStruct(size, dtype) for size in sizes))
    text = traced.lower(lowering_platforms=(platform,)).compiler_ir().operation.get_asm()
    # The kernel gradient of a dilated convolution is a strided convolution.
    dilated = re.findall(rf"(?:dilate|stride) = \[{dilation}, {dilation}\]", text)
    return text.count("stablehlo.convolution"), len(dilated)


def test_the_implementation_is_chosen_when_the_program_is_lowered(monkeypatch):
    """This needs no GPU, since programs can be lowered for one without it."""
    monkeypatch.delenv(implementation.VARIABLE, raising=False)
    layer, classifier = (1, 12, 12, 8, 8), (1, 12, 12, 64, 3)
    assert _lowered("cpu", layer) == _lowered("cpu", classifier) == _lowered("tpu", layer) == (3, 3)
    assert _lowered("cuda", layer)[1] == 1  # the forward pass alone
    assert _lowered("cuda", classifier) == (0, 0)
    monkeypatch.setenv(implementation.VARIABLE, "plain")
    assert _lowered("cuda", classifier) == (3, 3)


@pytest.mark.parametrize("dilation", [1, 2])
def test_on_a_cpu_wide_float32_layers_use_winograds_tiles(monkeypatch, dilation):
    monkeypatch.delenv(implementation.VARIABLE, raising=False)
    wide = (2, 32, 64, 256, 256)
    used = functools.partial(_lowered, dilation=dilation)
    assert used("cpu", wide)[0] == 0
    assert used("cpu", wide, dtype=jnp.bfloat16)[0] == 3
    assert used("tpu", wide)[0] == 3


def test_tiles_are_used_where_they_are_faster():
    tile = winograd.best_tile
    assert tile((2, 32, 64, 256), 256) == 4
    assert tile((32, 4, 8, 1024), 1024) == 2  # few tiles: most of the numbers moved are the transformed kernel's
    assert tile((2, 128, 256, 64), 64) is None  # few channels: transforming takes longer than it saves
    assert tile((2, 128, 256, 64), 64, for_kernel_gradient=True) == 4  # where XLA is slow
    assert tile((2, 16, 32, 64), 64, for_kernel_gradient=True) is None  # narrow networks: not worth compiling
    assert tile((64, 1, 64, 1024), 1024) is None  # a map of one row, which two rows of taps never meet


def test_the_compiled_program_contains_no_choice():
    x, kernel, _ = _arrays((1, 12, 12, 64, 3))
    gradient = jax.grad(lambda x, kernel: convolution.conv3x3(x, kernel, 6).sum(), (0, 1))
    assert "conditional" not in jax.jit(gradient).lower(x, kernel).compile().as_text()


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv(implementation.VARIABLE, "fast")
    with pytest.raises(UserError, match="SEAN_JAX_IMPLEMENTATION=fast; expected one of auto, plain, cpu, gpu"):
        convolution.conv3x3(*_arrays(SHAPES[0])[:2], 2)
