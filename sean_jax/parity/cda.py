"""CDA: its losses and their gradients on given logits."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax.config import from_flat_settings
from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.methods.cda import CDA, View
from sean_jax.models import DeepLab
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case, Check, check, check_seeds
from sean_jax.training.augmentation import SourceView, TargetView
from sean_jax.training.target_properties import (
    area_weights,
    class_balance,
    count_ids,
    distribution_losses,
    soft_label_distribution,
)

BOUND = 3e-5
ACCEPTED_IDS = (*range(13), 15, 17, 19, 21)  # of SYNTHIA; the authors' code has one output for each id of 22


def compare(case: Case) -> Iterator[Check]:
    """Runs the case and yields one check for each stored quantity."""
    logits = seeded_logits(case)
    check_seeds(case, {"logits": logits})
    view = view_of(case)
    labels = jnp.concatenate([view.source.label, view.landmarks])
    classes, source = case.integer("num_classes"), len(view.source.label)
    yield check(case, "one_hot_counts", count_ids(labels, classes), BOUND)
    yield check(case, "class_balance", class_balance(labels, classes), BOUND)
    weights = jnp.concatenate([jnp.ones(view.source.label.shape), view.area_weights])
    yield check(case, "area_weight", weights, BOUND)
    yield check(case, "target_distribution", np.pad(view.distribution, ((source, 0), (0, 0))), BOUND)
    for exponent in sorted(int(name.removeprefix("total_loss_K")) for name in case if name.startswith("total_loss_K")):
        yield from _compare_losses(case, logits, view, exponent)


def seeded_logits(case: Case) -> np.ndarray:
    """Float32 ``[2b, classes, h, w]``, source first; some in each image's corner are beyond the clip."""
    shape = (2 * case.integer("batch_size"), *(case.integer(name) for name in ("num_classes", "height", "width")))
    logits = seeded.normal(case.integer("seed"), "cda_logits", shape, 3.0)
    logits[:, :, 0, 0] *= 15
    return logits


def view_of(case: Case) -> View:
    """The labels and properties of the case, as the method's step sees them. It has no images."""
    labels, landmarks = (jnp.asarray(_accepted(case[name])) for name in ("source_label", "landmarks"))
    superpixels = jnp.asarray(case["superpixels"], jnp.int32)
    presence = case["presence"][:, : case.integer("num_classes")]
    no_images = jnp.zeros((*labels.shape, 3), jnp.float32)
    return View(
        SourceView(no_images, labels),
        TargetView(no_images),
        landmarks,
        area_weights(superpixels, int(superpixels.max()) + 1),
        jnp.asarray(presence / presence.sum(1, keepdims=True), jnp.float32),
    )


def method_of(case: Case, exponent: float) -> CDA:
    """CDA with the ``published`` preset and the case's settings."""
    settings = {
        **CDA.PRESETS["published"],
        "method": "cda",
        "distribution_exponent": float(exponent),
        "distribution_weight": case.number("layout_weight"),
        "logit_limit": case.number("clip"),
    }
    config = from_flat_settings(settings)
    network = DeepLab(settings=config.network_settings, num_classes=case.integer("num_classes"))
    return CDA(settings=config.method_settings, optimizer=config.optimizer_settings, steps=1, network=network)


def _compare_losses(case: Case, logits: np.ndarray, view: View, exponent: int) -> Iterator[Check]:
    method, source = method_of(case, exponent), len(view.source.label)

    def losses(logits: jax.Array) -> dict[str, jax.Array]:
        logits = logits.transpose(0, 2, 3, 1)
        found = method.losses(logits[:source], logits[source:], view, method.divisors(view))
        return {
            "pixel": found.segmentation + method.settings.superpixel_weight * found.superpixels,
            "layout": found.distribution,
            "total": method.total(found),
        }

    found, gradients = jax.device_get(jax.jit(lambda x: (losses(x), jax.jacrev(losses)(x)))(logits))
    for name, value in found.items():
        suffix = "" if name == "pixel" else f"_K{exponent}"
        yield check(case, f"{name}_loss{suffix}", value, BOUND)
        yield check(case, f"{name}_gradient{suffix}", gradients[name], BOUND)
    yield from _compare_distributions(case, method, logits, view, exponent)


def _compare_distributions(case: Case, method: CDA, logits: np.ndarray, view: View, exponent: int) -> Iterator[Check]:
    """Compares what the distribution loss is made of, image by image."""
    limit, source = method.settings.logit_limit, len(view.source.label)
    clipped = jnp.clip(logits.transpose(0, 2, 3, 1), -limit, limit)
    found: Any = soft_label_distribution(clipped, method.settings.distribution_exponent)
    yield check(case, f"distribution_K{exponent}", found, BOUND)
    target = jnp.pad(view.distribution, ((source, 0), (0, 0)))
    yield check(case, f"layout_by_image_K{exponent}", distribution_losses(found, target), BOUND)


def _accepted(ids: np.ndarray) -> np.ndarray:
    return np.where(np.isin(ids, ACCEPTED_IDS), ids, IGNORE_LABEL)
