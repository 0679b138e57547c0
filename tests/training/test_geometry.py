"""Tests of random views: images and labels move together, and maps come back to where they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.training import geometry
from sean_jax.training.geometry import View, whole_view

put_back, random_view = jax.jit(geometry.put_back), jax.jit(geometry.random_view, static_argnums=1)
take, take_label = jax.jit(geometry.take), jax.jit(geometry.take_label)

KEYS = jax.random.split(jax.random.key(0), 40)
HALF = View(jnp.float32(0.5), jnp.array([0.25, 0.5]), jnp.bool_(True))


def _smooth(height: int = 48, width: int = 64) -> np.ndarray:
    """A map of position: its first channel is the row, its second the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([rows, columns], -1)


def test_a_view_of_half_the_size_starts_at_its_offset():
    """At scale one half, pixel (i, j) shows row 12 + (i + 0.5) / 2 − 0.5 and, mirrored, the columns from the right."""
    taken = np.asarray(take(HALF, _smooth()))
    rows = 12 + (np.arange(48) + 0.5) / 2 - 0.5
    columns = 32 + (np.arange(64)[::-1] + 0.5) / 2 - 0.5
    inner = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(taken[..., 0][inner], np.broadcast_to(rows[:, None], (48, 64))[inner], atol=1e-4)
    np.testing.assert_allclose(
        taken[..., 1][inner], np.broadcast_to(np.minimum(columns, 63)[None], (48, 64))[inner], atol=1e-4
    )


@pytest.mark.parametrize("key", range(5))
def test_labels_move_with_their_image(key):
    """The label is the row (or column) of the nearest pixel; the image shows the exact one."""
    view, position = random_view(KEYS[key], 0.5), _smooth()
    taken = np.asarray(take(view, position))
    for channel in range(2):
        label = np.asarray(take_label(view, jnp.asarray(position[..., channel], jnp.int32)))
        assert np.abs(label - taken[..., channel])[2:-2, 2:-2].max() <= 0.51


def test_what_is_put_back_is_where_it_was():
    for key in KEYS[:8]:
        view, position = random_view(key, 0.4), jnp.asarray(_smooth())
        back, inside = put_back(view, take(view, position))
        kept = np.asarray(inside[..., 0]) == 1
        assert abs(kept.mean() - float(view.scale) ** 2) < 0.05
        error = np.abs(np.asarray(back) - _smooth())[kept]
        assert np.quantile(error, 0.95) < 1e-3  # pixels at the rim of the crop are interpolated from one side
        assert (np.asarray(back)[~kept] == 0).all()


def test_the_whole_view_changes_nothing():
    position = jnp.asarray(_smooth())
    np.testing.assert_allclose(take(whole_view(), position), position, atol=1e-4)
    np.testing.assert_array_equal(take_label(whole_view(), position[..., 1].astype(jnp.int32)), position[..., 1])
    back, inside = put_back(whole_view(), position)
    np.testing.assert_allclose(back, position, atol=1e-4)
    assert (inside == 1).all()


def test_views_cover_their_range():
    views = jax.vmap(lambda key: random_view(key, 0.5))(KEYS)
    assert views.scale.min() >= 0.5
    assert views.scale.max() <= 1
    assert views.scale.std() > 0.1
    assert (views.offset >= 0).all()
    assert (views.offset + views.scale[:, None] <= 1 + 1e-6).all()
    assert 5 < int(views.mirrored.sum()) < 35
