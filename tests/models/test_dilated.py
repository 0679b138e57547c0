"""Tests of the dilated VGG-16: sizes, upsampling, dropout and weight decay."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.models.dilated import STRIDE, Dilated
from sean_jax.ops.resize import resize_bilinear

CLASSES = 3


@functools.cache
def _network(width: float = 1 / 64) -> Dilated:
    return Dilated(settings=Dilated.Settings(width_multiplier=width), num_classes=CLASSES, precision="float32")


@functools.cache
def _params():
    return _network().init_params(jax.random.key(0))


@functools.cache
def _compiled():
    return jax.jit(_network().predict)


@pytest.mark.parametrize("size", [(16, 16), (33, 47)])
def test_images_of_any_size_give_logits_at_stride_one(size):
    images = jax.random.uniform(jax.random.key(1), (2, *size, 3), maxval=255.0)
    found = _compiled()(_params(), images)
    rows, columns = size[0] // STRIDE, size[1] // STRIDE
    assert found.features.shape == (2, rows, columns, 64)
    assert found.logits.shape == (2, STRIDE * rows, STRIDE * columns, CLASSES)
    assert found.maps == {}


def test_the_initial_upsampling_is_bilinear_by_class():
    params, head = _params()["head"], _network().head_module()
    features = 1000 * jax.random.normal(jax.random.key(2), (1, 5, 6, 8))
    found: Any = jax.jit(head.apply)({"params": params}, features)
    score = found.features @ params["score"]["kernel"][0, 0] + params["score"]["bias"].reshape(1, 1, 1, -1)
    expected = resize_bilinear(score, (40, 48))
    inside = np.s_[:, 4:-4, 4:-4]  # a transposed convolution sees zeros beyond the border
    np.testing.assert_allclose(found.logits[inside], expected[inside], rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(expected)).max() > 1


def test_a_kernel_is_laid_down_around_its_position_and_mixes_classes():
    """The meaning of PyTorch's and TensorFlow's transposed convolution; a flipped kernel would be upside down."""
    params = jax.tree.map(jnp.zeros_like, _params()["head"])
    kernel = jax.random.normal(jax.random.key(3), (16, 16, CLASSES, CLASSES))  # [height, width, out, in]
    center = params["fc6"]["kernel"].at[3, 3, 0, 0].set(1)
    params["fc6"]["kernel"], params["fc7"]["kernel"] = center, params["fc7"]["kernel"].at[0, 0, 0, 0].set(1)
    params["score"]["kernel"] = params["score"]["kernel"].at[0, 0, 0, 1].set(1)
    params["upsample"]["kernel"] = kernel
    features = jnp.zeros((1, 5, 5, 8)).at[0, 2, 2, 0].set(1)
    logits = jax.jit(_network().head)({"head": params}, features).logits
    np.testing.assert_allclose(logits[0, 12:28, 12:28], kernel[..., 1], rtol=1e-6)
    assert float(jnp.abs(logits).sum()) == pytest.approx(float(jnp.abs(kernel[..., 1]).sum()), rel=1e-5)


def test_dropout_follows_the_keys_of_the_examples():
    features = jnp.ones((2, 3, 3, 8))
    predict = jax.jit(_network().head)
    one, other = (jax.random.split(jax.random.key(seed), 2) for seed in (0, 1))
    found = predict(_params(), features, one).features
    np.testing.assert_array_equal(found, predict(_params(), features, one).features)
    assert not np.array_equal(found, predict(_params(), features, other).features)
    assert not np.array_equal(found[0], found[1])
    whole = predict(_params(), features).features
    np.testing.assert_array_equal(whole[0], whole[1])
    assert 0.3 < float(jnp.mean((found == 0)[jnp.broadcast_to(whole > 0, found.shape)])) < 0.7


def test_the_full_network_has_the_layers_of_vgg16():
    network = _network(1.0)
    params = network.abstract_params()
    assert params["head"]["fc6"]["kernel"].shape == (7, 7, 512, 4096)
    assert params["head"]["fc7"]["kernel"].shape == (1, 1, 4096, 4096)
    # VGG-16 has 138,357,544 parameters, of which 4,097,000 belong to the classifier of ImageNet.
    count = sum(x.size for x in jax.tree.leaves(params))
    assert count == 138_357_544 - 4_097_000 + 4097 * CLASSES + 256 * CLASSES**2


def test_weight_decay_spares_biases_and_the_1x1_layers():
    decayed = _network().decayed(_params())
    names = {"/".join(k.key for k in path) for path, x in jax.tree_util.tree_leaves_with_path(decayed) if not x}
    biases = {f"trunk/{name}/bias" for name in _params()["trunk"]} | {f"head/{x}/bias" for x in ("fc6", "fc7", "score")}
    assert names == biases | {"head/fc7/kernel", "head/score/kernel"}
