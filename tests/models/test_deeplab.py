import functools

import builders
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.models import DeepLab
from sean_jax.models.attention import Attention
from sean_jax.ops.pooling import average_pool_2x2, average_pool_3x3
from sean_jax.ops.resize import resize_bilinear


def _images(batch: int, height: int, width: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, height, width, 3)).astype(np.uint8))


def _thin(**settings) -> DeepLab:
    return builders.deeplab(5, **settings)


@functools.cache
def _params():
    """Parameters of all narrow networks here, since their settings do not change the shapes."""
    return _thin().init_params(jax.random.key(0))


def test_parameter_count_of_the_full_network():
    shapes = builders.deeplab(19, width_multiplier=1.0).abstract_params()
    vgg = 14_714_688  # VGG-16's thirteen convolutions
    fc = 9 * 512 * 1024 + 1024 + 9 * 1024 * 1024 + 1024
    heads = 1024 + 4 * (9 * 1024 * 19 + 19)
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(shapes)) == vgg + fc + heads


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_any_image_size_from_16x16(preset):
    network = _thin(**DeepLab.PRESETS.get(preset, {}))
    for size in ((16, 16), (17, 23), (64, 96), (37, 53), (16, 128)):
        logits, features, maps = jax.eval_shape(network.predict, _params(), _images(2, *size))
        expected = (2, size[0] // 2 // 2 // 2, size[1] // 2 // 2 // 2)
        assert (logits.shape, features.shape) == ((*expected, 5), (*expected, 32))
        assert maps["attention"].shape == expected
    logits, _, maps = jax.jit(network.predict)(_params(), _images(2, 17, 23))
    assert np.isfinite(logits).all()
    assert ((maps["attention"] > 0) & (maps["attention"] < 1)).all()


def _branch_gradients(count: int) -> dict[str, float]:
    network = _thin(classifier_branches=count)
    # Large enough for taps of dilation 24 to fall inside the 32×32 feature map.
    images = _images(1, 256, 256)
    gradients = jax.jit(jax.grad(lambda p: jnp.sum(network.predict(p, images).logits ** 2)))(_params())["head"][
        "classifier"
    ]
    return {name: float(jnp.abs(g["kernel"]).sum(-1).sum(-1).min()) for name, g in gradients.items()}


def test_every_tap_of_all_four_branches_gets_a_gradient():
    assert all(least > 0 for least in _branch_gradients(4).values())


def test_the_authors_code_uses_two_of_four_branches():
    reached = _branch_gradients(2)
    assert [reached[f"branch_{i}"] > 0 for i in range(4)] == [True, True, False, False]


def test_used_excludes_unused_branches():
    used = _thin(classifier_branches=2).used(_params())
    unused = [jax.tree_util.keystr(p) for p, u in jax.tree_util.tree_leaves_with_path(used) if not u]
    assert len(unused) == 4
    assert all("branch_2" in path or "branch_3" in path for path in unused)


@pytest.mark.parametrize(
    ("pooling", "pool", "upsampling"),
    [("average_2x2", average_pool_2x2, "bilinear"), ("average_3x3", average_pool_3x3, "bilinear_align_corners")],
)
def test_attention_equals_equation_1_in_its_literal_order(pooling, pool, upsampling):
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 14, 6)).astype(np.float32))
    highest = jax.lax.Precision.HIGHEST
    module = Attention(pooling, upsampling, "after_upsampling", nn.initializers.normal(1.0), jnp.float32, highest)
    params = jax.jit(module.init)(jax.random.key(0), features)
    kernel = params["params"]["conv"]["kernel"]

    @jax.jit
    def literal(features):
        up = resize_bilinear(pool(features), (9, 14), align_corners=upsampling == "bilinear_align_corners")
        return nn.sigmoid(jnp.einsum("bhwc,xyco->bhwo", up, kernel, precision=highest))

    np.testing.assert_allclose(jax.jit(module.apply)(params, features), literal(features), rtol=2e-5, atol=1e-6)


def test_attention_scales_features_by_one_plus_attention():
    """Equation 2: H is F for A near 0, and 2F for A near 1."""
    predict = jax.jit(_thin().predict)
    logits = {bias: predict(_with_attention(bias), _images(1, 32, 32)).logits for bias in (-1e4, 1e4)}
    np.testing.assert_allclose(2 * logits[-1e4], logits[1e4], rtol=1e-4, atol=1e-4)


def _with_attention(value: float):
    """Parameters with a constant attention kernel. Features are non-negative, so its sign makes A near 0 or near 1."""
    head = _params()["head"]
    kernel = jnp.full_like(head["attention"]["conv"]["kernel"], value)
    return _params() | {"head": head | {"attention": {"conv": {"kernel": kernel}}}}


def test_without_attention_the_classifier_reads_the_features():
    """The logits equal those for A near 0, and there is no attention map."""
    ablated = _thin(attention=False)
    assert "attention" not in ablated.abstract_params()["head"]
    head = {name: layers for name, layers in _params()["head"].items() if name != "attention"}
    logits, _, maps = jax.jit(ablated.predict)(_params() | {"head": head}, _images(1, 32, 32))
    none = jax.jit(_thin().predict)(_with_attention(-1e4), _images(1, 32, 32)).logits
    np.testing.assert_allclose(logits, none, rtol=1e-5, atol=1e-6)
    assert maps == {}


def test_predict_applies_trunk_and_head():
    network, images = _thin(), _images(1, 32, 32)
    whole = jax.jit(network.predict)(_params(), images)
    features = jax.jit(network.features)(_params(), images)
    assert features.shape == (1, 4, 4, 16)
    np.testing.assert_allclose(jax.jit(network.head)(_params(), features).logits, whole.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("convention", "width_multiplier"), [("rgb_normalized", 0.25), ("bgr_mean", 0.5)])
def test_initial_logits_from_scratch_have_unit_scale_and_attention_is_near_half(convention, width_multiplier):
    network = builders.deeplab(19, width_multiplier=width_multiplier, input_convention=convention)
    params = network.init_params(jax.random.key(3))
    noise = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3))
    street = jnp.asarray(noise.repeat(8, 1).repeat(8, 2).astype(np.uint8))
    logits, _, maps = jax.jit(network.predict)(params, street)
    assert 0.3 < float(logits.std()) < 3
    assert 0.2 < float(maps["attention"].mean()) < 0.8


def test_bfloat16_stays_close_to_float32():
    images = _images(1, 64, 64)
    exact = jax.jit(_thin(precision="float32").predict)(_params(), images).logits
    rounded = jax.jit(_thin(precision="bfloat16").predict)(_params(), images).logits
    assert rounded.dtype == jnp.float32
    assert float(jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact)) < 0.03
    assert float(jnp.abs(exact - rounded).max()) > 0  # the network did compute in bfloat16
