"""Photometric augmentation on the device: jitter of colours, blur and greyscale, as pure functions of a key.

Images are ``[H, W, 3]`` float32 RGB on the 0–255 scale; map the functions over a batch with one key for each example.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.settings import setting, settings
from sean_jax.training.randomness import example_keys

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's and torchvision's greyscale
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


@settings
class PhotometricSettings:
    """How the colours of the student's images change."""

    color_jitter: float = setting(0.25, "largest change of brightness, contrast, saturation and hue", least=0, most=1)
    color_jitter_probability: float = setting(0.8, "probability of colour jitter", least=0, most=1)
    blur_probability: float = setting(0.5, "probability of Gaussian blur", least=0, most=1)
    grey_probability: float = setting(0.0, "probability of a grey image", least=0, most=1)
    random_convolution_probability: float = setting(
        0.0, "probability of a random convolution, which changes colours and texture", least=0, most=1
    )


@settings
class SourcePhotometricSettings(PhotometricSettings):
    """Whether the colours of source images change too."""

    photometric_source: bool = setting(False, "change the colours of source images by the photometric settings")


def change_source(settings: SourcePhotometricSettings, images: jax.Array, step: jax.Array, rng: jax.Array) -> jax.Array:
    """Source images with changed colours if the settings say so; under ``pmap``."""
    if not settings.photometric_source:
        return images
    return photometric(settings, example_keys(rng, "photometric_source", step, len(images)), images)


def photometric(settings: PhotometricSettings, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Jitter, blur and greyscale, each with its probability; ``[b, H, W, 3]`` and one key for each example."""

    def of_example(key: jax.Array, image: jax.Array) -> jax.Array:
        steps = (
            (settings.color_jitter_probability, lambda key, x: color_jitter(key, x, settings.color_jitter)),
            (settings.blur_probability, gaussian_blur),
            (settings.grey_probability, lambda key, x: jnp.broadcast_to(_grey(x), x.shape)),
            (settings.random_convolution_probability, random_convolution),
        )
        for number, (probability, change) in enumerate(steps):
            chance, draw = jax.random.split(jax.random.fold_in(key, number))
            image = jnp.where(jax.random.bernoulli(chance, probability), change(draw, image), image)
        return image

    return jax.vmap(of_example)(keys, images.astype(jnp.float32))


def color_jitter(key: jax.Array, image: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Changes brightness, contrast and saturation by factors in 1 ± strength, and turns the hue by ± strength · 180°.

    The four follow each other in this order; torchvision and kornia draw the order. The hue is turned in YIQ, which is
    linear, and not in HSV. The result is clipped to 0–255.
    """
    brightness, contrast, saturation, turn = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0) * strength
    image = jnp.clip(image * (1 + brightness), 0, 255)
    image = jnp.clip(_blend(image, jnp.mean(_grey(image)), 1 + contrast), 0, 255)
    image = jnp.clip(_blend(image, _grey(image), 1 + saturation), 0, 255)
    return jnp.clip(_turn_hue(image, turn * math.pi), 0, 255)


def gaussian_blur(
    key: jax.Array, image: jax.Array, least: float = 0.15, most: float = 1.15, reach: float = 3.0
) -> jax.Array:
    """Blurs with a Gaussian whose standard deviation in pixels is drawn from ``least`` to ``most`` (DACS's range).

    The kernel ends at ``reach`` times the largest standard deviation. Pixels outside the image repeat its border.
    """
    sigma = jax.random.uniform(key, (), minval=least, maxval=most)
    radius = math.ceil(reach * most)
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    taps = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    for axis in (0, 1):
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(image, padding, mode="edge")
        size = image.shape[axis]
        image = sum(taps[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * radius + 1))  # pyright: ignore[reportAssignmentType]
    return image


def random_convolution(key: jax.Array, image: jax.Array, size: int = 3) -> jax.Array:
    """Blends the image with its convolution by random weights, whose colours and texture are new but not its shapes.

    RandConv's mixing variant (Xu et al., "Robust and generalizable visual representation learning via random
    convolutions", ICLR 2021), with one kernel size. The convolved image gets the mean and standard deviation of the
    original, so that its values stay in the same range. The result is clipped to 0–255.
    """
    draw, share = jax.random.split(key)
    kernel = jax.random.normal(draw, (size, size, 3, 3))
    padding = [(size // 2, size // 2)] * 2 + [(0, 0)]
    padded = jnp.pad(image, padding, mode="edge")
    convolved = lax.conv_general_dilated(
        padded[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    convolved = (convolved - convolved.mean()) / convolved.std().clip(1e-3) * image.std() + image.mean()
    return jnp.clip(_blend(image, convolved, jax.random.uniform(share)), 0, 255)


def _grey(image: jax.Array) -> jax.Array:
    return jnp.sum(image * jnp.asarray(_LUMINANCE).reshape(1, 1, 3), -1, keepdims=True)


def _blend(image: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
    return factor * image + (1 - factor) * other


def _turn_hue(image: jax.Array, angle: jax.Array) -> jax.Array:
    to_yiq = jnp.asarray(_RGB_TO_YIQ)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.array([[1, 0, 0], [0, 0, 0], [0, 0, 0]], jnp.float32)
    turn = turn.at[1:, 1:].set(jnp.array([[cos, -sin], [sin, cos]]))
    return image @ (jnp.linalg.inv(to_yiq) @ turn @ to_yiq).T
