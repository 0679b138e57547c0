"""Tests of SEAN: gradients, losses, consistency mask and augmentation."""

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
from steps import CLASSES, batch, gradients, median_attention, params, relative, teacher, views

from sean_jax.methods.sean import Views
from sean_jax.training.parallel import AXIS

pytestmark = pytest.mark.xdist_group("sean")  # the tests share compiled programs


@pytest.mark.parametrize("reduction", ["all_positions", "kept_positions"])
def test_gradients_are_equal_on_one_and_on_four_devices(reduction):
    view = views(batch())
    # Both losses have similar weight, so that a wrong scale of either is visible.
    settings = {"consistency_reduction": reduction, "attention_threshold": median_attention(view.teacher_target)}
    method = builders.method("sean", consistency_weight=30.0, **settings)
    one, metrics_one = gradients(method, params(), teacher(), view, 1)
    four, metrics_four = gradients(method, params(), teacher(), view, 4)
    assert relative(four, one) < 1e-5
    for name, value in metrics_one.items():
        np.testing.assert_allclose(metrics_four[name], value, rtol=1e-5)
    without = builders.method("sean", consistency_weight=0.0, **settings)
    assert relative(gradients(without, params(), teacher(), view)[0], one) > 1e-2


@pytest.mark.parametrize("resolution", ["output", "input"])
def test_losses_are_means_over_the_global_batch(resolution):
    """Compares the losses with their definition, computed independently."""
    view, network = views(batch()), steps.NETWORK
    threshold = median_attention(view.teacher_target)
    method = builders.method("sean", attention_threshold=threshold, consistency_resolution=resolution)
    _, metrics = gradients(method, params(), teacher(), view, 4)
    predict = jax.jit(network.predict)
    logits = predict(params(), view.source.image).logits
    log_probs = jax.nn.log_softmax(jax.image.resize(logits, (4, 32, 32, CLASSES), "bilinear"))
    labels = np.asarray(view.source.label)
    picked = np.take_along_axis(np.asarray(log_probs), np.where(labels == 255, 0, labels)[..., None], -1)[..., 0]
    np.testing.assert_allclose(metrics["train/loss_segmentation"], -picked[labels != 255].mean(), rtol=1e-5)

    def at_resolution(x):
        return x if resolution == "output" else jax.image.resize(x, (4, 32, 32, x.shape[-1]), "bilinear")

    seen, taught = predict(params(), view.student_target), predict(teacher(), view.teacher_target)
    probs = [jax.nn.softmax(at_resolution(x.logits)) for x in (seen, taught)]
    kept = at_resolution(taught.maps["attention"][..., None])[..., 0] > threshold
    distance = ((probs[0] - probs[1]) ** 2).sum(-1)
    np.testing.assert_allclose(
        metrics["train/loss_consistency"], np.mean(np.asarray(distance) * np.asarray(kept)), rtol=1e-4
    )
    np.testing.assert_allclose(metrics["train/kept_pixels"], kept.mean(), rtol=1e-6)


def test_gradients_are_those_of_equation_6():
    """Against JAX's derivative of the loss as the paper states it, on one device."""
    view, network, weight = views(batch()), steps.NETWORK, 30.0
    threshold = median_attention(view.teacher_target)
    labels = jnp.asarray(view.source.label, jnp.int32)

    def loss(student):
        logits = network.predict(student, view.source.image).logits
        log_probs = jax.nn.log_softmax(jax.image.resize(logits, (4, 32, 32, CLASSES), "bilinear"))
        picked = jnp.take_along_axis(log_probs, jnp.where(labels == 255, 0, labels)[..., None], -1)[..., 0]
        segmentation = -jnp.where(labels == 255, 0, picked).sum() / (labels != 255).sum().astype(jnp.float32)
        taught = network.predict(teacher(), view.teacher_target)
        probs = jax.nn.softmax(network.predict(student, view.student_target).logits)
        distance = ((probs - jax.nn.softmax(taught.logits)) ** 2).sum(-1)
        consistency = jnp.where(taught.maps["attention"] > threshold, distance, 0).mean()
        return segmentation + weight * consistency

    method = builders.method("sean", consistency_weight=weight, attention_threshold=threshold)
    found, _ = gradients(method, params(), teacher(), view)
    assert relative(found, jax.jit(jax.grad(loss))(params())) < 1e-4


def test_the_teacher_gets_no_gradient():
    method = builders.method("sean", attention_threshold=0.0)
    split = jax.tree.map(lambda x: x[None], views(batch()))

    def loss(student, teacher_params):
        mapped = jax.vmap(lambda view: method.gradients(student, teacher_params, view)[1]["train/loss"], axis_name=AXIS)
        return mapped(split).sum()

    to_student, to_teacher = jax.jit(jax.grad(loss, (0, 1)))(params(), teacher())
    assert all(jnp.all(g == 0) for g in jax.tree.leaves(to_teacher))
    assert any(jnp.any(g != 0) for g in jax.tree.leaves(to_student))


@pytest.mark.parametrize("reduction", ["all_positions", "kept_positions"])
def test_an_empty_mask_leaves_the_gradients_of_the_segmentation_loss(reduction):
    view = views(batch())
    method = builders.method("sean", consistency_reduction=reduction, attention_threshold=1.0)
    found, metrics = gradients(method, params(), teacher(), view)
    assert metrics["train/kept_pixels"] == 0
    assert metrics["train/loss_consistency"] == 0
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(found))
    segmentation = builders.method(
        "sean", consistency_reduction=reduction, consistency_weight=0.0, attention_threshold=0.0
    )
    assert relative(found, gradients(segmentation, params(), teacher(), view)[0]) < 1e-6


def test_a_batch_without_labels_has_finite_gradients():
    raw = batch()
    raw["source_label"][:] = 255
    found, metrics = gradients(builders.method("sean"), params(), params(), views(raw))
    assert metrics["train/loss_segmentation"] == 0
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(found))


def test_without_attention_the_mask_ratio_is_one():
    method = builders.method("sean", attention=False, attention_threshold=0.9)
    network = method.network
    raw = batch()
    state, metrics = steps.run(
        method, raw, state=method.init(jax.random.key(0), network.init_params(jax.random.key(0)))
    )
    assert metrics["train/kept_pixels"] == 1
    assert "attention" not in state.params["student"]["head"]


def test_reference_does_not_change_unused_branches():
    """PyTorch's Adam skips parameters without a gradient, including weight decay, so the teacher's stay too."""
    method = builders.deeplab_method("sean", **builders.preset("reference"))
    before = method.network.init_params(jax.random.key(0))
    state, _ = steps.run(method, batch(), state=method.init(jax.random.key(1), before))
    before, after = before["head"]["classifier"], state.params["student"]["head"]["classifier"]
    for name in ("branch_2", "branch_3"):
        np.testing.assert_array_equal(after[name]["kernel"], before[name]["kernel"])
    assert np.any(after["branch_1"]["kernel"] != before["branch_1"]["kernel"])


def _augmented(step: int = 0, *, examples: int = 4, **settings) -> Views:
    method = builders.method("sean", **settings)
    raw = {name: jnp.asarray(x[None]) for name, x in batch(examples=examples).items()}
    mapped = jax.pmap(method.augment, AXIS, in_axes=(0, None, None), devices=steps.DEVICES[:1])
    found = mapped(raw, jnp.int32(step), jax.random.key(0))
    found = found._replace(source=found.source._replace(dropout=None), student_dropout=None)
    return jax.tree.map(lambda x: np.asarray(x[0], np.float32), found)


def test_noise_differs_by_step_view_and_example():
    clean, source = (np.asarray(batch()[name], np.float32) for name in ("target_image", "source_image"))
    paper, later = _augmented(noise_std=25.5), _augmented(1, noise_std=25.5)
    noise = paper.student_target - clean
    assert abs(noise.std() - 25.5) < 0.5
    assert abs(noise.mean()) < 0.5
    assert not np.allclose(noise, paper.teacher_target - clean, atol=1)  # differs between student and teacher
    assert not np.allclose(noise[0], noise[1], atol=1)  # differs between examples
    assert not np.allclose(noise, later.student_target - clean, atol=1)  # differs between steps
    assert not np.array_equal(paper.source.image, source)
    np.testing.assert_array_equal(_augmented(noise_domains="target").source.image, source)


def test_mirroring_moves_labels_and_both_target_views():
    raw = batch(examples=16)
    view = _augmented(examples=16, random_flip=True, noise_std=0.0)
    mirrored = [np.array_equal(i, s[:, ::-1]) for i, s in zip(view.source.image, raw["source_image"], strict=True)]
    assert 0 < sum(mirrored) < 16
    for i, flip in enumerate(mirrored):
        expected = raw["source_label"][i][:, ::-1] if flip else raw["source_label"][i]
        np.testing.assert_array_equal(view.source.label[i], expected)
    np.testing.assert_array_equal(view.student_target, view.teacher_target)
