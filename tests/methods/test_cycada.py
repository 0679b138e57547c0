"""Tests of CyCADA: what each update moves, the accuracy rule, and the losses."""

import builders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from sean_jax.methods.cycada import CyCADA
from sean_jax.training.adversarial import add_to_window
from sean_jax.training.augmentation import TargetView
from sean_jax.training.parallel import AXIS

pytestmark = pytest.mark.xdist_group("cycada")  # the tests share compiled steps
ALWAYS, NEVER = 0.0, 100.0  # thresholds: an accuracy is above 0 and not above 100


def _method(**settings):
    """All methods of these tests but one differ in numbers only, so that they share a compiled step."""
    defaults = {"learning_rate": 1e-3, "weight_decay": 0.0, "accuracy_window": 1}
    return builders.method("cycada", **defaults | settings)


def _run(state=None, *, unlabelled: bool = False, target=None, **settings):
    """State and metrics after a step from a copy of ``state``, as NumPy arrays."""
    batch = steps.batch("cycada")
    if target is not None:
        batch = batch | {"target_image": target}
    if unlabelled:
        batch = batch | {"source_label": np.full_like(batch["source_label"], 255)}
    start = None if state is None else jax.tree.map(jnp.array, state)
    return jax.tree.map(np.asarray, steps.run(_method(**settings), batch, state=start))


def _constant_discriminator(bias: float):
    """A state whose discriminator gives every position the logits 0 (target) and ``bias`` (source)."""
    state = steps.init(_method())
    discriminator = jax.tree.map(jnp.zeros_like, state.params["discriminator"])
    discriminator["conv3"]["bias"] = jnp.array([0.0, bias])
    return state.replace(params=state.params | {"discriminator": discriminator})


@pytest.fixture(scope="module")
def moving():
    """A state whose optimisers have momentum."""
    return _run(accuracy_threshold=ALWAYS)[0]


def test_at_or_below_the_threshold_only_the_discriminator_moves(moving):
    after, metrics = _run(moving, accuracy_threshold=NEVER)
    for part in ("params", "opt_state"):
        assert steps.same_bits(getattr(after, part)["network"], getattr(moving, part)["network"])
        assert not steps.same_bits(getattr(after, part)["discriminator"], getattr(moving, part)["discriminator"])
    assert (metrics["train/update_norm"], metrics["train/steps_since_update"]) == (0, 1)
    assert _run(after, accuracy_threshold=NEVER)[1]["train/steps_since_update"] == 2
    assert _run(after, accuracy_threshold=ALWAYS)[1]["train/steps_since_update"] == 0


def test_updates_of_the_network_do_not_move_the_discriminator(moving):
    """The discriminator is the same to the bit, whether or not the network is updated after it."""
    updated, kept = (_run(moving, accuracy_threshold=threshold)[0] for threshold in (ALWAYS, NEVER))
    for part in ("params", "opt_state"):
        assert steps.same_bits(getattr(updated, part)["discriminator"], getattr(kept, part)["discriminator"])
        assert not steps.same_bits(getattr(updated, part)["network"], getattr(kept, part)["network"])


def test_the_threshold_itself_is_not_enough():
    """A constant discriminator recognises all of one domain and none of the other."""
    start = _constant_discriminator(1.0)
    for threshold, moved in ((50.0, False), (np.nextafter(np.float32(50), np.float32(0)), True)):
        after, metrics = _run(start, accuracy_threshold=threshold)
        assert metrics["train/domain_accuracy"] == 0.5
        assert steps.same_bits(after.params["network"], steps.params()) != moved


@pytest.mark.parametrize("threshold", [ALWAYS, NEVER])
def test_losses_of_a_constant_discriminator(threshold):
    """The discriminator's loss averages over both domains; the network's is that of calling the target source."""
    _, metrics = _run(_constant_discriminator(1.5), accuracy_threshold=threshold, learning_rate=0.0)
    is_source = 1 / (1 + np.exp(-1.5))
    expected = -0.5 * (np.log(is_source) + np.log(1 - is_source))
    np.testing.assert_allclose(metrics["train/loss_discriminator"], expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["train/loss_adversarial"], -np.log(is_source), rtol=1e-6)
    total = metrics["train/loss_segmentation"] + 0.1 * metrics["train/loss_adversarial"]
    np.testing.assert_allclose(metrics["train/loss"], total, rtol=1e-6)


def test_the_adversarial_and_the_supervised_update_share_moments_in_this_order():
    """With a learning rate of 0, Adam's first moment after a step shows both gradients and their weights."""

    def moment(**settings):
        after, _ = _run(learning_rate=0.0, beta1=0.75, accuracy_threshold=ALWAYS, **settings)
        return reached(after.opt_state["network"][1].mu)

    def reached(params):
        """Without the attention, on which the scores of this network do not depend."""
        return {"trunk": params["trunk"], "classifier": params["head"]["classifier"]}

    segmentation = jax.tree.map(lambda x: x / 0.25, moment(adversarial_weight=0.0))
    confusion = jax.tree.map(lambda x: x / (0.75 * 0.25), moment(adversarial_weight=1.0, unlabelled=True))
    weight, decay = np.float32(2), np.float32(0.01)
    expected = jax.tree.map(
        lambda g, s, p: 0.25 * (0.75 * (weight * g + decay * p) + s + decay * p),
        *(confusion, segmentation, reached(steps.params())),
    )
    found = moment(adversarial_weight=float(weight), weight_decay=float(decay))
    assert steps.relative(found, expected) < 1e-5
    of_adversarial, of_supervised = (np.linalg.norm(x["trunk"]["conv"]["kernel"]) for x in (confusion, segmentation))
    assert 0.1 < weight * of_adversarial / of_supervised < 10  # neither part is negligible


def test_the_discriminator_beats_chance_and_the_network_then_deceives_it():
    """First the discriminator learns on a frozen network, then the network, without source labels.

    Metrics are means over the last five steps, since dropout makes them noisy.
    """
    target = np.full_like(steps.batch("cycada")["target_image"], 255)
    common = {"target": target, "learning_rate": 3e-3, "noise_std": 0.0}
    state, metrics = None, []

    def mean(name):
        return np.mean([found[f"train/{name}"] for found in metrics[-5:]])

    for _ in range(15):
        state, found = _run(state, accuracy_threshold=NEVER, **common)
        metrics.append(found)
    assert mean("domain_accuracy") > 0.6
    assert mean("loss_adversarial") > 1
    common |= {"unlabelled": True, "discriminator_learning_rate_factor": 0.0, "adversarial_weight": 10.0}
    for _ in range(15):
        state, found = _run(state, accuracy_threshold=ALWAYS, **common)
        metrics.append(found)
    assert mean("domain_accuracy") < 0.55
    assert mean("loss_adversarial") < 0.3


def test_on_features_the_adversarial_update_does_not_reach_the_classifier():
    """In the first update, not even the weight decay does, as in PyTorch; in later ones it does."""
    method = _method(discriminator_input="features", weight_decay=0.1)
    assert isinstance(method, CyCADA)
    target = TargetView(jnp.asarray(steps.batch("cycada")["target_image"], jnp.float32)[None])
    update = jax.pmap(
        method.update_against_discriminator, AXIS, in_axes=(None, 0), out_axes=None, devices=steps.DEVICES[:1]
    )
    before = steps.init(method)
    for step, unmoved in ((0, {"attention", "classifier"}), (1, set())):
        after, _ = update(before.replace(step=jnp.int32(step)), target)
        for layer, params in after.params["network"]["head"].items():
            assert steps.same_bits(params, before.params["network"]["head"][layer]) == (layer in unmoved)
        assert not steps.same_bits(after.params["network"]["trunk"], before.params["network"]["trunk"])
        assert steps.same_bits(after.params["discriminator"], before.params["discriminator"])


def test_the_window_averages_over_the_latest_steps():
    values = np.random.default_rng(0).uniform(-60, 40, 250).astype(np.float32)
    margins = jnp.zeros(100)
    add = jax.jit(add_to_window)
    for step, value in enumerate(values):
        margins, mean = add(margins, jnp.int32(step), value)
        np.testing.assert_allclose(mean, values[max(0, step - 99) : step + 1].mean(), rtol=1e-4, atol=1e-4)
