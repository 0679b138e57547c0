"""Tests of DACS: pseudo-labels, mixed images and their weights, and which parameters move."""

import functools

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from sean_jax.methods.dacs import DACS
from sean_jax.training.augmentation import augment_source
from sean_jax.training.parallel import AXIS

pytestmark = pytest.mark.xdist_group("dacs")


def _method(**settings):
    return builders.method("dacs", **settings)


@pytest.fixture(scope="module")
def mixed():
    """Views of a batch without changed colours, its pseudo-labels, and the mask of pasted pixels."""
    method, raw = _method(color_jitter_probability=0.0, blur_probability=0.0, random_flip=False), steps.batch()
    label = jnp.full(raw["source_label"].shape, 2, jnp.uint8)

    def mix(batch):
        source = augment_source(method.settings, batch, jnp.int32(0), jax.random.key(0))
        return method.mix(source, batch["target_image"], label, jnp.float32(0.25), jnp.int32(0), jax.random.key(0))

    views = jax.pmap(mix, AXIS, devices=steps.DEVICES[:1])({k: jnp.asarray(x[None]) for k, x in raw.items()})
    views = jax.tree.map(lambda x: x[0], views)
    return raw, views, np.asarray(views.weight) == 1


def test_mixed_images_hold_whole_classes_of_the_source(mixed):
    raw, views, pasted = mixed
    expected = np.where(pasted[..., None], raw["source_image"], raw["target_image"])
    np.testing.assert_array_equal(views.mixed.image, expected)
    np.testing.assert_array_equal(views.mixed.label, np.where(pasted, raw["source_label"], 2))
    assert set(np.unique(views.weight)) == {np.float32(0.25), np.float32(1)}
    for mask, label in zip(pasted, raw["source_label"], strict=True):
        assert len(np.unique(label[mask])) == -(-len(np.unique(label)) // 2)


@pytest.mark.parametrize("adjustment", [0.0, 1.0])
def test_the_loss_is_the_weighted_cross_entropy_over_all_pixels(mixed, adjustment):
    """Computed in NumPy from the network's logits; ignored pixels of the source stay ignored where they are pasted.

    Logits are adjusted where the label is the source's: not where it is a pseudo-label.
    """
    _, views, pasted = mixed
    method = _method(learning_rate=0.0, logit_adjustment=adjustment)
    frequencies = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
    state = steps.init(method)
    state = state.replace(memory=state.memory | {"class_shares": jnp.asarray(5 * frequencies)})
    metrics = _update(method, state, jax.tree.map(lambda x: x[None], views))
    expected = {}
    for name, view, weight in (("segmentation", views.source, None), ("mixed", views.mixed, views.weight)):
        logits = method.network.predict(steps.params(), view.image, view.dropout).logits
        logits = jax.image.resize(logits, (*view.label.shape, steps.CLASSES), "bilinear", antialias=False)
        from_source = np.ones_like(pasted) if weight is None else pasted
        logits = logits + adjustment * from_source[..., None] * np.log(frequencies).reshape(1, 1, 1, -1)
        log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
        label = np.asarray(view.label)
        picked = np.take_along_axis(log_probs, np.where(label == 255, 0, label)[..., None].astype(int), -1)[..., 0]
        losses = np.where(label == 255, 0, -picked)
        expected[name] = losses.sum() / (label != 255).sum() if weight is None else (losses * weight).mean()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[f"train/loss_{name}"], value, rtol=1e-4)
    np.testing.assert_allclose(metrics["train/loss"], sum(expected.values()), rtol=1e-4)


@functools.partial(jax.pmap, axis_name=AXIS, in_axes=(None, None, 0), out_axes=None, devices=steps.DEVICES[:1])
def _update(method, state, views):
    return method.update(state, views)[1]


def test_pseudo_labels_are_the_teachers_classes_at_the_images_size():
    raw = steps.batch()
    size = raw["source_label"].shape
    prediction = _method().network.predict(steps.params(), raw["target_image"])
    logits = jax.image.resize(prediction.logits, (*size, steps.CLASSES), "bilinear", antialias=False)
    attention = np.asarray(jax.image.resize(prediction.attention, size, "bilinear", antialias=False))
    confidence = np.asarray(jax.nn.softmax(logits)).max(-1)
    middle = {"confidence_threshold": float(np.median(confidence)), "attention_threshold": float(np.median(attention))}
    label, certain, inside = jax.jit(_method(**middle).pseudo_labels)(steps.params(), jnp.asarray(raw["target_image"]))
    assert np.mean(np.asarray(label) == np.asarray(logits).argmax(-1)) > 0.999
    assert np.mean(np.asarray(certain) == (confidence >= np.median(confidence))) > 0.99
    assert np.mean(np.asarray(inside) == (attention > np.median(attention))) > 0.99
    assert 0.2 < np.mean(inside) < 0.8


def test_pictures_show_where_the_teacher_is_certain_inside_the_mask():
    prediction = _method().network.predict(steps.params(), steps.batch()["target_image"])
    confidence = jax.nn.softmax(prediction.logits).max(-1)
    median = float(jnp.median(confidence))

    def certain(confidence_threshold: float, attention_threshold: float) -> np.ndarray:
        thresholds = {"confidence_threshold": confidence_threshold, "attention_threshold": attention_threshold}
        return np.asarray(_method(**thresholds).masks(prediction)["certain"])

    assert certain(0.0, 0.0).all()
    assert not certain(0.0, 1.0).any()
    np.testing.assert_array_equal(certain(median, 0.0), confidence >= median)


@pytest.mark.parametrize(("threshold", "weights"), [(0.0, {1.0}), (1.0, {0.0, 1.0})])
def test_pseudo_labels_outside_the_mask_have_no_weight(monkeypatch, threshold, weights):
    """All pseudo-labels are certain, so each weighs 1 inside the mask; pasted pixels always do."""
    monkeypatch.setattr(DACS, "update", lambda self, state, views: (state, {"weight": views.weight}))
    method = _method(confidence_threshold=0.0, attention_threshold=threshold)
    step = jax.pmap(method.step, AXIS, in_axes=(None, 0, None), devices=steps.DEVICES[:1])
    batch = {name: jnp.asarray(x[None]) for name, x in steps.batch().items()}
    _, metrics = step(steps.init(method), batch, jax.random.key(0))
    assert set(np.unique(metrics["weight"])) == weights
    assert metrics["train/kept_pixels"] == 1 - threshold


@pytest.mark.parametrize("adapts", [False, True])
def test_fourier_adaptation_gives_source_images_the_targets_mean_colour(adapts):
    raw = {name: jnp.asarray(value) for name, value in steps.batch().items()}
    target = jnp.full(raw["target_image"].shape, jnp.asarray([90, 120, 150]), jnp.float32)
    method = _method(fourier_adaptation=adapts, fourier_beta=0.0, random_flip=False)
    soft = raw | {"source_image": 110 + 0.1 * raw["source_image"].astype(jnp.float32)}  # nothing is clipped
    view = _on_one_device(lambda batch: method.source(batch, target, jnp.int32(0), jax.random.key(0)), soft)
    np.testing.assert_array_equal(view.label, raw["source_label"])
    mean = (target if adapts else soft["source_image"]).mean((1, 2))
    np.testing.assert_allclose(view.image.mean((1, 2)), mean, atol=1e-2)


@pytest.mark.parametrize("changes", [False, True])
def test_the_colours_of_source_images_change_only_if_asked_for(changes):
    raw = {name: jnp.asarray(value) for name, value in steps.batch().items()}
    method = _method(photometric_source=changes, color_jitter_probability=1.0)

    def mix(batch):
        source = augment_source(method.settings, batch, jnp.int32(0), jax.random.key(0))
        label = jnp.zeros_like(batch["source_label"])
        views = method.mix(source, batch["target_image"], label, jnp.float32(0), jnp.int32(0), jax.random.key(0))
        return source, views.source

    before, after = _on_one_device(mix, raw)
    np.testing.assert_array_equal(after.label, before.label)
    assert bool((after.image != before.image).any((1, 2, 3)).all()) == changes


def _on_one_device(function, batch):
    """``function`` of a batch, under the name of the axis of devices."""
    found = jax.pmap(function, AXIS, devices=steps.DEVICES[:1])({name: x[None] for name, x in batch.items()})
    return jax.tree.map(lambda x: x[0], found)
