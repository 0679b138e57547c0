"""Tests the errors of lower precision: losses and gradients of one step compared with float32."""

import functools

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from sean_jax.methods.sean import Views
from sean_jax.training.augmentation import SourceView

pytestmark = pytest.mark.xdist_group("precision")  # the tests share compiled programs

CLASSES = 4


@functools.cache
def _step(precision: str):
    """Losses and the student's gradients on a fixed batch; the mask is all ones, so no threshold can flip."""
    settings = {"precision": precision, "attention_threshold": 0.0, "consistency_weight": 3.0}
    method = builders.deeplab_method("sean", width_multiplier=1 / 16, **settings)
    student, teacher = (method.network.init_params(jax.random.key(seed)) for seed in (0, 1))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (2, 1, 2, 6, 8, 3)).repeat(8, 3).repeat(8, 4), jnp.float32)[:, 0]
    labels = jnp.asarray(rng.integers(0, CLASSES, (2, 6, 8)).repeat(8, 1).repeat(8, 2), jnp.uint8)
    views = Views(SourceView(images[0], labels), images[1], images[1] + 5.0)
    gradients, metrics = steps.gradients(method, student, teacher, views)
    assert {x.dtype for x in jax.tree.leaves((gradients, metrics))} == {jnp.dtype(jnp.float32)}
    return jax.tree.map(np.float64, gradients), {name: float(x) for name, x in metrics.items()}


def _norm(tree) -> float:
    return sum((x**2).sum() for x in jax.tree.leaves(tree)) ** 0.5


@pytest.mark.parametrize(
    ("precision", "loss_bound", "gradient_bound"),
    [
        pytest.param("bfloat16", 1e-2, 5e-2, id="bfloat16"),
        pytest.param(
            "tf32",
            2e-3,
            1e-2,
            id="tf32",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(jax.default_backend() != "gpu", reason="TF32 exists on NVIDIA GPUs only"),
            ],
        ),
    ],
)
def test_losses_and_gradients_stay_near_float32(precision, loss_bound, gradient_bound):
    exact, exact_losses = _step("float32")
    found, losses = _step(precision)
    for name in ("train/loss_segmentation", "train/loss_consistency", "train/loss"):
        assert losses[name] == pytest.approx(exact_losses[name], rel=loss_bound), name
    difference = jax.tree.map(lambda a, b: a - b, found, exact)
    error = _norm(difference) / _norm(exact)
    assert 0 < error < gradient_bound
    # Bounds every layer. The largest error is in the first layer: 0.17 for bfloat16 with 4 channels.
    for name, layer in exact["trunk"].items():
        assert _norm(difference["trunk"][name]) < 5 * gradient_bound * _norm(layer), name


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="TF32 differs from float32 there")
def test_without_a_gpu_tf32_is_float32():
    assert _step("tf32")[1] == pytest.approx(_step("float32")[1], rel=1e-5)
