"""Tests of photometric augmentation against Pillow and SciPy-free arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter

from sean_jax.training import photometric
from sean_jax.training.photometric import PhotometricSettings

color_jitter = jax.jit(photometric.color_jitter)
gaussian_blur = jax.jit(photometric.gaussian_blur, static_argnums=(2, 3))

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.float32)
OFF = {
    "color_jitter_probability": 0.0,
    "blur_probability": 0.0,
    "grey_probability": 0.0,
    "random_convolution_probability": 0.0,
}


def _batch(**settings) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), 200)
    images = jnp.broadcast_to(IMAGE, (200, *IMAGE.shape))
    return np.asarray(jax.jit(photometric.photometric)(PhotometricSettings(**OFF | settings), keys, images))


def test_nothing_changes_with_probability_zero():
    np.testing.assert_array_equal(_batch(), np.broadcast_to(IMAGE, (200, *IMAGE.shape)))


def test_each_change_has_its_probability_and_differs_by_example():
    for name in OFF:
        changed = [not np.array_equal(image, IMAGE) for image in _batch(**{name: 0.3})]
        assert 35 < sum(changed) < 85, name  # 60 expected, four standard deviations
    jittered = _batch(color_jitter_probability=1.0)
    assert not np.array_equal(jittered[0], jittered[1])
    assert jittered.min() >= 0
    assert jittered.max() <= 255


def test_grey_images_equal_pillows():
    grey = _batch(grey_probability=1.0)[0]
    expected = np.asarray(Image.fromarray(IMAGE.astype(np.uint8)).convert("L"), np.float32)
    assert np.abs(grey - expected[..., None]).max() <= 1  # Pillow rounds


def test_jitter_without_strength_changes_nothing_and_hue_keeps_grey():
    np.testing.assert_allclose(color_jitter(jax.random.key(0), jnp.asarray(IMAGE), 0.0), IMAGE, atol=1e-3)
    grey = jnp.broadcast_to(jnp.asarray(IMAGE[..., :1]), IMAGE.shape)
    jittered = np.asarray(color_jitter(jax.random.key(1), grey, 0.3))
    np.testing.assert_allclose(jittered, np.broadcast_to(jittered[..., :1], IMAGE.shape), atol=1e-3)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_blur_equals_pillows(sigma):
    """Pillow approximates a Gaussian by box filters, so the images differ by a few grey values."""
    smooth = Image.fromarray(IMAGE.astype(np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
    expected = np.asarray(smooth.filter(ImageFilter.GaussianBlur(sigma)), np.float32)
    blurred = gaussian_blur(jax.random.key(0), jnp.asarray(np.asarray(smooth), jnp.float32), sigma, sigma)
    assert np.abs(np.asarray(blurred) - expected)[8:-8, 8:-8].mean() < 2
    flat = gaussian_blur(jax.random.key(0), jnp.full((8, 8, 3), 7.0), sigma, sigma)
    np.testing.assert_allclose(flat, 7.0, rtol=1e-5)


def test_random_convolution_changes_colours_but_moves_no_edge():
    """Two flat halves stay two flat halves; which of them is brighter depends on the key."""
    halves = jnp.concatenate([jnp.full((8, 6, 3), 60.0), jnp.full((8, 6, 3), 180.0)], axis=1)
    changed = np.asarray(
        jax.vmap(lambda key: photometric.random_convolution(key, halves))(jax.random.split(jax.random.key(0), 100))
    )
    left, right = changed[:, :, :5], changed[:, :, 7:]  # a kernel of 3 x 3 sees both halves at their border only
    np.testing.assert_allclose(left, np.broadcast_to(left[:, :1, :1], left.shape), atol=1e-2)
    np.testing.assert_allclose(right, np.broadcast_to(right[:, :1, :1], right.shape), atol=1e-2)
    darker = (right - left).mean((1, 2)) < 0  # by example and channel
    assert 0.1 < darker.mean() < 0.5
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert np.abs(left - 60).mean() > 5


def test_random_convolution_keeps_a_flat_image():
    flat = jnp.full((8, 8, 3), 7.0)
    np.testing.assert_allclose(photometric.random_convolution(jax.random.key(0), flat), flat, atol=1e-3)
