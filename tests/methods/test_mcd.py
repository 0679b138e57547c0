"""Tests of MCD: what each of its updates moves, and that a step is the authors' sequence of SGD updates."""

import functools

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
from steps import CLASSES, NETWORK, batch, params, relative, same_bits

from sean_jax.methods.mcd import HEADS, Views
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


def _mapped(function):
    mapped = jax.pmap(function, AXIS, in_axes=(None, None, 0), out_axes=None, devices=steps.DEVICES[:1])
    return lambda method, state, views: mapped(method, state, jax.tree.map(lambda x: x[None], views))


# Shared, so that each is compiled once.
UPDATE_ALL = _mapped(lambda method, state, views: method.update_all(state, views.source))
UPDATE_HEADS = _mapped(lambda method, state, views: method.update_heads(state, views))
UPDATE_TRUNK = _mapped(lambda method, state, views: method.update_trunk(state, views.target, 0))
UPDATE = _mapped(lambda method, state, views: method.update(state, views))


@functools.cache
def _sequence():
    """States after A, B, C and C; L_s before A; d before B."""
    method, views = _method(), _views()
    after_a, metrics = UPDATE_ALL(method, steps.init(method), views)
    after_b, discrepancy = UPDATE_HEADS(method, after_a, views)
    after_c, _ = UPDATE_TRUNK(method, after_b, views)
    after_cc, _ = UPDATE_TRUNK(method, after_c, views)
    return (after_a, after_b, after_c, after_cc), metrics["train/loss"], discrepancy


@jax.jit
def _losses(networks, views):
    """L_s and d as the paper states them."""
    network = NETWORK
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
    state, _ = UPDATE(_method(), steps.init(_method()), views)
    assert relative(jax.tree.map(lambda a, b: np.float64(a) - b, state.params, start), expected) < 1e-4


def test_losses_are_means_over_the_global_batch():
    start = steps.init(_method()).params
    _, loss, _ = _sequence()
    np.testing.assert_allclose(loss, _losses(start, _views())[0], rtol=1e-5)
    states, _, discrepancy = _sequence()
    np.testing.assert_allclose(discrepancy, _losses(states[0].params, _views())[1], rtol=1e-5)


def test_the_discrepancy_rises_in_b_and_falls_in_c():
    """Without labels, momentum and weight decay, which pull the heads elsewhere too."""
    method, views = _method(momentum=0.0, weight_decay=0.0, learning_rate=1e-2), _views()
    views = views._replace(source=views.source._replace(label=jnp.full_like(views.source.label, 255)))
    state, metrics = UPDATE(method, steps.init(method), views)
    names = ("before_heads", "after_heads", "last")
    before, after, last = (float(metrics[f"train/discrepancy_{name}"]) for name in names)
    assert after > before
    assert after > last > float(_losses(state.params, views)[1])


def test_in_one_step_heads_and_trunk_follow_opposite_gradients_of_the_discrepancy():
    method = _method(one_step=True, weight_decay=0.0)
    start = steps.init(method).params
    source, discrepancy = _gradients(start, _views())
    update = _mapped(lambda method, state, views: method.update_reversed(state, views))
    state, metrics = update(method, steps.init(method), _views())
    gradients = {name: x for part in state.opt_state.values() for name, x in part[1].trace.items()}
    for name in ("trunk", *HEADS):
        sign = 1 if name == "trunk" else -1
        expected = jax.tree.map(lambda s, d, sign=sign: s + sign * d, source[name], discrepancy[name])
        assert relative(gradients[name], expected) < 1e-5
    loss, d = _losses(start, _views())
    np.testing.assert_allclose([metrics["train/loss"], metrics["train/discrepancy"]], [loss, d], rtol=1e-5)


def test_the_heads_start_equal_in_fc6_and_fc7_alone():
    method = builders.deeplab_method("mcd")
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), method.network.abstract_params())
    one, two = (method.init(jax.random.key(1), params).params[head] for head in HEADS)
    assert same_bits(one, params["head"])
    for layer in one:
        assert same_bits(one[layer], two[layer]) == (layer in ("fc6", "fc7"))


def test_dropout_differs_by_head_and_by_pass():
    """Equal heads with dropout disagree; without they do not."""
    networks, features = dict.fromkeys(HEADS, params()["head"]), jnp.ones((1, 4, 4, 8))
    keys = jax.random.split(jax.random.key(0), 1)
    first, second = _method().head_logits(networks, features, keys, 0)
    later, _ = _method().head_logits(networks, features, keys, 1)
    assert jnp.abs(first - second).max() > 1e-3
    assert jnp.abs(first - later).max() > 1e-3
    np.testing.assert_array_equal(*_method().head_logits(networks, features, None, 0))
