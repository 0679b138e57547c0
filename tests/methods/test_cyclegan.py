"""Tests of CycleGAN: which update moves what, the loss it lowers, its image pool, and runs that it belongs to."""

import functools

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from sean_jax.methods.cyclegan import CycleGAN, Views
from sean_jax.models.translator import PatchDiscriminator
from sean_jax.training import image_pool
from sean_jax.training.optimizers import linear_decay
from sean_jax.training.parallel import AXIS, pmap_step, replicate

pytestmark = pytest.mark.xdist_group("cyclegan")  # the tests share compiled programs

GENERATORS = {"to_target", "to_source"}
DISCRIMINATORS = {"source_discriminator", "target_discriminator"}


@functools.cache
def trained():
    """A method with a segmentation network trained beside, its compiled step, and its state at step 0."""
    settings = {"semantic_network": "trained", "random_flip": False, "learning_rate": 1e-3, "steps": 1000}
    method = builders.method("cyclegan", **settings)
    devices = steps.DEVICES[:1]

    def step(state, **settings):
        changed = method.replace(settings=method.settings.__class__(**vars(method.settings) | settings))
        state = replicate(jax.tree.map(jnp.array, state), devices)  # the step donates its state
        return pmap_step(changed, devices)(state, steps.batch("cyclegan"), jax.random.key(3))

    return step, jax.tree.map(np.asarray, steps.init(method))


def moved(after, before) -> set[str]:
    return {name for name, params in before.params.items() if not steps.same_bits(after.params[name], params)}


def test_each_update_moves_only_its_own_networks():
    step, before = trained()
    everything, _ = step(before)
    assert moved(everything, before) == {*GENERATORS, *DISCRIMINATORS, "segmentation"}
    generators, _ = step(before, discriminator_learning_rate_factor=0.0, semantic_learning_rate=0.0)
    assert moved(generators, before) == GENERATORS
    # The discriminators' and the segmentation network's updates leave the bits of the generators alone.
    for name in GENERATORS:
        assert steps.same_bits(everything.params[name], generators.params[name])


def test_the_discriminators_see_images_from_before_the_generators_update():
    """Their loss, recomputed from the images that the pools stored in the first step."""
    step, before = trained()
    after, metrics = step(before)
    fakes = after.memory["to_target"].images[:3]  # the pool keeps the first three of four
    again, other = step(before, cycle_weight_source=0.0)  # changes the generators' update, not what they made before
    assert not steps.same_bits(after.params["to_target"], again.params["to_target"])
    np.testing.assert_array_equal(again.memory["to_target"].images[:3], fakes)
    name = "train/loss_target_discriminator"
    np.testing.assert_array_equal(metrics[name], other[name])


def test_semantic_consistency_waits_until_the_segmentation_network_is_good():
    """The terms are off in the first step, and as long as the loss of the step before exceeds the gate."""
    step, before = trained()
    first, metrics = step(before)
    assert metrics["train/loss_semantic_to_target"] == 0
    loss = float(metrics["train/loss_segmentation"])
    assert float(first.memory["segmentation_loss"]) == loss
    closed, metrics = step(first, semantic_gate=0.9 * loss)
    assert metrics["train/loss_semantic_to_target"] == metrics["train/loss_semantic_to_source"] == 0
    opened, metrics = step(first, semantic_gate=1.1 * loss)
    assert metrics["train/loss_semantic_to_target"] > 0
    assert not steps.same_bits(opened.params["to_target"], closed.params["to_target"])
    # The gradient of the semantic terms reaches the generators alone.
    for name in (*DISCRIMINATORS, "segmentation"):
        assert steps.same_bits(opened.params[name], closed.params[name])


def test_generators_learn_to_reconstruct():
    """After some steps the back-translations are closer to the images, with little weight on fooling anybody."""
    step, state = trained()
    losses = []
    for _ in range(40):
        state, metrics = step(state, to_target_weight=0.0, identity_weight=0.0, semantic_weight=0.0)
        losses.append(float(metrics["train/loss_cycle_source"]))
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_the_pool_stores_the_global_batch_in_order_on_any_number_of_devices():
    def exchanged(devices):
        pool = image_pool.empty(3, ())
        mapped = jax.pmap(
            image_pool.exchange, AXIS, in_axes=(None, 0, None), out_axes=(None, 0), devices=steps.DEVICES[:devices]
        )
        returned = []
        for i in range(6):
            images = jnp.arange(4 * i, 4 * i + 4, dtype=jnp.float32).reshape(devices, -1)
            pool, drawn = mapped(pool, images, jax.random.key(i))
            returned += np.ravel(drawn).tolist()
        return np.asarray(pool.images).tolist(), returned

    assert exchanged(1) == exchanged(4)
    content, returned = exchanged(4)
    assert returned[:3] == [0, 1, 2]
    assert sorted(content + returned) != sorted(returned)  # some are still in the pool
    assert any(value < position - 3 for position, value in enumerate(returned))  # and some came back later


def test_a_pool_without_room_returns_the_images():
    images = jnp.arange(4.0)
    _, returned = image_pool.exchange(image_pool.empty(0, ()), images, jax.random.key(0))
    np.testing.assert_array_equal(returned, images)


def test_the_schedule_divides_the_run_into_epochs():
    """Five steps an epoch: constant until the last of three epochs, 0 in the last of all."""
    found = linear_decay(jnp.arange(25), 25, 3, 2)
    np.testing.assert_allclose(found, np.repeat([1, 1, 2 / 3, 1 / 3, 0], 5), atol=1e-6)


def test_crops_are_aligned_with_labels():
    method = builders.method("cyclegan", crop_size=24, random_flip=True)
    assert isinstance(method, CycleGAN)
    batch = steps.batch("cyclegan")
    batch["source_image"] = np.repeat(batch["source_label"][..., None], 3, -1)
    augment = jax.pmap(method.augment, AXIS, in_axes=(0, None, None), devices=steps.DEVICES[:1])
    views: Views = augment({name: x[None] for name, x in batch.items()}, jnp.int32(5), jax.random.key(0))
    assert views.source.shape[2:4] == (24, 24)
    np.testing.assert_allclose((views.source[..., 0] + 1) * 127.5, views.label, atol=1e-3)


def test_a_patch_of_the_discriminator_is_70_pixels_wide():
    """The gradient of one output reaches 70×70 pixels of the image, but through the statistics of normalisation."""
    module = PatchDiscriminator(width=2)
    shape = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 96, 96, 3)))
    reach = 1
    for name in reversed(shape["params"]):
        stride = 1 if name in ("conv4", "conv5") else 2
        reach = (reach - 1) * stride + shape["params"][name]["kernel"].shape[0]
    assert reach == 70
