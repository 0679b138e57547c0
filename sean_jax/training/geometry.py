"""Random views of an image on the device: crops that are enlarged to the image's size, mirrored or not.

A view and its image are linked by an affine map, so predictions of a view can be brought back to the image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class View(NamedTuple):
    """Where a view lies in its image; all fields may have leading batch dimensions.

    Attributes:
      scale: side of the crop as a fraction of the image's, in (0, 1].
      offset: top and left of the crop as fractions of height and width, ``[..., 2]``.
      mirrored: whether the view is mirrored left to right.
    """

    scale: jax.Array
    offset: jax.Array
    mirrored: jax.Array


def random_view(key: jax.Array, least_scale: jax.Array | float, flip: bool = True) -> View:
    """A crop whose scale is drawn from ``least_scale`` to 1, anywhere in the image, mirrored half of the time."""
    scale_key, offset_key, flip_key = jax.random.split(key, 3)
    scale = jax.random.uniform(scale_key, (), minval=least_scale, maxval=1.0)
    offset = jax.random.uniform(offset_key, (2,)) * (1 - scale)
    return View(scale, offset, jax.random.bernoulli(flip_key) if flip else jnp.bool_(False))


def whole_view() -> View:
    """The view that is the image itself."""
    return View(jnp.float32(1), jnp.zeros(2), jnp.bool_(False))


def take(view: View, image: jax.Array) -> jax.Array:
    """The view of an image or map ``[H, W, c]`` float32, at the same size, by bilinear interpolation."""
    size = jnp.array(image.shape[:2], jnp.float32)
    scale = jnp.broadcast_to(1 / view.scale, (2,))
    # scale_and_translate samples input position (o + 0.5 − t) / s − 0.5 for output position o.
    cropped = _resample(image, scale, -view.offset * size * scale)
    return jnp.where(view.mirrored, cropped[:, ::-1], cropped)


def take_label(view: View, label: jax.Array) -> jax.Array:
    """The same view of a label ``[H, W]``, by the nearest pixel."""
    indices = []
    for axis, length in enumerate(label.shape):
        position = (jnp.arange(length, dtype=jnp.float32) + 0.5) * view.scale + view.offset[axis] * length
        indices.append(jnp.clip(jnp.floor(position).astype(jnp.int32), 0, length - 1))
    cropped = label[indices[0][:, None], indices[1][None, :]]
    return jnp.where(view.mirrored, cropped[:, ::-1], cropped)


def put_back(view: View, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Brings a map ``[H, W, c]`` of a view back to the image; the inverse of :func:`take` inside the crop.

    Returns:
      The map in the image's frame, 0 outside the crop, and 1 inside the crop and 0 outside, ``[H, W, 1]`` float32.
    """
    size = jnp.array(values.shape[:2], jnp.float32)
    values = jnp.where(view.mirrored, values[:, ::-1], values)
    scale, translation = jnp.broadcast_to(view.scale, (2,)), view.offset * size
    inside = []
    for axis in (0, 1):
        position = jnp.arange(values.shape[axis], dtype=jnp.float32) + 0.5
        start = translation[axis]
        inside.append((position > start) & (position < start + view.scale * size[axis]))
    mask = (inside[0][:, None] & inside[1][None, :])[..., None].astype(jnp.float32)
    return mask * _resample(values, scale, translation), mask


def _resample(image: jax.Array, scale: jax.Array, translation: jax.Array) -> jax.Array:
    return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, translation, "linear", antialias=False)
