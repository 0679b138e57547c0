"""Tests that batch normalisation folds into convolutions without changing what they compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sean_jax import weights
from sean_jax.errors import UserError
from sean_jax.weights.batch_norm import EPSILON

INDICES = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]  # of vgg16_bn's convolutions, as torchvision prints it
PLAIN = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def _vgg16_bn() -> dict[str, np.ndarray]:
    rng, tensors, fan_in = np.random.default_rng(0), {}, 3
    for number, index in enumerate(INDICES):
        width = 2 + number
        tensors[f"features.{index}.weight"] = rng.normal(0, 0.5, (width, fan_in, 3, 3)).astype(np.float32)
        tensors[f"features.{index}.bias"] = rng.normal(0, 0.5, width).astype(np.float32)
        for name, values in (
            ("weight", rng.uniform(-2, 2, width)),
            ("bias", rng.normal(0, 1, width)),
            ("running_mean", rng.normal(0, 1, width)),
            ("running_var", rng.uniform(0, 2, width)),
        ):
            tensors[f"features.{index + 1}.{name}"] = values.astype(np.float32)
        tensors[f"features.{index + 1}.num_batches_tracked"] = np.int64(5)
        fan_in = width
    return tensors


def _convolve(x, tensors, index):
    return _biased_conv(x, *(jnp.asarray(tensors[f"features.{index}.{leaf}"]) for leaf in ("weight", "bias")))


@jax.jit
def _biased_conv(x, weight, bias):
    return jax.lax.conv(x, weight, (1, 1), "SAME", precision="highest") + bias.reshape(1, -1, 1, 1)


def _save(folder, tensors):
    safetensors.numpy.save_file({name: np.asarray(x) for name, x in tensors.items()}, folder / "vgg16_bn.safetensors")
    return folder / "vgg16_bn.safetensors"


def test_each_folded_convolution_computes_what_it_and_its_normalisation_did(tmp_path):
    tensors = _vgg16_bn()
    file = weights.read(_save(tmp_path, tensors))
    assert weights.identify(file) == "vgg16_torchvision"
    assert weights.input_convention(file) == "rgb_normalized"
    assert "folded" in file.origin
    assert sorted(file.tensors) == sorted(f"features.{i}.{leaf}" for i in PLAIN for leaf in ("weight", "bias"))
    for old, new in zip(INDICES, PLAIN, strict=True):
        fan_in = tensors[f"features.{old}.weight"].shape[1]
        x = np.random.default_rng(old).normal(size=(2, fan_in, 6, 5)).astype(np.float32)
        gamma, beta, mean, var = (
            tensors[f"features.{old + 1}.{name}"].reshape(1, -1, 1, 1)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        expected = (np.asarray(_convolve(x, tensors, old)) - mean) / np.sqrt(var + EPSILON) * gamma + beta
        np.testing.assert_allclose(_convolve(x, file.tensors, new), expected, rtol=2e-4, atol=2e-4)


def test_a_missing_tensor_is_named(tmp_path):
    tensors = _vgg16_bn()
    del tensors["features.8.running_var"]
    with pytest.raises(UserError, match=r"lacks features\.8\.running_var"):
        weights.read(_save(tmp_path, tensors))
