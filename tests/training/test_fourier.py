"""Fourier domain adaptation against the published procedure, written with NumPy's complex transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.training.fourier import with_amplitudes_of


def _images(seed, size=(13, 20)):
    return np.random.default_rng(seed).uniform(80, 160, (2, *size, 3)).astype(np.float32)


def _published(source, target, beta):
    """The amplitudes in a square around the centre of the shifted spectrum are the target's."""
    axes = (1, 2)
    ours, theirs = (np.fft.fftshift(np.fft.fft2(x, axes=axes), axes=axes) for x in (source, target))
    amplitude = np.abs(ours)
    height, width = source.shape[1:3]
    reach, row, column = int(min(height, width) * beta), height // 2, width // 2
    square = np.s_[:, row - reach : row + reach + 1, column - reach : column + reach + 1]
    amplitude[square] = np.abs(theirs)[square]
    mixed = np.fft.ifftshift(amplitude * np.exp(1j * np.angle(ours)), axes=axes)
    return np.fft.ifft2(mixed, axes=axes).real.clip(0, 255)


@pytest.mark.parametrize("beta", [0.0, 0.09, 0.2])
@pytest.mark.parametrize("size", [(13, 20), (16, 12)])
def test_it_is_the_published_procedure(size, beta):
    source, target = _images(0, size), _images(1, size)
    found = jax.jit(with_amplitudes_of)(source, target, beta)
    np.testing.assert_allclose(found, _published(source, target, beta), atol=2e-3)


def test_beta_zero_replaces_the_mean_colour_only():
    source, target = _images(0), _images(1) / 2
    found = np.asarray(with_amplitudes_of(jnp.asarray(source), jnp.asarray(target), 0.0))
    mean = [x.mean((1, 2), keepdims=True) for x in (source, target)]
    np.testing.assert_allclose(found, (source - mean[0] + mean[1]).clip(0, 255), atol=2e-3)


def test_an_image_in_its_own_colours_does_not_change():
    source = _images(0)
    np.testing.assert_allclose(with_amplitudes_of(source, source, 0.3), source, atol=2e-3)
