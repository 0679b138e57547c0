"""Tests of FCN-8s: its geometry, its two forms, and dropout of whole channels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.models.fcn8s import FCN8s, Pools, upsample_bilinear
from sean_jax.weights import from_params

CLASSES = 3
MCD = {"upsampling": "learned", "pool4_scale": 1.0, "pool3_scale": 1.0, "zero_skips": False}


def _network(precision: str = "float32", **settings) -> FCN8s:
    own = FCN8s.Settings(**{"width_multiplier": 1 / 64} | settings)
    return FCN8s(settings=own, num_classes=CLASSES, precision=precision)


@functools.cache
def _params(**settings):
    return jax.tree.map(np.asarray, _network(**settings).init_params(jax.random.key(0)))


def _zeros(network: FCN8s, size: tuple[int, int]) -> Pools:
    """The trunk's output for an image of that size, all zeros."""
    images = jax.ShapeDtypeStruct((1, *size, 3), np.uint8)
    shapes = jax.eval_shape(network.features, network.abstract_params(), images)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parametrize("form", [{}, MCD])
def test_logits_have_the_size_of_any_image_from_16x16(form):
    network = _network(**form)
    for size in ((16, 16), (17, 23), (31, 64), (37, 253), (96, 192), (513, 1025)):
        images = jax.ShapeDtypeStruct((2, *size, 3), np.uint8)
        found = jax.eval_shape(network.predict, network.abstract_params(), images)
        assert found.logits.shape == (2, *size, CLASSES)
        assert found.maps == {}


def test_parameter_count_of_the_full_network():
    network = FCN8s(settings=FCN8s.Settings(upsampling="learned"), num_classes=20)
    vgg = 14_714_688  # VGG-16's thirteen convolutions
    fc = 49 * 512 * 4096 + 4096 + 4096 * 4096 + 4096
    scores = 20 * (4096 + 512 + 256 + 3)
    upsampling = 400 * (16 + 16 + 256)
    found = sum(np.prod(x.shape) for x in jax.tree.leaves(network.abstract_params()))
    assert found == vgg + fc + scores + upsampling


@pytest.mark.parametrize(("name", "stride"), [("pool3", 8), ("pool4", 16), ("pool5", 32)])
def test_every_map_reaches_the_pixels_that_it_was_computed_from(name, stride):
    """Cell i of a map covers the pixels from stride·i − 99 on; its score is centred on them in the output."""
    network, size = _network(pool3_scale=1.0, pool4_scale=1.0), (125, 131)
    head = jax.tree.map(np.zeros_like, _params()["head"])
    for layer in ("fc7", "score_fr", "score_pool3", "score_pool4"):
        head[layer]["kernel"][0, 0, 0, 0] = 1.0
    head["fc6"]["kernel"][3, 3, 0, 0] = 1.0  # the centre
    pools = _zeros(network, size)
    row, column = -(-(99 + stride) // stride), -(-(99 + 8) // stride)  # so that the whole score lies in the image
    getattr(pools, name)[0, row, column, 0] = 1.0
    logits = np.asarray(jax.jit(network.head)({"head": head}, pools).logits)[0, ..., 0]
    rows, columns = np.indices(size)
    centre = (logits * rows).sum() / logits.sum(), (logits * columns).sum() / logits.sum()
    expected = [stride * i - 99 + (stride - 1) / 2 for i in (row, column)]
    np.testing.assert_allclose(centre, expected, rtol=1e-4)


def _transposed(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """PyTorch's ``conv_transpose2d`` of one image ``[h, w, in]`` with ``weight`` ``[in, out, size, size]``."""
    size, (height, width) = weight.shape[2], x.shape[:2]
    out = np.zeros(((height - 1) * stride + size, (width - 1) * stride + size, weight.shape[1]))
    for i, j in np.ndindex(height, width):
        tile = np.einsum("a,aoyx->yxo", x[i, j], weight)
        out[i * stride : i * stride + size, j * stride : j * stride + size] += tile
    return out


def test_learned_upsampling_is_pytorchs_transposed_convolution():
    network = _network(**MCD)
    head = jax.tree.map(np.copy, _params(**MCD)["head"])
    for layer in ("score_pool3", "score_pool4"):
        head[layer] = jax.tree.map(np.zeros_like, head[layer])
    pools = _zeros(network, (20, 41))
    pools.pool5[:] = np.random.default_rng(0).uniform(0, 1, pools.pool5.shape)
    prediction = jax.jit(network.head)({"head": head}, pools)
    weights = from_params({"head": head}, FCN8s.TORCH_MODULES)
    score = np.asarray(prediction.features)[0] @ head["score_fr"]["kernel"][0, 0] + head["score_fr"]["bias"]
    x = _transposed(score, weights["upscore2.weight"], 2)
    x = _transposed(x, weights["upscore_pool4.weight"], 2)
    x = _transposed(x, weights["upscore8.weight"], 8)
    np.testing.assert_allclose(prediction.logits[0], x[31:51, 31:72], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 8])
def test_bilinear_upsampling_is_fcns_transposed_convolution(factor):
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    taps = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
    weight = np.eye(2)[:, :, None, None] * np.outer(taps, taps)
    expected = _transposed(x, weight, factor)
    np.testing.assert_allclose(upsample_bilinear(jnp.asarray(x[None]), factor)[0], expected, rtol=1e-5, atol=1e-6)


def test_the_default_starts_without_skips_and_scales_their_gradients():
    def gradients(**settings):
        network = _network(**settings)
        pools = jax.tree.map(lambda x: x + np.float32(1), _zeros(network, (16, 16)))
        head = _params()["head"]
        other = pools.replace(pool3=2 * pools.pool3, pool4=-pools.pool4)
        predict = jax.jit(lambda head, pools: network.head({"head": head}, pools).logits)
        # At the start, pool3 and pool4 make no difference.
        np.testing.assert_array_equal(*(predict(head, x) for x in (pools, other)))
        found = jax.jit(jax.grad(lambda head: predict(head, pools).sum()))(head)
        return {name: np.asarray(found[f"score_{name}"]["kernel"]) for name in ("pool3", "pool4")}

    scaled, plain = gradients(), gradients(pool3_scale=1.0, pool4_scale=1.0)
    for name, scale in (("pool3", 0.0001), ("pool4", 0.01)):
        assert np.abs(plain[name]).min() > 0
        np.testing.assert_allclose(scaled[name], scale * plain[name], rtol=1e-4)


def test_dropout_drops_whole_channels_of_each_example():
    network = _network(dropout_rate=0.25, width_multiplier=1 / 16)
    params = network.abstract_params()["head"]
    head = jax.tree.map(lambda x: np.full(x.shape, 0.1, np.float32), params)
    pools = jax.tree.map(lambda x: np.ones((2, *x.shape[1:]), np.float32), _zeros(network, (64, 64)))
    keys, predict = jax.random.split(jax.random.key(0), 2), jax.jit(network.head)
    features = np.asarray(predict({"head": head}, pools, keys).features)
    kept = (features != 0).reshape(2, -1, features.shape[-1])
    assert kept.shape[1] > 1
    assert (kept.any(1) == kept.all(1)).all()
    assert 0.65 < kept.mean() < 0.85
    assert (kept[0] != kept[1]).any()
    assert (np.asarray(predict({"head": head}, pools).features) > 0).all()


def test_bfloat16_stays_close_to_float32():
    images = np.random.default_rng(0).integers(0, 256, (1, 17, 33, 3)).astype(np.uint8)
    exact, rounded = (
        jax.jit(_network(precision, **MCD).predict)(_params(**MCD), images) for precision in ("float32", "bfloat16")
    )
    assert rounded.logits.dtype == jnp.float32
    assert rounded.features.dtype == jnp.bfloat16
    error = jnp.linalg.norm(exact.logits - rounded.logits) / jnp.linalg.norm(exact.logits)
    assert 0 < float(error) < 0.03
