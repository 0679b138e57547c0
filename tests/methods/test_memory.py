"""Tests that gradient accumulation and rematerialisation compute the same step with less memory."""

import builders
import jax
import numpy as np
import pytest
import steps

from sean_jax.errors import UserError
from sean_jax.training.parallel import devices_for

SETTINGS = {"consistency_weight": 30.0, "consistency_reduction": "kept_positions", "weight_decay": 0.0}


def _one_step(devices: int = 1, **settings):
    """Adam's first moments after one step, which are a tenth of the gradients, and the losses.

    The mask ratio is about one half and differs from example to example.
    """
    network = builders.deeplab(**{"remat": settings.pop("remat", False)})
    predict = jax.jit(network.predict)
    threshold = float(np.median(predict(steps.params(), steps.batch()["target_image"]).maps["attention"]))
    method = builders.method("sean", **{"random_flip": True, "attention_threshold": threshold} | SETTINGS | settings)
    state, metrics = steps.run(method.replace(network=network), steps.batch(), devices=devices)
    return state.opt_state["student"][1].mu, {name: float(x) for name, x in metrics.items()}


@pytest.mark.parametrize(
    ("settings", "devices", "parts"),
    [({}, 1, 4), ({"consistency_reduction": "all_positions", "consistency_resolution": "input"}, 2, 2)],
)
def test_accumulated_gradients_equal_those_of_the_full_batch(settings, devices, parts):
    whole, losses = _one_step(**settings)
    found, losses_in_parts = _one_step(devices, accumulate_steps=parts, **settings)
    assert steps.relative(found, whole) < 1e-5
    assert losses_in_parts == pytest.approx(losses, rel=1e-5)
    assert 0.05 < losses["train/kept_pixels"] < 0.95


def test_rematerialisation_keeps_gradients_and_stores_less():
    whole, losses = _one_step()
    found, losses_found = _one_step(remat=True)
    assert steps.relative(found, whole) < 1e-5
    assert losses_found == pytest.approx(losses, rel=1e-5)

    def stored(remat: bool) -> int:
        """Bytes that the forward pass stores for the backward pass."""
        network = builders.deeplab(remat=remat)
        images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.uint8)
        pull_back = jax.eval_shape(
            lambda params, images: jax.vjp(lambda p: network.predict(p, images).logits, params)[1],
            network.abstract_params(),
            images,
        )
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull_back))

    assert stored(True) < 0.6 * stored(False)


def test_accumulation_divides_the_batch_of_each_device():
    assert [len(devices_for(8, parts)) for parts in (1, 2, 4, 8)] == [4, 4, 2, 1]
    with pytest.raises(UserError, match=r"choose a multiple of 3"):
        devices_for(4, 3)
