import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.ops import pooling

average_pool_2x2, average_pool_3x3 = jax.jit(pooling.average_pool_2x2), jax.jit(pooling.average_pool_3x3)
max_pool_2x2 = jax.jit(pooling.max_pool_2x2, static_argnames="round_up")

SIZES = [(2, 2), (3, 5), (8, 16), (9, 13), (64, 128), (7, 4)]


def _random(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)


def _windows(n: int, size: int, stride: int, pad: int) -> list[tuple[int, int, int]]:
    """PyTorch's ceil mode: (first row, last row + 1, divisor), padding counted once on each side."""
    count = -(-(n + 2 * pad - size) // stride) + 1
    if (count - 1) * stride >= n + pad:
        count -= 1
    found = []
    for i in range(count):
        start = i * stride - pad
        end = min(start + size, n + pad)
        found.append((max(start, 0), min(end, n), end - start))
    return found


@pytest.mark.parametrize("size", SIZES)
def test_average_pool_3x3_is_pytorchs_ceil_mode_with_counted_padding(size):
    x = _random(*size)
    rows, columns = (_windows(n, 3, 2, 1) for n in size)
    expected = np.array([[x[:, a:b, c:d].sum((1, 2)) / (p * q) for c, d, q in columns] for a, b, p in rows])
    np.testing.assert_allclose(average_pool_3x3(jnp.asarray(x)), expected.transpose(2, 0, 1, 3), rtol=2e-5, atol=1e-6)


def test_average_pool_3x3_of_a_64x128_map_is_33x65():
    assert average_pool_3x3(jnp.zeros((1, 64, 128, 1))).shape == (1, 33, 65, 1)


@pytest.mark.parametrize("size", SIZES)
def test_average_pool_2x2_divides_by_the_cells_that_exist(size):
    x = _random(*size)
    expected = np.array(
        [[x[:, i : i + 2, j : j + 2].mean((1, 2)) for j in range(0, size[1], 2)] for i in range(0, size[0], 2)]
    )
    np.testing.assert_allclose(average_pool_2x2(jnp.asarray(x)), expected.transpose(2, 0, 1, 3), rtol=2e-5, atol=1e-6)


def test_max_pool_drops_an_odd_last_row_and_column():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    np.testing.assert_array_equal(max_pool_2x2(x)[0, :, :, 0], [[6, 8]])


@pytest.mark.parametrize("size", [*SIZES, (2, 3), (16, 17)])
def test_max_pool_is_xlas(size):
    """Values and gradients, without ties; a dropped row or column gets no gradient."""
    x = jnp.asarray(_random(*size))

    def window_max_pool_2x2(x):
        return nn.max_pool(x, (2, 2), strides=(2, 2), padding="VALID")

    def weighted(pool):
        return lambda x: jnp.sum(pool(x) * jnp.arange(1.0, 4.0).reshape(1, 1, 1, 3))

    np.testing.assert_array_equal(max_pool_2x2(x), window_max_pool_2x2(x))
    np.testing.assert_array_equal(jax.grad(weighted(max_pool_2x2))(x), jax.grad(weighted(window_max_pool_2x2))(x))


def test_ties_share_the_gradient_of_a_window_and_after_a_relu_zeros_get_none():
    tie = jnp.asarray([[1.0, 1.0], [0.0, 1.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(tie).ravel()
    np.testing.assert_allclose(gradient, [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)
    below = jax.grad(lambda x: max_pool_2x2(jax.nn.relu(x)).sum())(-tie)
    np.testing.assert_array_equal(below, 0)


@pytest.mark.parametrize("size", SIZES)
def test_max_pool_rounded_up_keeps_the_last_row_and_column(size):
    x = _random(*size)
    rows, columns = (_windows(n, 2, 2, 0) for n in size)
    expected = np.array([[x[:, a:b, c:d].max((1, 2)) for c, d, _ in columns] for a, b, _ in rows])
    np.testing.assert_array_equal(max_pool_2x2(jnp.asarray(x), round_up=True), expected.transpose(2, 0, 1, 3))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_max_pooling_is_jaxs_own_with_ties(dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 7, 9, 5)), dtype)
    gradient = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 5)), dtype)

    def by_jax(x):
        return x[:, :6, :8].reshape(2, 3, 2, 4, 2, 5).max((2, 4))

    (found,), (expected,) = (jax.vjp(pool, x)[1](gradient) for pool in (max_pool_2x2, by_jax))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
