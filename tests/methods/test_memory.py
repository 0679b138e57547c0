"""Tests that gradient accumulation and rematerialisation compute the same step with less memory."""

import functools

import builders
import jax
import numpy as np
import pytest
import steps

from sean_jax.errors import UserError
from sean_jax.models import Network, Params
from sean_jax.training.parallel import devices_for

pytestmark = pytest.mark.xdist_group("memory")  # the tests share compiled programs

SETTINGS = {"consistency_weight": 30.0, "consistency_reduction": "kept_positions", "weight_decay": 0.0}


def _one_step(*, devices: int = 1, **settings):
    """Adam's first moments after one step, which are a tenth of the gradients, and the losses.

    The mask ratio is about one half and differs from example to example.
    """
    attention = jax.jit(steps.NETWORK.predict)(steps.params(), steps.batch()["target_image"]).maps["attention"]
    threshold = float(np.median(attention))
    method = builders.method("sean", **{"random_flip": True, "attention_threshold": threshold} | SETTINGS | settings)
    state, metrics = steps.run(method, steps.batch(), devices=devices)
    return state.opt_state["student"][1].mu, {name: float(x) for name, x in metrics.items()}


@pytest.mark.parametrize(
    ("settings", "devices", "parts"),
    [({}, 1, 4), ({"consistency_reduction": "all_positions", "consistency_resolution": "input"}, 2, 2)],
)
def test_accumulated_gradients_equal_those_of_the_full_batch(settings, devices, parts):
    whole, losses = _one_step(**settings)
    found, losses_in_parts = _one_step(devices=devices, accumulate_steps=parts, **settings)
    assert steps.relative(found, whole) < 1e-5
    assert losses_in_parts == pytest.approx(losses, rel=1e-5)
    assert 0.05 < losses["train/kept_pixels"] < 0.95


def test_rematerialisation_keeps_gradients_and_stores_less():
    networks = [builders.deeplab_method("sean", remat=remat).network for remat in (False, True)]
    params, images = networks[0].init_params(jax.random.key(0)), steps.batch()["target_image"]

    def forward(network: Network, params: Params, images: jax.Array):
        prediction = network.predict(params, images)
        return prediction.logits, prediction.maps

    def loss(network: Network, params: Params, images: jax.Array) -> jax.Array:
        return sum((x**2).sum() for x in jax.tree.leaves(forward(network, params, images)))

    whole, found = (
        jax.jit(jax.value_and_grad(functools.partial(loss, network)))(params, images) for network in networks
    )
    assert found[0] == pytest.approx(whole[0], rel=1e-5)
    assert steps.relative(found[1], whole[1]) < 1e-5

    def stored(network: Network) -> int:
        """Bytes that the forward pass stores for the backward pass."""
        images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.uint8)
        pull_back = jax.eval_shape(
            lambda params, images: jax.vjp(lambda p: forward(network, p, images), params)[1], params, images
        )
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull_back))

    assert stored(networks[1]) < 0.6 * stored(networks[0])


def test_accumulation_divides_the_batch_of_each_device():
    assert [len(devices_for(8, parts)) for parts in (1, 2, 4, 8)] == [4, 4, 2, 1]
    with pytest.raises(UserError, match=r"choose a multiple of 3"):
        devices_for(4, 3)
