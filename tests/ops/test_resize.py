import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.ops import resize

resize_bilinear = jax.jit(resize.resize_bilinear, static_argnums=1, static_argnames="align_corners")


def _axis(n: int, out: int, align_corners: bool) -> np.ndarray:
    """The interpolation matrix of one axis, from PyTorch's definition."""
    matrix = np.zeros((out, n))
    for i in range(out):
        if align_corners:
            position = i * (n - 1) / (out - 1) if out > 1 else 0.0
        else:
            position = max((i + 0.5) * n / out - 0.5, 0)
        low = min(int(position), n - 1)
        high = min(low + 1, n - 1)
        matrix[i, low] += 1 - (position - low)
        matrix[i, high] += position - low
    return matrix


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("size", "out"), [((4, 7), (32, 56)), ((5, 5), (9, 10)), ((1, 3), (2, 5)), ((33, 65), (64, 128))]
)
def test_bilinear_matches_its_definition(size, out, align_corners):
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    rows, columns = _axis(size[0], out[0], align_corners), _axis(size[1], out[1], align_corners)
    expected = np.einsum("ij,bjkc,lk->bilc", rows, x, columns)
    np.testing.assert_allclose(
        resize_bilinear(jnp.asarray(x), out, align_corners=align_corners), expected, rtol=1e-4, atol=2e-5
    )


def test_shrinking_does_not_average():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 8, 8, 1)).astype(np.float32))
    np.testing.assert_allclose(resize_bilinear(x, (2, 2))[0, 0, 0, 0], x[0, 1:3, 1:3, 0].mean(), rtol=1e-5)
