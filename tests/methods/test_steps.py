"""The training step: gradients where they belong, equal on any number of devices, the teacher's closed form."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.config import PRESETS, Config
from sean_jax.methods.base import SourceView
from sean_jax.methods.sean import SEAN, Views
from sean_jax.methods.source_only import SourceOnly
from sean_jax.models.deeplab import Segmenter
from sean_jax.training.parallel import AXIS, local_shards, pmap_step, replicate

CLASSES = 4


def _config(**settings) -> Config:
    values = {"steps": 10, "width_multiplier": 1 / 32, "batch_size": 4, "precision": "float32"} | settings
    return Config(**values)


@functools.cache
def _network(branches: int = 4) -> tuple[Segmenter, dict]:
    network = Segmenter(CLASSES, width_multiplier=1 / 32, precision="float32", classifier_branches=branches)
    return network, network.init_params(jax.random.key(0))


def _batch(size: int = 32, examples: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (examples, size, size)).astype(np.uint8)
    for i in range(examples):  # a different number of labelled pixels in each example
        labels[i, : 4 * i] = 255
    coarse = rng.integers(0, 256, (2, examples, size // 8, size // 8, 3))
    images = coarse.repeat(8, 2).repeat(8, 3).astype(np.uint8)
    return {"source_image": images[0], "source_label": labels, "target_image": images[1]}


def _views(batch: dict[str, np.ndarray]) -> Views:
    image = {name: jnp.asarray(x) for name, x in batch.items()}
    target = image["target_image"].astype(jnp.float32)
    return Views(SourceView(image["source_image"], image["source_label"]), target, target + 1.0)


def _gradients(method: SEAN, student, teacher, views: Views, devices: int):
    split = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), views)
    in_axes, chosen = (None, None, 0), jax.local_devices()[:devices]
    mapped = jax.pmap(method.gradients, AXIS, in_axes=in_axes, out_axes=None, devices=chosen)
    return mapped(student, teacher, split)


def _teacher_that_attends_differently(params):
    kernel = params["attention"]["conv"]["kernel"]
    attention = {"conv": {"kernel": 0.02 * jax.random.normal(jax.random.key(7), kernel.shape)}}
    return jax.tree.map(lambda x: 1.1 * x, params) | {"attention": attention}


def _median_attention(teacher, views: Views) -> float:
    """A threshold that about half of all positions pass, in each example another number of them."""
    attention = np.asarray(_network()[0].predict(teacher, views.teacher_target).attention)
    threshold = float(np.median(attention))
    assert len(set((attention > threshold).sum((1, 2)).tolist())) > 1
    return threshold


def _relative(a, b) -> float:
    """‖a − b‖ / ‖b‖ over all leaves."""
    pairs = [(np.float64(x), np.float64(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return (sum(((x - y) ** 2).sum() for x, y in pairs) / sum((y**2).sum() for _, y in pairs)) ** 0.5


@pytest.mark.parametrize("reduction", ["all_positions", "kept_positions"])
def test_gradients_are_equal_on_one_and_on_four_devices(reduction):
    network, student = _network()
    teacher = _teacher_that_attends_differently(student)
    views = _views(_batch())
    threshold = _median_attention(teacher, views)
    # The consistency loss weighs as much as the other: a wrong scale of either shows.
    config = _config(consistency_reduction=reduction, consistency_weight=30.0, attention_threshold=threshold)
    method = SEAN(config, network)
    one, metrics_one = _gradients(method, student, teacher, views, 1)
    four, metrics_four = _gradients(method, student, teacher, views, 4)
    assert _relative(four, one) < 1e-5
    for name, value in metrics_one.items():
        np.testing.assert_allclose(metrics_four[name], value, rtol=1e-5)
    without = dataclasses.replace(method.config, consistency_weight=0.0)
    assert _relative(_gradients(SEAN(without, network), student, teacher, views, 1)[0], one) > 1e-2


@pytest.mark.parametrize("method_class", [SEAN, SourceOnly])
def test_whole_step_is_equal_on_one_and_on_four_devices(method_class):
    """With noise and mirroring drawn inside: an example gets the same numbers wherever it lies."""
    network, params = _network()
    method = method_class(_config(random_flip=True, attention_threshold=0.5, learning_rate=1e-3), network)
    batch = _batch()
    if not method.reads_target:
        del batch["target_image"]
    results = {}
    for devices in (1, 2, 4):
        step = pmap_step(method.step, jax.local_devices()[:devices])
        results[devices] = step(method.init(params), batch, jax.random.key(3))
    for devices in (2, 4):
        for name, value in results[1][1].items():
            np.testing.assert_allclose(results[devices][1][name], value, rtol=1e-5)
        assert _relative(results[devices][0].teacher, results[1][0].teacher) < 1e-5


@pytest.mark.parametrize("devices", [1, 4])
def test_the_step_is_compiled_once(devices):
    """A state that lay elsewhere at the first step than afterwards would have the second compile everything again."""
    network, params = _network()
    method = SourceOnly(_config(), network)
    chosen = jax.local_devices()[:devices]
    step = pmap_step(method.step, chosen)
    state, rng = replicate((method.init(params), jax.random.key(3)), chosen)
    batch = {name: x for name, x in _batch().items() if name != "target_image"}
    compiled = []
    for _ in range(3):
        with _compilations() as durations:
            state, _ = step(state, batch, rng)
        compiled.append(len(durations))
    assert compiled[0] >= 1
    assert compiled[1:] == [0, 0]


@contextlib.contextmanager
def _compilations():
    durations: list[float] = []

    def note(event: str, duration: float, **_) -> None:
        if "backend_compile" in event:
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield durations
    jax.monitoring.unregister_event_duration_listener(note)


def test_loss_is_the_mean_over_the_global_batch():
    """Against the definition, computed without the method's bookkeeping."""
    network, student = _network()
    teacher = _teacher_that_attends_differently(student)
    views = _views(_batch())
    threshold = _median_attention(teacher, views)
    method = SEAN(_config(attention_threshold=threshold), network)
    _, metrics = _gradients(method, student, teacher, views, 4)
    logits = network.predict(student, views.source.image).logits
    log_probs = jax.nn.log_softmax(jax.image.resize(logits, (4, 32, 32, CLASSES), "bilinear"))
    labels = np.asarray(views.source.label)
    picked = np.take_along_axis(np.asarray(log_probs), np.where(labels == 255, 0, labels)[..., None], -1)[..., 0]
    np.testing.assert_allclose(metrics["train/loss_segmentation"], -picked[labels != 255].mean(), rtol=1e-5)
    seen, taught = network.predict(student, views.student_target), network.predict(teacher, views.teacher_target)
    distance = ((jax.nn.softmax(seen.logits) - jax.nn.softmax(taught.logits)) ** 2).sum(-1)
    kept = taught.attention > threshold
    np.testing.assert_allclose(metrics["train/loss_consistency"], (distance * kept).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["train/kept_pixels"], kept.mean(), rtol=1e-6)


def test_the_teacher_gets_no_gradient():
    network, student = _network()
    teacher = _teacher_that_attends_differently(student)
    method = SEAN(_config(attention_threshold=0.0), network)
    views = jax.tree.map(lambda x: x[None], _views(_batch()))

    def loss(student, teacher):
        mapped = jax.vmap(lambda view: method.gradients(student, teacher, view)[1]["train/loss"], axis_name=AXIS)
        return mapped(views).sum()

    to_student, to_teacher = jax.jit(jax.grad(loss, (0, 1)))(student, teacher)
    assert all(jnp.all(g == 0) for g in jax.tree.leaves(to_teacher))
    assert any(jnp.any(g != 0) for g in jax.tree.leaves(to_student))


@pytest.mark.parametrize("reduction", ["all_positions", "kept_positions"])
def test_an_empty_mask_gives_finite_gradients_of_the_segmentation_loss_alone(reduction):
    network, student = _network()
    teacher = _teacher_that_attends_differently(student)
    config = _config(consistency_reduction=reduction, attention_threshold=1.0)
    views = _views(_batch())
    gradients, metrics = _gradients(SEAN(config, network), student, teacher, views, 1)
    assert metrics["train/kept_pixels"] == 0
    assert metrics["train/loss_consistency"] == 0
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
    segmentation = dataclasses.replace(config, consistency_weight=0.0, attention_threshold=0.0)
    alone, _ = _gradients(SEAN(segmentation, network), student, teacher, views, 1)
    assert _relative(gradients, alone) < 1e-6


def test_no_labelled_pixel_gives_finite_gradients():
    network, student = _network()
    batch = _batch()
    batch["source_label"][:] = 255
    gradients, metrics = _gradients(SEAN(_config(), network), student, student, _views(batch), 1)
    assert metrics["train/loss_segmentation"] == 0
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_teacher_is_the_closed_form_of_the_moving_average():
    """θ_T after k steps = α^k θ_0 + (1 − α) Σ α^(k−i) θ_S,i, with the students after each optimiser step."""
    network, params = _network()
    method = SourceOnly(_config(ema_decay=0.9, learning_rate=1e-2), network)
    step = pmap_step(method.step, jax.local_devices()[:1])
    batch = {name: x for name, x in _batch().items() if name != "target_image"}
    state, students = method.init(params), []
    for _ in range(4):
        state, _ = step(state, batch, jax.random.key(0))
        students.append(jax.tree.map(np.asarray, state.student))
    expected = jax.tree.map(lambda x: 0.9**4 * np.asarray(x, np.float64), params)
    for i, student in enumerate(students, 1):
        expected = jax.tree.map(lambda e, s, i=i: e + 0.1 * 0.9 ** (4 - i) * s, expected, student)
    assert _relative(state.teacher, expected) < 1e-6
    assert _relative(state.teacher, students[-1]) > 1e-3


def test_reference_leaves_unread_branches_as_they_were():
    """PyTorch's Adam passes over parameters without gradient: no decay either; their teacher stays as well."""
    network, params = _network(branches=2)
    method = SEAN(_config(**{k: v for k, v in PRESETS["reference"].items() if k != "eval_every"}), network)
    step = pmap_step(method.step, jax.local_devices()[:1])
    before = jax.tree.map(np.asarray, params)
    state, _ = step(method.init(params), _batch(), jax.random.key(0))
    for name in ("branch_2", "branch_3"):
        np.testing.assert_array_equal(state.student["classifier"][name]["kernel"], before["classifier"][name]["kernel"])
    assert np.any(state.student["classifier"]["branch_1"]["kernel"] != before["classifier"]["branch_1"]["kernel"])


def test_weight_decay_is_added_to_the_gradient_before_the_moments():
    """Adam's first step is lr · sign(gradient + decay · θ): a parameter with little gradient follows its decay."""
    network, params = _network()
    method = SourceOnly(_config(weight_decay=1e3, learning_rate=1e-3), network)
    batch = {name: x for name, x in _batch().items() if name != "target_image"}
    before = np.asarray(params["backbone"]["conv1_1"]["kernel"])
    state, _ = pmap_step(method.step, jax.local_devices()[:1])(method.init(params), batch, jax.random.key(0))
    moved = np.asarray(state.student["backbone"]["conv1_1"]["kernel"]) - before
    large = np.abs(before) > 0.1
    np.testing.assert_allclose(moved[large], -1e-3 * np.sign(before[large]), rtol=1e-3)


def test_source_only_never_reads_the_target():
    network, params = _network()
    method = SourceOnly(_config(), network)
    step = pmap_step(method.step, jax.local_devices()[:1])
    batch = _batch()
    other = batch | {"target_image": 255 - batch["target_image"]}
    one, _ = step(method.init(params), batch, jax.random.key(0))
    two, _ = step(method.init(params), other, jax.random.key(0))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))


def test_noise_differs_by_step_purpose_and_example_and_goes_where_it_should():
    network, _ = _network()
    batch = {name: jnp.asarray(x) for name, x in local_shards(jax.local_devices()[:1], _batch()).items()}

    def views(config: Config, step: int) -> Views:
        augment = SEAN(config, network).augment
        mapped = jax.pmap(augment, AXIS, in_axes=(0, None, None), devices=jax.local_devices()[:1])
        return jax.tree.map(lambda x: np.asarray(x[0], np.float32), mapped(batch, jnp.int32(step), jax.random.key(0)))

    paper, later = views(_config(noise_std=25.5), 0), views(_config(noise_std=25.5), 1)
    clean = np.asarray(batch["target_image"][0], np.float32)
    noise = paper.student_target - clean
    assert abs(noise.std() - 25.5) < 0.5
    assert abs(noise.mean()) < 0.5
    assert not np.allclose(noise, paper.teacher_target - clean, atol=1)  # student and teacher independently
    assert not np.allclose(noise[0], noise[1], atol=1)  # each example
    assert not np.allclose(noise, later.student_target - clean, atol=1)  # each step
    assert not np.array_equal(paper.source.image, np.asarray(batch["source_image"][0], np.float32))
    reference = views(_config(noise_domains="target"), 0)
    np.testing.assert_array_equal(reference.source.image, np.asarray(batch["source_image"][0], np.float32))


def test_mirroring_takes_labels_along_and_both_target_views_alike():
    network, _ = _network()
    raw = _batch(examples=16)
    batch = {name: jnp.asarray(x[None]) for name, x in raw.items()}
    config = _config(random_flip=True, noise_std=0.0)
    augment = jax.pmap(SEAN(config, network).augment, AXIS, in_axes=(0, None, None), devices=jax.local_devices()[:1])
    view = jax.tree.map(lambda x: np.asarray(x[0]), augment(batch, jnp.int32(0), jax.random.key(0)))
    mirrored = [np.array_equal(i, s[:, ::-1]) for i, s in zip(view.source.image, raw["source_image"], strict=True)]
    assert 0 < sum(mirrored) < 16
    for i, flip in enumerate(mirrored):
        expected = raw["source_label"][i][:, ::-1] if flip else raw["source_label"][i]
        np.testing.assert_array_equal(view.source.label[i], expected)
    np.testing.assert_array_equal(view.student_target, view.teacher_target)
