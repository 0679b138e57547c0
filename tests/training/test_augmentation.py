"""Crops move images, labels and maps together."""

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax.training.augmentation import AugmentationSettings, augment_source, crop, crop_and_mirror_target
from sean_jax.training.parallel import AXIS

HEIGHT, WIDTH, CROP = 28, 60, 24


def _cropped(size, step=0):
    """Batches whose images hold the place of each pixel, and whose labels are its column."""
    place = np.stack(np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij"), -1).astype(np.uint8)
    image = np.broadcast_to(np.concatenate([place, place[..., :1]], -1), (6, HEIGHT, WIDTH, 3))
    batch = {"source_image": image, "source_label": image[..., 1], "target_image": image}
    settings = AugmentationSettings(crop_size=size, noise_std=0.0)
    step, rng = jnp.int32(step), jax.random.key(0)

    def augment(batch):
        source = augment_source(settings, batch, step, rng)
        again = batch | {"source_image": crop(settings, "source", batch["source_image"], step, rng)}
        return {
            "source_image": source.image,
            "source_label": source.label,
            "twice": augment_source(settings, again, step, rng).image,
            "target_image": crop_and_mirror_target(settings, batch, step, rng),
            "target_map": crop_and_mirror_target(settings, batch, step, rng, "target_map"),
        }

    batch["target_map"] = image[..., 0]
    augment = jax.pmap(augment, AXIS, devices=jax.devices()[:1])
    return {name: np.asarray(x[0]) for name, x in augment({k: x[None] for k, x in batch.items()}).items()}


def test_labels_and_images_are_cropped_at_the_same_place():
    batch = _cropped(CROP)
    assert {name: x.shape[1:3] for name, x in batch.items()} == dict.fromkeys(batch, (CROP, CROP))
    np.testing.assert_array_equal(batch["source_label"], batch["source_image"][..., 1])
    np.testing.assert_array_equal(batch["twice"], batch["source_image"])
    np.testing.assert_array_equal(batch["target_map"], batch["target_image"][..., 0])
    for image in (*batch["source_image"], *batch["target_image"]):
        corner = image[0, 0].astype(int)
        offsets = np.stack(np.meshgrid(np.arange(CROP), np.arange(CROP), indexing="ij"), -1)
        np.testing.assert_array_equal(image[..., :2], corner[:2] + offsets)


def test_examples_domains_and_steps_are_cropped_at_places_of_their_own():
    batches = [_cropped(CROP), _cropped(CROP, step=1)]
    corners = {
        tuple(image[0, 0]) for batch in batches for name in ("source_image", "target_image") for image in batch[name]
    }
    assert len(corners) > 18  # of 24


def test_a_crop_larger_than_the_image_is_the_image():
    np.testing.assert_array_equal(_cropped(1000)["source_image"].shape[1:3], (HEIGHT, WIDTH))
