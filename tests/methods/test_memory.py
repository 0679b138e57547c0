"""What saves memory computes the same step: gradient accumulation and rematerialisation."""

import jax
import numpy as np
import pytest

from sean_jax.config import Config
from sean_jax.errors import UserError
from sean_jax.methods.sean import SEAN
from sean_jax.methods.source_only import SourceOnly
from sean_jax.models.deeplab import Segmenter
from sean_jax.training.parallel import devices_for, pmap_step

NETWORK = {"num_classes": 4, "width_multiplier": 1 / 32}


def _batch() -> dict[str, np.ndarray]:
    """Four examples that differ in everything: also in the number of labelled pixels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (4, 32, 32)).astype(np.uint8)
    for i in range(4):
        labels[i, : 6 * i] = 255
    images = rng.integers(0, 256, (2, 4, 4, 4, 3)).repeat(8, 2).repeat(8, 3).astype(np.uint8)
    images[1] //= np.array([1, 2, 3, 4], np.uint8)[:, None, None, None]
    return {"source_image": images[0], "source_label": labels, "target_image": images[1]}


def _one_step(method_class, devices: int, *, remat: bool = False, **settings):
    """Adam's first moments after one step, which are a tenth of the gradients, and the losses."""
    network = Segmenter(**NETWORK, remat=remat)
    params = network.init_params(jax.random.key(0))
    if method_class is SEAN:  # about half of all positions pass, in each example another number of them
        attention = network.predict(params, _batch()["target_image"]).attention
        settings = settings | {"attention_threshold": float(np.median(attention))}
    values = {"steps": 10, "batch_size": 4, "precision": "float32", "weight_decay": 0.0, "random_flip": True}
    method = method_class(Config(**values | {"remat": remat} | settings), network)
    batch = _batch() if method.reads_target else {k: x for k, x in _batch().items() if k != "target_image"}
    state, metrics = pmap_step(method.step, jax.local_devices()[:devices])(
        method.init(params), batch, jax.random.key(3)
    )
    return state.opt_state[1].mu, {name: float(x) for name, x in metrics.items()}


def _relative(a, b) -> float:
    pairs = [(np.float64(x), np.float64(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return (sum(((x - y) ** 2).sum() for x, y in pairs) / sum((y**2).sum() for _, y in pairs)) ** 0.5


SEAN_SETTINGS = {"consistency_weight": 30.0, "consistency_reduction": "kept_positions"}


@pytest.mark.parametrize(
    ("method_class", "settings", "devices", "parts"),
    [
        (SEAN, SEAN_SETTINGS, 1, 4),
        (SEAN, SEAN_SETTINGS | {"consistency_reduction": "all_positions", "consistency_resolution": "input"}, 2, 2),
        (SourceOnly, {}, 1, 2),
    ],
)
def test_accumulated_gradients_are_those_of_the_whole_batch(method_class, settings, devices, parts):
    whole, losses = _one_step(method_class, 1, **settings)
    found, losses_in_parts = _one_step(method_class, devices, accumulate_steps=parts, **settings)
    assert _relative(found, whole) < 1e-5
    assert losses_in_parts == pytest.approx(losses, rel=1e-5)
    if method_class is SEAN:
        assert 0.05 < losses["train/kept_pixels"] < 0.95


def test_rematerialisation_changes_no_gradient_and_stores_less():
    whole, losses = _one_step(SEAN, 1, **SEAN_SETTINGS)
    found, losses_found = _one_step(SEAN, 1, remat=True, **SEAN_SETTINGS)
    assert _relative(found, whole) < 1e-5
    assert losses_found == pytest.approx(losses, rel=1e-5)

    def stored(remat: bool) -> int:
        """Bytes that the forward pass hands to the backward pass."""
        network = Segmenter(**NETWORK, remat=remat)
        images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.uint8)
        pull_back = jax.eval_shape(
            lambda params, images: jax.vjp(lambda p: network.predict(p, images), params)[1],
            network.abstract_params(),
            images,
        )
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull_back))

    assert stored(True) < 0.6 * stored(False)


def test_parts_divide_what_each_device_takes():
    assert [len(devices_for(8, parts)) for parts in (1, 2, 4, 8)] == [4, 4, 2, 1]
    with pytest.raises(UserError, match=r"choose a multiple of 3"):
        devices_for(4, 3)
