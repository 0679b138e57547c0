"""Every formulation against ``lax.conv_general_dilated``: values, both gradients, and which one runs where."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sean_jax.errors import UserError
from sean_jax.ops import convolution, winograd
from sean_jax.ops import implementation as formulation

# (batch, height, width, channels in, channels out): odd sizes, maps smaller than the dilation, single cells.
SHAPES = [(1, 8, 16, 6, 5), (2, 9, 13, 3, 7), (3, 5, 4, 40, 4), (1, 1, 3, 19, 2), (2, 7, 31, 64, 3)]
DILATIONS = [2, 4, 6, 12, 18, 24]


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
    monkeypatch.setenv(formulation.VARIABLE, chosen)
    arrays = _arrays(shape)
    found = _all_three(lambda x, kernel: convolution.conv3x3(x, kernel, dilation, lax.Precision.HIGHEST), *arrays)
    assert [a.shape for a in found] == [arrays[2].shape, arrays[0].shape, arrays[1].shape]
    assert max(_relative_errors(found, _all_three(_definition(dilation), *arrays))) < 2e-6


@pytest.mark.parametrize("name", ["sub_grid_conv3x3", "tap_product_conv3x3"])
@pytest.mark.parametrize("dilation", [2, 6, 24])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_formulation_holds_at_any_shape(name, shape, dilation):
    arrays, operation = _arrays(shape), getattr(convolution, name)
    found = _all_three(lambda x, k: operation(x, k, dilation=dilation, precision=lax.Precision.HIGHEST), *arrays)
    assert max(_relative_errors(found, _all_three(_definition(dilation), *arrays))) < 2e-6


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("dilation", [1, 2, 6])
@pytest.mark.parametrize("shape", SHAPES)
def test_winograd_holds_at_any_shape(monkeypatch, tile, dilation, shape):
    monkeypatch.setattr(winograd, "best_tile", lambda *_, **__: tile)
    x, kernel, gradient = _arrays(shape)
    found = jax.jit(
        lambda: (
            convolution.winograd_conv3x3(x, kernel, dilation=dilation),
            *convolution.winograd_gradients(x, kernel, gradient, dilation=dilation),
        )
    )()
    assert [a.shape for a in found] == [gradient.shape, x.shape, kernel.shape]
    expected = _all_three(_definition(dilation), x, kernel, gradient)
    assert max(_relative_errors(found, expected)) < {2: 2e-6, 4: 8e-6}[tile]


@pytest.mark.parametrize(("tile", "bound"), [(2, 7e-7), (4, 2e-6)])
def test_winograd_rounds_as_little_as_it_says(tile, bound):
    """With many channels, where rounding errors add up; against the same sums in float64."""
    x, kernel, _ = _arrays((1, 12, 16, 256, 8))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    exact = np.einsum("bhwikl,klio->bhwo", windows, np.float64(kernel))
    assert _relative_errors([winograd.conv3x3(x, kernel, tile)], [exact])[0] < bound


@pytest.mark.parametrize("dilation", [2, 6])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_bfloat16_stays_bfloat16_and_close(monkeypatch, shape, dilation):
    monkeypatch.setenv(formulation.VARIABLE, "gpu")
    arrays = _arrays(shape, jnp.bfloat16)
    found = _all_three(lambda x, kernel: convolution.conv3x3(x, kernel, dilation), *arrays)
    assert {a.dtype for a in found} == {jnp.dtype(jnp.bfloat16)}
    exact = _all_three(_definition(dilation), *(a.astype(jnp.float32) for a in arrays))
    assert max(_relative_errors(found, exact)) < 6e-3  # a rounding is 2⁻⁹ = 2e-3


@pytest.mark.parametrize(("features", "formula"), [(4, "tap products"), (32, "sub-grids")])
def test_flax_layers_go_through_it(monkeypatch, features, formula):
    """nn.Conv with bias, precision and type: the same value and gradients by every formulation."""
    x = _arrays((2, 7, 9, 48, features))[0]

    def layer(conv):
        return nn.Conv(features, (3, 3), padding=6, kernel_dilation=6, conv_general_dilated=conv)

    params = layer(lax.conv_general_dilated).init(jax.random.key(0), x)

    def gradients(conv):
        return jax.grad(lambda p, x: jnp.sum(layer(conv).apply(p, x) ** 2), (0, 1))(params, x)

    expected = jax.tree.leaves(gradients(lax.conv_general_dilated))
    monkeypatch.setenv(formulation.VARIABLE, "gpu")
    found = jax.tree.leaves(gradients(convolution.conv_general_dilated))
    assert max(_relative_errors(found, expected)) < 2e-6, formula


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_dilation": 2, "padding": 0},
        {"kernel_dilation": 2, "padding": 2, "strides": 2},
        {"kernel_dilation": (2, 3), "padding": (2, 3)},
        {"kernel_dilation": 2, "padding": 2, "feature_group_count": 2},
    ],
)
def test_every_other_convolution_is_left_to_xla(monkeypatch, settings):
    monkeypatch.setenv(formulation.VARIABLE, "gpu")
    x = _arrays((1, 9, 8, 4, 4))[0]
    values = []
    for conv in (lax.conv_general_dilated, convolution.conv_general_dilated):
        layer = nn.Conv(4, (3, 3), conv_general_dilated=conv, **settings)
        values.append(layer.apply(layer.init(jax.random.key(0), x), x))
    np.testing.assert_array_equal(*values)


def _lowered(platform: str, shape, dilation=6, dtype=jnp.float32) -> tuple[int, int]:
    """Convolutions, and the dilated ones of them, of the value and both gradients as sent to the compiler."""
    batch, height, width, channels_in, channels_out = shape
    sizes = (batch, height, width, channels_in), (3, 3, channels_in, channels_out), (batch, height, width, channels_out)

    def both(x, kernel, gradient):
        value, pull_back = jax.vjp(lambda x, k: convolution.conv3x3(x, k, dilation), x, kernel)
        return value, *pull_back(gradient)

    traced = jax.jit(both).trace(*(jax.ShapeDtypeStruct(size, dtype) for size in sizes))
    text = traced.lower(lowering_platforms=(platform,)).compiler_ir().operation.get_asm()
    # A dilated convolution's derivative by its kernel is written as a strided one.
    dilated = re.findall(rf"(?:dilate|stride) = \[{dilation}, {dilation}\]", text)
    return text.count("stablehlo.convolution"), len(dilated)


def test_the_platform_chooses_when_the_program_is_lowered(monkeypatch):
    """Without a GPU at hand: programs can be lowered for one all the same."""
    monkeypatch.delenv(formulation.VARIABLE, raising=False)
    layer, classifier = (1, 12, 12, 8, 8), (1, 12, 12, 64, 3)
    assert _lowered("cpu", layer) == _lowered("cpu", classifier) == _lowered("tpu", layer) == (3, 3)
    assert _lowered("cuda", layer)[1] == 1  # the forward pass alone
    assert _lowered("cuda", classifier) == (0, 0)
    monkeypatch.setenv(formulation.VARIABLE, "plain")
    assert _lowered("cuda", classifier) == (3, 3)


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_cpu_computes_wide_layers_in_float32_by_winograds_tiles(monkeypatch, dilation):
    monkeypatch.delenv(formulation.VARIABLE, raising=False)
    wide = (2, 32, 64, 256, 256)
    used = functools.partial(_lowered, dilation=dilation)
    assert used("cpu", wide)[0] == 0
    assert used("cpu", wide, dtype=jnp.bfloat16)[0] == 3
    assert used("tpu", wide)[0] == 3


def test_tiles_are_used_where_they_pay():
    tile = winograd.best_tile
    assert tile((2, 32, 64, 256), 256) == 4
    assert tile((1, 16, 32, 1024), 1024) == 2  # few tiles: the transformed kernel is most of what is moved
    assert tile((2, 16, 32, 64), 64) is None  # thin networks: not worth compiling
    assert tile((2, 96, 192, 16), 16) is None
    assert tile((2, 96, 192, 16), 16, for_kernel_gradient=True) == 4  # where XLA is slow
    assert tile((64, 1, 64, 1024), 1024) is None  # two rows of taps meet nothing


def test_no_choice_is_left_in_the_compiled_program():
    x, kernel, _ = _arrays((1, 12, 12, 64, 3))
    gradient = jax.grad(lambda x, kernel: convolution.conv3x3(x, kernel, 6).sum(), (0, 1))
    assert "conditional" not in jax.jit(gradient).lower(x, kernel).compile().as_text()


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv(formulation.VARIABLE, "fast")
    with pytest.raises(UserError, match="SEAN_JAX_FORMULATION=fast; expected one of auto, plain, cpu, gpu"):
        convolution.conv3x3(*_arrays(SHAPES[0])[:2], 2)
