"""Input conventions, worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.models.inputs import apply_convention

PIXEL = np.array([[[[255.0, 0.0, 51.0]]]], np.float32)  # red, green, blue


def test_bgr_mean_is_caffes():
    found = apply_convention(jnp.asarray(PIXEL), "bgr_mean")
    np.testing.assert_allclose(found[0, 0, 0], [51 - 104.00698793, -116.66876762, 255 - 122.67891434], rtol=1e-6)


def test_rgb_normalized_is_torchvisions():
    found = apply_convention(jnp.asarray(PIXEL), "rgb_normalized")
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-5)


def test_an_unknown_convention_is_an_error():
    with pytest.raises(ValueError, match="unknown input convention 'lab'; expected one of bgr_mean, rgb_normalized"):
        apply_convention(jnp.asarray(PIXEL), "lab")
