"""Stochastic augmentation on the device: Gaussian noise as in the paper, and optional crops and mirroring."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.settings import setting, settings
from sean_jax.training.randomness import example_keys


@settings
class AugmentationSettings:
    """How images are perturbed before the networks see them (g of the paper)."""

    noise_std: float = setting(25.5, "std of Gaussian input noise, on the 0-255 scale (0.1 of [0, 1])", least=0)
    noise_domains: Literal["source_and_target", "target"] = setting("source_and_target", "which images get noise")
    random_flip: bool = setting(False, "mirror images at random (not in SEAN's paper and code)")
    crop_size: int = setting(2**15, "side of the random square crop in pixels; at most the image", least=24)


def add_noise(keys: jax.Array, images: jax.Array, std: jax.Array | float) -> jax.Array:
    """Adds N(0, std²) to every value of ``images`` (``[b, H, W, 3]``, 0–255 scale), unclipped; float32."""
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))(keys)
    return images.astype(jnp.float32) + std * noise


def random_flips(keys: jax.Array) -> jax.Array:
    """Whether to mirror each example, with probability one half; bool ``[b]``."""
    return jax.vmap(jax.random.bernoulli)(keys)


def mirror(flips: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors the examples of ``images`` or labels (``[b, H, W, ...]``) left to right where ``flips`` is True."""
    return jnp.where(flips.reshape(-1, *[1] * (images.ndim - 1)), images[:, :, ::-1], images)


def random_crops(keys: jax.Array, size: tuple[int, int], arrays: jax.Array) -> jax.Array:
    """A random part of ``size`` (height, width) of each example of images or labels ``[b, H, W, ...]``."""

    def crop(key: jax.Array, array: jax.Array) -> jax.Array:
        last = jnp.array([array.shape[0] - size[0] + 1, array.shape[1] - size[1] + 1])
        top, left = jax.random.randint(key, (2,), 0, last)
        return lax.dynamic_slice(array, (top, left, *[0] * (array.ndim - 2)), (*size, *array.shape[2:]))

    return jax.vmap(crop)(keys, arrays)


def crop(settings: AugmentationSettings, domain: str, arrays: jax.Array, step: jax.Array, rng: jax.Array) -> jax.Array:
    """A random square of each image or label ``[b, H, W, ...]``, at the same place in all arrays of a domain.

    Cropping twice is cropping once. Under ``pmap``.

    Args:
      domain: ``source`` or ``target``.
    """
    height, width = (min(settings.crop_size, side) for side in arrays.shape[1:3])
    if (height, width) == arrays.shape[1:3]:
        return arrays
    return random_crops(example_keys(rng, f"{domain}_crop", step, len(arrays)), (height, width), arrays)


class SourceView(NamedTuple):
    """The augmented source batch of one device."""

    image: jax.Array  # [b, H, W, 3] float32 RGB, 0–255 scale
    label: jax.Array  # [b, H, W] class index or 255
    dropout: jax.Array | None = None  # [b] keys of the network's dropout


class TargetView(NamedTuple):
    """The augmented target batch of one device."""

    image: jax.Array  # [b, H, W, 3] float32 RGB, 0–255 scale
    dropout: jax.Array | None = None  # [b] keys of the network's dropout


def augment_source(
    settings: AugmentationSettings, batch: dict[str, jax.Array], step: jax.Array, rng: jax.Array
) -> SourceView:
    """g(X_s), with its labels cropped and mirrored along; under ``pmap``."""
    image, label = (crop(settings, "source", batch[f"source_{x}"], step, rng) for x in ("image", "label"))
    image = image.astype(jnp.float32)
    examples = image.shape[0]
    if settings.random_flip:
        flips = random_flips(example_keys(rng, "source_flip", step, examples))
        image, label = mirror(flips, image), mirror(flips, label)
    if settings.noise_domains == "source_and_target":
        image = add_noise(example_keys(rng, "source_noise", step, examples), image, settings.noise_std)
    return SourceView(image, label, example_keys(rng, "source_dropout", step, examples))


def crop_and_mirror_target(
    settings: AugmentationSettings,
    batch: dict[str, jax.Array],
    step: jax.Array,
    rng: jax.Array,
    field: str = "target_image",
) -> jax.Array:
    """The target images, cropped and mirrored at random if the settings say so; under ``pmap``.

    Args:
      field: what to change: the images, or maps ``[b, H, W]`` that belong to them, which are changed alike.
    """
    target = crop(settings, "target", batch[field], step, rng)
    if not settings.random_flip:
        return target
    return mirror(random_flips(example_keys(rng, "target_flip", step, target.shape[0])), target)


def augment_target(
    settings: AugmentationSettings, batch: dict[str, jax.Array], step: jax.Array, rng: jax.Array
) -> TargetView:
    """g(X_t), for methods that need one view of the target; under ``pmap``."""
    target = crop_and_mirror_target(settings, batch, step, rng)
    noise, dropout = (
        example_keys(rng, purpose, step, target.shape[0]) for purpose in ("target_noise", "target_dropout")
    )
    return TargetView(add_noise(noise, target, settings.noise_std), dropout)
