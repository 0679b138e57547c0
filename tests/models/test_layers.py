"""Tests of Conv3x3, ReLU and dropout, and of the dtypes of logits and attention under bfloat16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import initializers

from sean_jax.models.aspp import ASPP
from sean_jax.models.attention import Attention
from sean_jax.models.initializers import make_initializers
from sean_jax.models.layers import Conv3x3, dropout, relu
from sean_jax.ops import implementation

DEFAULT = jax.lax.Precision.DEFAULT


@pytest.mark.parametrize("chosen", ["plain", "gpu"])
@pytest.mark.parametrize("features", [4, 32])  # on a GPU they select different implementations
@pytest.mark.parametrize("use_bias", [True, False])
def test_conv3x3_equals_nn_conv(monkeypatch, chosen, features, use_bias):
    """Initial parameters, outputs and gradients are equal."""
    monkeypatch.setenv(implementation.VARIABLE, chosen)
    x = jax.random.normal(jax.random.key(1), (2, 7, 9, 48))
    common = {"use_bias": use_bias, "bias_init": initializers.normal(1.0)}
    ours = Conv3x3(features, dilation=6, **common)
    flax = nn.Conv(features, (3, 3), padding=6, kernel_dilation=6, **common)
    params = jax.jit(flax.init)(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(ours.init)(jax.random.key(0), x), params)

    def value_and_gradients(layer):
        return jax.jit(jax.value_and_grad(lambda p, x: jnp.sum(layer.apply(p, x) ** 2), (0, 1)))(params, x)

    found, expected = value_and_gradients(ours), value_and_gradients(flax)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), found, expected)


def test_conv3x3_computes_in_its_dtype():
    x = jnp.ones((1, 4, 4, 3), jnp.float32)
    layer = Conv3x3(2, dtype=jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert layer.apply(params, x).dtype == jnp.bfloat16


def _features(channels: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (1, 8, 9, channels)).astype(jnp.bfloat16)


def _representable(x: jax.Array) -> float:
    """Share of values that bfloat16 can represent."""
    return float(jnp.mean(x == x.astype(jnp.bfloat16).astype(jnp.float32)))


@pytest.mark.parametrize("chosen", ["plain", "gpu"])
def test_logits_under_bfloat16_are_float32_sums(monkeypatch, chosen):
    monkeypatch.setenv(implementation.VARIABLE, chosen)
    features = _features(64)
    init = make_initializers("pretrained", channels=64, branches=4, input_rms=1.0)
    params = jax.jit(ASPP(3, 4, init, jnp.float32, DEFAULT).init)(jax.random.key(0), features)

    def rounded(path, x):  # rounds the inputs of products; biases stay float32
        return x.astype(jnp.bfloat16).astype(jnp.float32) if path[-1].key == "kernel" else x

    logits = jax.jit(ASPP(3, 4, init, jnp.bfloat16, DEFAULT).apply)(params, features)
    exact = jax.jit(ASPP(3, 4, init, jnp.float32, DEFAULT).apply)(
        jax.tree_util.tree_map_with_path(rounded, params), features.astype(jnp.float32)
    )
    assert logits.dtype == jnp.float32
    assert _representable(logits) < 0.1
    np.testing.assert_allclose(logits, exact, atol=1e-6)  # bfloat16 logits are off by up to 2e-3


def test_attention_under_bfloat16_is_float32():
    features = _features(64)

    def make(dtype):
        return Attention("average_2x2", "bilinear", "after_upsampling", initializers.normal(0.1), dtype, DEFAULT)

    params = make(jnp.float32).init(jax.random.key(0), features)
    kernel = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    attention = make(jnp.bfloat16).apply(params, features)
    exact = make(jnp.float32).apply(kernel, features.astype(jnp.float32))
    assert attention.dtype == jnp.float32
    np.testing.assert_allclose(attention, exact, atol=1e-6)


@pytest.mark.parametrize("whole_channels", [False, True])
def test_dropout_keeps_the_mean_and_depends_on_the_example_alone(whole_channels):
    x, keys = jnp.ones((3, 20, 20, 200)), jax.random.split(jax.random.key(0), 3)
    dropped = dropout(x, 0.25, keys, whole_channels=whole_channels)
    assert set(np.unique(dropped).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert abs(float(dropped.mean()) - 1) < (0.05 if whole_channels else 0.005)
    by_channel = (dropped == dropped[:, :1, :1]).all((1, 2))
    assert bool(by_channel.all()) == whole_channels
    np.testing.assert_array_equal(dropout(x[1:2], 0.25, keys[1:2], whole_channels=whole_channels)[0], dropped[1])
    assert not np.array_equal(dropped[0], dropped[1])
    assert not np.array_equal(dropout(x, 0.25, keys, 1, whole_channels=whole_channels), dropped)
    np.testing.assert_array_equal(dropout(x, 0.25, None), x)


def test_relu_is_jaxs_in_value_and_gradient():
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf])
    for function in (lambda x, relu: relu(x), lambda x, relu: jax.grad(lambda x: relu(x).sum())(x)):
        np.testing.assert_array_equal(function(x, relu), function(x, jax.nn.relu))
