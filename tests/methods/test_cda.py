"""Tests of CDA's losses and step; tests of the stage before it are in tests/methods/test_cda_stages.py."""

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from sean_jax.methods.cda import View
from sean_jax.training.augmentation import SourceView
from sean_jax.training.parallel import AXIS

pytestmark = pytest.mark.xdist_group("cda")  # the tests share compiled programs

EXAMPLES, SIZE, CLASSES = 2, 6, 4


def _method(**settings):
    return builders.method("cda", **{"noise_std": 0.0} | settings)


def _softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


# Exact numbers, by NumPy in loops over images, classes and pixels


@pytest.fixture(scope="module")
def case():
    """Logits, some beyond the clip; labels with void pixels; superpixels of several sizes; target distributions."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (2, EXAMPLES, SIZE, SIZE, CLASSES)).astype(np.float32)
    logits[:, :, 0, 0] *= 20
    label = rng.choice([0, 1, 1, 3, 255], (EXAMPLES, SIZE, SIZE)).astype(np.uint8)
    superpixels = np.zeros((EXAMPLES, SIZE, SIZE), np.int32)
    superpixels[:, 2:], superpixels[0, :, 4:], superpixels[1, 5] = 1, 3, 4
    superpixel_labels = np.array([[2, 255, 0, 1, 0], [1, 0, 0, 0, 3]], np.uint8)
    distribution = np.array([[0.5, 0.25, 0.25, 0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    return logits, label, superpixels, superpixel_labels, distribution


def _view(case) -> View:
    _, label, superpixels, superpixel_labels, distribution = case
    batch = {
        "source_image": np.zeros((EXAMPLES, SIZE, SIZE, 3), np.uint8),
        "source_label": label,
        "target_image": np.zeros((EXAMPLES, SIZE, SIZE, 3), np.uint8),
        "target_superpixels": superpixels.astype(np.uint8),
        "target_superpixel_labels": superpixel_labels,
        "target_label_distribution": distribution,
    }
    method = _method()
    mapped = jax.vmap(lambda b: method.augment(b, jnp.int32(0), jax.random.key(0)), axis_name=AXIS)
    view = jax.tree.map(lambda x: x[0], jax.jit(mapped)({name: jnp.asarray(x)[None] for name, x in batch.items()}))
    return view


@jax.jit
def _losses(method, source, target, view):
    return method.losses(source, target, view, method.divisors(view))


def _expected(case, *, exponent: float, balanced: bool, over_all: bool) -> list[float]:
    logits, label, superpixels, superpixel_labels, distribution = case
    logits = np.clip(np.float64(logits), -30, 30)
    segmentation = landmarks = layout = 0.0
    labelled, marked = 0, 0
    for i in range(EXAMPLES):
        areas = {k: int((superpixels[i] == k).sum()) for k in np.unique(superpixels[i])}
        mean_area = np.mean(list(areas.values()))
        marks = np.array([[superpixel_labels[i, k] for k in row] for row in superpixels[i]])
        for domain, found in enumerate((label[i], marks)):
            counts = {c: int((found == c).sum()) for c in range(CLASSES) if (found == c).any()}
            for y in range(SIZE):
                for x in range(SIZE):
                    c = found[y, x]
                    if c == 255:
                        continue
                    weight = np.mean(list(counts.values())) / (counts[c] + 0.1) if balanced else 1.0
                    loss = -weight * np.log(_softmax(logits[domain, i, y, x])[c])
                    if domain == 0:
                        segmentation, labelled = segmentation + loss, labelled + 1
                    else:
                        landmarks += loss * mean_area / areas[superpixels[i, y, x]]
                        marked += 1
        p = _softmax(logits[1, i])
        soft = ((p / p.max(-1, keepdims=True)) ** exponent).mean((0, 1))
        layout -= (distribution[i] * np.log(soft / soft.sum())).sum()
    pixels = 2 * label.size
    if over_all:
        return [segmentation / pixels, landmarks / pixels, layout / (2 * EXAMPLES)]
    return [segmentation / labelled, landmarks / marked, layout / EXAMPLES]


@pytest.mark.parametrize(
    ("exponent", "balanced", "reduction"), [(6.0, True, "labelled"), (5.0, True, "all"), (6.0, False, "labelled")]
)
def test_losses_are_those_of_a_plain_computation(case, exponent, balanced, reduction):
    method = _method(distribution_exponent=exponent, class_balance=balanced, loss_reduction=reduction)
    view = _view(case)
    source, target = jnp.asarray(case[0])
    losses = _losses(method, source, target, view)
    expected = _expected(case, exponent=exponent, balanced=balanced, over_all=reduction == "all")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(method.total(losses), expected[0] + expected[1] + 0.1 * expected[2], rtol=1e-5)


def test_published_halves_the_distributions_weight_and_the_default_does_not(case):
    view, logits = _view(case), jnp.asarray(case[0])
    published = _method(**{k: v for k, v in builders.preset("published", "cda").items() if k == "loss_reduction"})
    theirs, ours = (_losses(method, *logits, view) for method in (published, _method()))
    np.testing.assert_allclose(2 * theirs.distribution, ours.distribution, rtol=1e-6)


# Void pixels


def test_void_pixels_and_unlabelled_superpixels_have_no_loss_and_no_gradient(case):
    view = _view(case)
    method = _method(distribution_weight=0.0)

    def loss(logits):
        return method.total(method.losses(*logits, view, method.divisors(view)))

    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(case[0])))
    inside = np.abs(case[0]).max(-1) < 30
    for found, label in zip(gradient, (view.source.label, view.landmarks), strict=True):
        void = np.asarray(label) == 255
        assert void.any()
        assert (found[void] == 0).all()
    assert (np.abs(gradient[0][(np.asarray(view.source.label) != 255) & inside[0]]).max(-1) > 0).all()


def test_a_batch_without_labels_has_losses_of_zero_and_finite_gradients(case):
    view = _view(case)
    view = view._replace(
        source=SourceView(view.source.image, jnp.full_like(view.source.label, 255)),
        landmarks=jnp.full_like(view.landmarks, 255),
    )
    method = _method()

    def loss(logits):
        losses = method.losses(*logits, view, method.divisors(view))
        return method.total(losses), losses

    gradient, losses = jax.jit(jax.grad(loss, has_aux=True))(jnp.asarray(case[0]))
    assert losses.segmentation == losses.superpixels == 0
    assert losses.distribution > 0
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[0])


def test_a_class_that_the_prediction_rules_out_has_a_finite_loss(case):
    view, method = _view(case), _method()
    logits = jnp.asarray(case[0]).at[..., 2].set(-1e4)

    def loss(logits):
        return method.losses(*logits, view, method.divisors(view)).distribution

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    assert np.isfinite(value)
    assert value > case[4][:, 2].mean() * -np.log(1e-7)  # a share of 1e-7 is the smallest that counts
    assert np.isfinite(gradient).all()


# The step


def _step_method(**settings):
    """Without class balance, as source_only; one program for all tests of the step."""
    return _method(**{"class_balance": False, "learning_rate": 1e-3, "weight_decay": 0.0} | settings)


def test_with_weights_of_zero_the_step_is_that_of_source_only():
    batch = steps.batch("cda")
    found, metrics = steps.run(_step_method(superpixel_weight=0.0, distribution_weight=0.0, weight_decay=1e-2), batch)
    settings = {"noise_std": 0.0, "learning_rate": 1e-3, "weight_decay": 1e-2}
    expected, _ = steps.run(builders.method("source_only", **settings), batch)
    assert steps.relative(found.params["network"], expected.params["student"]) < 1e-6
    assert metrics["train/loss_superpixels"] > 0
    assert metrics["train/loss"] == metrics["train/loss_segmentation"]


def _unlabelled(batch):
    return batch | {
        "source_label": np.full_like(batch["source_label"], 255),
        "target_superpixel_labels": np.full_like(batch["target_superpixel_labels"], 255),
    }


def test_each_loss_moves_the_whole_network_but_for_the_attention_that_none_uses():
    whole = steps.batch("cda")
    no_source = whole | {"source_label": np.full_like(whole["source_label"], 255)}
    no_superpixels = whole | {"target_superpixel_labels": np.full_like(whole["target_superpixel_labels"], 255)}
    kinds = {
        "segmentation": ({"distribution_weight": 0.0}, no_superpixels),
        "superpixels": ({"distribution_weight": 0.0}, no_source),
        "distribution": ({}, _unlabelled(whole)),
    }
    for name, (settings, batch) in kinds.items():
        state, metrics = steps.run(_step_method(**settings), batch)
        others = {f"train/loss_{other}" for other in kinds if other not in (name, "distribution")}
        assert all(metrics[other] == 0 for other in others)
        moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), state.params["network"], steps.params())
        still = [path for path, leaf in jax.tree_util.tree_leaves_with_path(moved) if not leaf]
        assert [jax.tree_util.keystr(path, simple=True, separator="/") for path in still] == [
            "head/attention/kernel"
        ], name
    state, _ = steps.run(_step_method(distribution_weight=0.0), _unlabelled(whole))
    assert steps.same_bits(state.params["network"], steps.params())


def test_the_distribution_loss_falls_as_the_prediction_moves_to_the_inferred_distribution():
    batch = _unlabelled(steps.batch("cda"))
    method = _step_method(distribution_weight=1.0)
    losses, state = [], None
    for _ in range(6):
        state, metrics = steps.run(method, batch, steps=2, state=state)
        losses.append(float(metrics["train/loss_distribution"]))
    target = batch["target_label_distribution"]
    entropy = -(target * np.log(target)).sum(1).mean()  # the least that the loss can be
    assert losses[-1] - entropy < 0.7 * (losses[0] - entropy)


def test_maps_are_mirrored_with_their_images():
    """The superpixel map is drawn into the image, so that they can be compared after mirroring."""
    batch = steps.batch("cda", examples=16)
    maps = batch["target_superpixels"]
    labels = np.tile(np.arange(maps.max() + 1, dtype=np.uint8) % CLASSES, (16, 1))
    batch |= {
        "target_image": np.repeat(maps[..., None], 3, -1),
        "target_superpixel_labels": np.pad(labels, ((0, 0), (0, 4))),
    }
    method = _method(random_flip=True)
    mapped = jax.pmap(method.augment, AXIS, in_axes=(0, None, None), devices=steps.DEVICES[:1])
    view = mapped({name: jnp.asarray(x[None]) for name, x in batch.items()}, jnp.int32(0), jax.random.key(0))
    image, landmarks = np.asarray(view.target.image[0, ..., 0]), np.asarray(view.landmarks[0])
    mirrored = [not np.array_equal(a, b) for a, b in zip(image, maps, strict=True)]
    assert 0 < sum(mirrored) < 16
    np.testing.assert_array_equal(landmarks, image % CLASSES)
