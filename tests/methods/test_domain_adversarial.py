"""Tests of FCNs in the Wild and CCA: which parameters each update moves, and that each does what its loss says."""

import functools

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import test_all_methods

from sean_jax.training.constraints import ClassAreas
from sean_jax.training.parallel import AXIS

SETTINGS = {"discriminator_channels": 16, "noise_std": 0.0}
# Update → what it moves, in the network or beside it, and its optimiser. Weight decay moves the attention, which these
# methods do not use, in the segmentation update alone.
UPDATES = {
    "fcns_in_the_wild": {
        "update_segmentation": ({"trunk", "classifier", "attention"}, "segmentation"),
        "update_discriminator": ({"discriminator"}, "discriminator"),
        "update_confusion": ({"trunk"}, "confusion"),
        "update_constraints": ({"trunk", "classifier"}, "constraints"),
    },
    "cca": {
        "update_segmentation": ({"trunk", "classifier", "attention"}, "segmentation"),
        "update_discriminator": ({"discriminator"}, "discriminator"),
        "update_confusion": ({"trunk"}, "confusion"),
        "update_class_discriminators": ({"class_discriminators"}, "class_discriminators"),
        "update_class_confusion": ({"trunk"}, "class_confusion"),
    },
}


# The tests of a method share compiled programs, also with those of tests/methods/test_all_methods.py.
for_each_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in UPDATES]
)
of_cca, of_fcns = pytest.mark.xdist_group("cca"), pytest.mark.xdist_group("fcns_in_the_wild")


def _method(name: str):
    extra = {"class_alignment_start": 0.0} if name == "cca" else {}
    return builders.method(name, learning_rate=1e-3, weight_decay=1e-3, **SETTINGS, **extra)


def _view(method):
    """The batch on one device, without noise and dropout."""

    def augment(batch):
        view = method.augment(batch, jnp.int32(0), jax.random.key(0))
        nothing = view._replace(source_dropout=None, target_dropout=None)
        return nothing._replace(source=view.source._replace(dropout=None), target=view.target._replace(dropout=None))

    return jax.tree.map(lambda x: x[0], _mapped(augment, 0)(_sharded(steps.batch("sean"))))


def _sharded(tree):
    return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)


def _mapped(function, replicated: int):
    return jax.pmap(
        function, AXIS, in_axes=(*[None] * replicated, 0), out_axes=None if replicated else 0, devices=steps.DEVICES[:1]
    )


@functools.cache
def _state(name: str):
    """A state in the middle of the ramp, whose discriminators are strong enough to move features."""
    state = steps.init(_method(name)).replace(step=jnp.int32(500))
    louder = {k: v if k == "network" else jax.tree.map(lambda x: 300 * x, v) for k, v in state.params.items()}
    return state.replace(params=louder)


@functools.cache
def _every_update(name: str):
    """Computes each update of one state, and its metrics, in one compiled program."""
    method = _method(name)
    return _mapped(lambda state, view: {update: getattr(method, update)(state, view) for update in UPDATES[name]}, 1)


@functools.cache
def _updated(name: str):
    return _every_update(name)(_state(name), _sharded(_view(_method(name))))


def _moved(before, after) -> set[str]:
    """Names of the layers of the head, of the trunk, and of the other networks whose bits differ."""
    parts = {}
    for params, found in ((before.params, 0), (after.params, 1)):
        network = params["network"]
        named = {"trunk": network["trunk"], **network["head"], **{k: v for k, v in params.items() if k != "network"}}
        for key, value in named.items():
            parts.setdefault(key, [None, None])[found] = value
    return {name for name, (one, other) in parts.items() if not steps.same_bits(one, other)}


@for_each_method
def test_each_update_moves_only_its_own_parameters(name):
    before = _state(name)
    for update, (moved, optimizer) in UPDATES[name].items():
        after, metrics = _updated(name)[update]
        assert _moved(before, after) == moved, update
        for other, opt_state in before.opt_state.items():
            assert steps.same_bits(after.opt_state[other], opt_state) == (other != optimizer)
        assert all(np.isfinite(x) for x in metrics.values())


@for_each_method
def test_confusion_counteracts_the_discriminator(name):
    """After the step of the features, the loss that they minimise is smaller for the same discriminator."""
    method, state = _method(name), _state(name)
    view, kinds = _view(method), ["update_confusion"] + ["update_class_confusion"] * (name == "cca")
    metric = {"update_confusion": "train/loss_confusion", "update_class_confusion": "train/loss_class_confusion"}
    for kind in kinds:
        after, before = _updated(name)[kind]
        found = _every_update(name)(state.replace(params=after.params), _sharded(view))[kind][1]
        assert found[metric[kind]] < before[metric[kind]]


@of_cca
def test_the_discriminators_beat_chance_on_a_frozen_network():
    """The target images are darker, which features show, so both kinds of discriminators learn to tell them apart."""
    method = _method("cca")
    state, view = steps.init(method), _sharded(_view(method))

    def train(state, view):
        def one(state, _):
            state, found = method.update_discriminator(state, view)
            state, by_class = method.update_class_discriminators(state, view)
            return state, (found["train/domain_accuracy"], by_class["train/class_domain_accuracy"])

        return jax.lax.scan(one, state, length=200)

    trained, accuracies = _mapped(train, 1)(state, view)
    assert steps.same_bits(trained.params["network"], state.params["network"])
    for accuracy in accuracies:
        assert accuracy[0] < 0.65
        assert accuracy[-1] > 0.7


@of_cca
def test_losses_of_classes_ignore_cells_without_the_class():
    """Labels of one class alone: only its discriminator gets a gradient from the source."""
    method, view = _method("cca"), _view(_method("cca"))
    one_class = view._replace(source=view.source._replace(label=jnp.full_like(view.source.label, 2)))
    shares = method.cell_shares(_prediction(method, one_class), one_class)
    np.testing.assert_array_equal(np.asarray(shares.source).sum((0, 1, 2)) > 0, np.arange(4) == 2)
    np.testing.assert_allclose(np.asarray(shares.target).sum(-1), 1, rtol=1e-5)
    half = one_class.source.label.at[:, :8, :8].set(255).at[:, 8:16, :4].set(255)
    shares = method.cell_shares(_prediction(method, view), view._replace(source=view.source._replace(label=half)))
    np.testing.assert_allclose(shares.source[0, :2, :2, 2], [[0, 1], [0.5, 1]])


def _prediction(method, view):
    return jax.jit(method.predict_both)(_state("cca").params["network"], view)


@of_fcns
def test_the_gradient_of_the_constraints_is_p_minus_q_over_n_with_large_classes_scaled():
    method = builders.method("fcns_in_the_wild", constraint_stride=2)
    logits = 2 * jax.random.normal(jax.random.key(0), (2, 8, 12, 4))
    areas = ClassAreas(*(jnp.array(x) for x in ([0.2, 0.01, 0.0, 0.1], [0.5, 0.1, 0.1, 0.1], [0.6, 0.2, 0.3, 0.2])))
    (_, divergence), gradient = jax.jit(jax.value_and_grad(lambda x: method.constraint_loss(x, areas), has_aux=True))(
        logits
    )
    cells = logits[:, ::2, ::2].reshape(2, 24, 4)
    q = jax.jit(jax.vmap(lambda x: method.labels(x, areas)))(cells)
    expected = (jax.nn.softmax(cells) - q) / 24 * jnp.array([0.1, 1, 1, 1]).reshape(1, 1, 4)
    np.testing.assert_allclose(gradient[:, ::2, ::2].reshape(2, 24, 4), expected, atol=1e-7)
    assert np.abs(expected).max() > 1e-4
    assert not np.asarray(gradient).reshape(2, 4, 2, 6, 2, 4)[:, :, 1].any()
    expected = (q * (jnp.log(q) - jax.nn.log_softmax(cells))).sum() / 24
    np.testing.assert_allclose(divergence, expected, rtol=1e-4)


@of_fcns
def test_source_statistics_bound_the_areas():
    method = builders.method("fcns_in_the_wild")
    shares = np.array([[0.5, 0.2, 0, 0.3], [0.6, 0, 0, 0.4]], np.float32)
    areas = method.with_source_shares(steps.init(method), jnp.asarray(shares)).memory["areas"]
    np.testing.assert_allclose(areas.low, [0.51, 0.2, 0, 0.31], rtol=1e-6)
    np.testing.assert_allclose(areas.mean, [0.55, 0.2, 0, 0.35], rtol=1e-6)
    np.testing.assert_allclose(areas.high, [0.59, 0.2, 0, 0.39], rtol=1e-6)


@of_cca
@pytest.mark.parametrize("start", [0, 5])
def test_class_alignment_starts_at_its_step(start):
    method = test_all_methods._method("cca", class_alignment_start=5.0)
    before = steps.init(method).replace(step=jnp.int32(start))
    kept = jax.tree.map(np.asarray, before)
    after, metrics = steps.run(method, test_all_methods._batch("cca"), state=before)
    for name in ("class_discriminators", "class_confusion"):
        assert steps.same_bits(after.opt_state[name], kept.opt_state[name]) == (start == 0)
    assert (metrics["train/loss_class_discriminators"] == 0) == (start == 0)


@for_each_method
def test_a_tiny_run_learns_the_source(name):
    method = test_all_methods._method(name)
    batch = test_all_methods._batch(name)
    state, first = steps.run(method, batch)
    state, last = steps.run(method, batch, steps=12, state=state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, last)))
    assert last["train/loss"] < first["train/loss"]
