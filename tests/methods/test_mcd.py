"""Tests of MCD: what each of its updates moves, and that a step is the authors' sequence of SGD updates."""

import functools

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
from steps import CLASSES, batch, params, relative, same_bits

from sean_jax.methods.mcd import HEADS, Views
from sean_jax.models import NETWORKS
from sean_jax.training.augmentation import SourceView, TargetView
from sean_jax.training.parallel import AXIS

pytestmark = pytest.mark.xdist_group("mcd")  # the tests share compiled functions

SGD = {"optimizer": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 0.02, "noise_std": 0.0}
RATE, MOMENTUM, DECAY = np.float32(1e-3), np.float32(0.9), np.float32(0.02)


def _method(**settings):
    return builders.method("mcd", **SGD | {"num_k": 2} | settings)


def _views() -> Views:
    raw = batch("mcd")
    images = (jnp.asarray(raw[name], jnp.float32) for name in ("source_image", "target_image"))
    return Views(SourceView(next(images), jnp.asarray(raw["source_label"])), TargetView(next(images)))


@functools.cache
def _sequence():
    """States after A, B, C and C; L_s before A; d before B, C and C."""
    method, views = _method(), _views()
    start = steps.init(method)
    after_a, metrics = _mapped(lambda method, state, views: method.update_all(state, views.source))(
        method, start, views
    )
    after_b, before = _mapped(lambda method, state, views: method.update_heads(state, views))(method, after_a, views)
    update_trunk = _mapped(lambda method, state, views: method.update_trunk(state, views.target, 0))
    after_c, after = update_trunk(method, after_b, views)
    after_cc, last = update_trunk(method, after_c, views)
    return (after_a, after_b, after_c, after_cc), metrics["train/loss"], (before, after, last)


def _mapped(function):
    mapped = jax.pmap(function, AXIS, in_axes=(None, None, 0), out_axes=None, devices=steps.DEVICES[:1])
    return lambda method, state, views: mapped(method, state, jax.tree.map(lambda x: x[None], views))


@jax.jit
def _losses(networks, views):
    """L_s and d as the paper states them."""
    network = builders.deeplab(CLASSES)
    labels = jnp.asarray(views.source.label, jnp.int32)
    source, target = [], []
    for head in HEADS:
        of_head = {"trunk": networks["trunk"], "head": networks[head]}
        logits = network.predict(of_head, views.source.image).logits
        log_probs = jax.nn.log_softmax(jax.image.resize(logits, (*labels.shape, CLASSES), "bilinear"))
        picked = jnp.take_along_axis(log_probs, jnp.where(labels == 255, 0, labels)[..., None], -1)[..., 0]
        source.append(-jnp.where(labels == 255, 0, picked).sum() / (labels != 255).sum().astype(jnp.float32))
        target.append(jax.nn.softmax(network.predict(of_head, views.target.image).logits))
    return source[0] + source[1], jnp.abs(target[0] - target[1]).mean()


@jax.jit
def _gradients(networks, views):
    """∇L_s and ∇d."""
    return tuple(jax.grad(lambda x, i=i: _losses(x, views)[i])(networks) for i in (0, 1))


def test_each_update_moves_its_networks_alone():
    start = steps.init(_method())
    states, _, _ = _sequence()
    moved = {"A": {"trunk", *HEADS}, "B": set(HEADS), "C": {"trunk"}}
    for name, before, after in zip("ABC", (start, *states), states[:3], strict=False):
        for network in ("trunk", *HEADS):
            same = same_bits(before.params[network], after.params[network])
            assert same == (network not in moved[name]), (name, network)
        for optimizer, networks in (("trunk", {"trunk"}), ("heads", set(HEADS))):
            same = same_bits(before.opt_state[optimizer], after.opt_state[optimizer])
            assert same == (not networks & moved[name]), (name, optimizer)


def test_a_step_is_the_authors_sequence_of_sgd_updates():
    """A, B, C, C with PyTorch's SGD in NumPy: one momentum for each optimiser, weight decay in every update."""
    views, found = _views(), jax.tree.map(np.asarray, steps.init(_method()).params)
    momentum = jax.tree.map(np.zeros_like, found)

    def sgd(gradients, networks):
        for name in networks:
            decayed = jax.tree.map(lambda g, p: np.asarray(g) + DECAY * p, gradients[name], found[name])
            momentum[name] = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum[name], decayed)
            found[name] = jax.tree.map(lambda p, m: p - RATE * m, found[name], momentum[name])

    sgd(_gradients(found, views)[0], ("trunk", *HEADS))
    source, discrepancy = _gradients(found, views)
    sgd(jax.tree.map(lambda s, d: s - d, source, discrepancy), HEADS)
    for _ in range(2):
        sgd(_gradients(found, views)[1], ("trunk",))
    states, _, _ = _sequence()
    start = steps.init(_method()).params
    moved, expected = (jax.tree.map(lambda a, b: np.float64(a) - b, x, start) for x in (states[-1].params, found))
    assert relative(moved, expected) < 1e-4
    state, _ = steps.run(_method(), batch("mcd"))  # draws no noise
    assert relative(jax.tree.map(lambda a, b: np.float64(a) - b, state.params, start), expected) < 1e-4
    assert state.step == 1


def test_losses_are_means_over_the_global_batch():
    start = steps.init(_method()).params
    _, loss, _ = _sequence()
    np.testing.assert_allclose(loss, _losses(start, _views())[0], rtol=1e-5)
    states, _, (before, _, _) = _sequence()
    np.testing.assert_allclose(before, _losses(states[0].params, _views())[1], rtol=1e-5)


def test_the_discrepancy_rises_in_b_and_falls_in_c():
    states, _, _ = _sequence()
    after_a, after_b, *after_c = (float(_losses(state.params, _views())[1]) for state in states)
    assert after_b > after_a
    assert after_b > after_c[0] > after_c[1]
    _, metrics = steps.run(_method(), batch("mcd"))
    names = ("before_heads", "after_heads", "last")
    found = [metrics[f"train/discrepancy_{name}"] for name in names]
    np.testing.assert_allclose(found, [after_a, after_b, after_c[0]], rtol=1e-4)


def test_in_one_step_heads_and_trunk_follow_opposite_gradients_of_the_discrepancy():
    method = _method(one_step=True, weight_decay=0.0)
    start = steps.init(method).params
    source, discrepancy = _gradients(start, _views())
    state, metrics = steps.run(method, batch("mcd"))
    gradients = {name: x for part in state.opt_state.values() for name, x in part[1].trace.items()}
    for name in ("trunk", *HEADS):
        sign = 1 if name == "trunk" else -1
        expected = jax.tree.map(lambda s, d, sign=sign: s + sign * d, source[name], discrepancy[name])
        assert relative(gradients[name], expected) < 1e-5
    loss, d = _losses(start, _views())
    np.testing.assert_allclose([metrics["train/loss"], metrics["train/discrepancy"]], [loss, d], rtol=1e-5)


def test_the_heads_start_equal_in_fc6_and_fc7_alone():
    state = steps.init(_method())
    one, two = (state.params[head] for head in HEADS)
    assert same_bits(one, params()["head"])
    for layer in one:
        assert same_bits(one[layer], two[layer]) == (layer in ("fc6", "fc7"))


def test_dropout_differs_by_head_and_by_pass():
    """Equal heads with dropout disagree; without they do not."""
    network = NETWORKS["fcn8s"](settings=NETWORKS["fcn8s"].Settings(width_multiplier=1 / 64), num_classes=2)
    method = _method().replace(network=network)
    shapes = network.abstract_params()
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.uint8)
    pools = jax.tree.map(
        lambda x: np.ones(x.shape, np.float32), jax.eval_shape(network.features, network.abstract_params(), image)
    )
    head = jax.tree.map(lambda x: np.random.default_rng(0).uniform(0, 1, x.shape).astype(np.float32), shapes["head"])
    networks, keys = dict.fromkeys(HEADS, head), jax.random.split(jax.random.key(0), 1)
    first, second, later = *method._logits(networks, pools, keys, 0), method._logits(networks, pools, keys, 1)[0]
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - later).max() > 1e-3
    np.testing.assert_array_equal(*method._logits(networks, pools, None, 0))
