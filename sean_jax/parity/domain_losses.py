"""FCNs in the Wild and CCA: losses on given domain logits, schedules, TensorFlow's Adam, and constrained labels."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax.data.statistics import shares_of_label
from sean_jax.methods.cca import CCA
from sean_jax.methods.domain_adversarial import Alignment, half_of_both
from sean_jax.methods.fcns_in_the_wild import FCNsInTheWild
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case, Check, check, check_seeds
from sean_jax.parity.domain import ACCURACY, published_method
from sean_jax.training import optimizers
from sean_jax.training.adversarial import (
    Domains,
    adaptation_factor,
    cell_means,
    class_weights,
    domain_losses,
    label_shares,
    without_moving_classes,
)
from sean_jax.training.constraints import ClassAreas, class_areas, constrained_labels, present_classes

LOSSES = 3e-5
TABLES = 1e-6
TENSORFLOW_ADAM = 1e-4
CONSTRAINTS = 1e-4

VOID = {"published": "class_0", "void_ignored": "ignored"}
FACTORS = {"fcnwild": (FCNsInTheWild, "fcns_in_the_wild"), "cca": (CCA, "cca")}


def compare_losses(case: Case) -> Iterator[Check]:
    """Both alignments' losses and gradients with respect to domain logits; the static prior; schedules; Adam."""
    seed, classes = case.integer("seed"), case.integer("num_classes")
    batch, height, width = case.integer("batch_size"), case.integer("height"), case.integer("width")
    cells = (2 * batch, height, width, 2)
    drawn = {
        "domain_logits": seeded.normal(seed, "domain_logits", cells, 1.5),
        "class_domain_logits": seeded.normal(seed, "class_domain_logits", (classes, *cells), 1.5),
        "target_logits": seeded.normal(seed, "target_logits", (batch, 8 * height, 8 * width, classes), 2.0),
        "static_logits": seeded.normal(seed, "static_logits", (1, *case["static_region"].shape[1:], 19), 2.0),
    }
    check_seeds(case, drawn)

    def alignment(logits: jax.Array, weights: Domains | None = None) -> Alignment:
        """Means over cells, or with weights over images and summed over classes."""
        count = logits[..., 0].size if weights is None else 2 * batch
        losses = domain_losses(Domains(*jnp.split(logits, 2, axis=logits.ndim - 4)), weights)
        return Alignment(*(x / count for x in losses))

    logits = jnp.asarray(drawn["domain_logits"])
    found = alignment(logits)
    for name, select in (("L_D", lambda x: x.loss), ("L_Dinv", lambda x: x.inverse), ("confusion", half_of_both)):
        yield check(case, name, select(found), LOSSES)
        gradient = jax.grad(lambda x, select=select: select(alignment(x)))(logits)
        yield check(case, f"{name}_gradient", gradient, LOSSES)
    yield check(case, "domain_accuracy", found.accuracy, ACCURACY)

    logits = jnp.asarray(drawn["class_domain_logits"])
    target = cell_means(jax.nn.softmax(jnp.asarray(drawn["target_logits"])), (height, width))
    for variant, void in VOID.items():
        shares = Domains(label_shares(jnp.asarray(case["source_label"]), classes, (height, width), void), target)
        yield check(case, f"class_weights_{variant}", jnp.moveaxis(jnp.concatenate(shares), -1, 0), LOSSES)
        weights = Domains(*map(class_weights, shares))
        by_class = jax.vmap(alignment)(logits[:, None], jax.tree.map(lambda x: x[:, None], weights))
        yield check(case, f"class_L_{variant}", by_class.loss, LOSSES)
        yield check(case, f"class_Linv_{variant}", by_class.inverse, LOSSES)
        yield check(case, f"class_accuracy_{variant}", by_class.accuracy, ACCURACY)
        total = alignment(logits, weights)
        yield check(case, f"class_L_total_{variant}", total.loss, LOSSES)
        yield check(case, f"class_Linv_total_{variant}", total.inverse, LOSSES)
        yield check(case, f"class_confusion_{variant}", half_of_both(total), LOSSES)
        for name, select in (("class_L", lambda x: x.loss), ("class_confusion", half_of_both)):
            gradient = jax.grad(lambda x, select=select, w=weights: select(alignment(x, w)))(logits)
            yield check(case, f"{name}_gradient_{variant}", gradient, LOSSES)

    probs, region = jax.nn.softmax(jnp.asarray(drawn["static_logits"])), jnp.asarray(case["static_region"])
    cells = region.shape[1] // 8, region.shape[2] // 8
    yield check(case, "static_published_weights", cell_means(probs, cells), LOSSES)
    yield check(case, "static_intended_weights", cell_means(without_moving_classes(probs, region), cells), LOSSES)
    yield from _compare_schedules(case)
    yield from _compare_adam(case)


def _compare_schedules(case: Case) -> Iterator[Check]:
    steps = jnp.asarray(case["schedule_steps"], jnp.float32)
    for who, (cls, name) in FACTORS.items():
        s = published_method(cls, name, 19).settings
        factor = s.confusion_learning_rate_factor * adaptation_factor(steps, s.confusion_ramp_steps)
        yield check(case, f"{who}_confusion_factor", factor, TABLES)
        if cls is CCA:
            runs = steps >= s.class_alignment_start
            yield check(case, "cca_class_alignment_runs", runs, 0)
            ramp = adaptation_factor(steps - s.class_alignment_start, s.confusion_ramp_steps)
            factor = jnp.where(runs, s.class_confusion_learning_rate_factor * ramp, 0)
            yield check(case, "cca_class_confusion_factor", factor, TABLES)


def _compare_adam(case: Case) -> Iterator[Check]:
    settings = published_method(FCNsInTheWild, "fcns_in_the_wild", 19).optimizer
    tx = optimizers.make_optimizer(optimizers.without_weight_decay(settings))
    params: Any = jnp.zeros(case["adam_gradients"].shape[1:], jnp.float32)
    state, found = tx.init(params), []
    for gradients in case["adam_gradients"]:
        rate = jnp.float32(case.number("adam_learning_rate"))
        params, state, _ = optimizers.apply(tx, jnp.asarray(gradients, jnp.float32), state, params, rate)
        found.append(params)
    yield check(case, "adam_parameters", np.stack(found), TENSORFLOW_ADAM)


def compare_constraints(case: Case) -> Iterator[Check]:
    """Constrained labels of small problems and of images, and the statistics that give the bounds."""
    yield from _compare_small(case)
    yield from _compare_images(case)
    areas = [shares_of_label(x, case["statistics_areas"].shape[1]) for x in case["statistics_labels"]]
    yield check(case, "statistics_areas", np.stack(areas), TABLES)
    for kind in ("", "labelled_"):
        found = class_areas(jnp.asarray(case[f"statistics_{kind}areas"], jnp.float32))
        yield check(case, f"statistics_{kind}containing", jnp.stack(found, 1), TABLES)


def _compare_small(case: Case) -> Iterator[Check]:
    height, width, classes = (case.integer(name) for name in ("height", "width", "classes"))
    logits = jnp.asarray(case["logits"]).reshape(-1, classes)
    probs = jax.nn.softmax(logits)
    slack_weight = case.number("small_slack")
    solve = jax.vmap(lambda present, low, high: constrained_labels(logits, present, low, high, slack_weight).probs)
    bounds = (jnp.asarray(case[f"small_{side}"], jnp.float32) for side in ("lower", "upper"))
    q = jax.jit(solve)(jnp.asarray(case["small_present"]), *bounds)
    shape = (-1, height, width, classes)
    yield check(case, "small_q", q.reshape(shape), CONSTRAINTS)
    yield check(case, "small_mean_q", q.mean(1), CONSTRAINTS)
    divergence = jax.scipy.special.xlogy(q, q) - q * jnp.log(probs)[None]
    yield check(case, "small_kl", divergence.sum(2).mean(1), CONSTRAINTS)
    yield check(case, "small_gradient", (probs[None] - q).reshape(shape) / len(logits), CONSTRAINTS)


def _compare_images(case: Case) -> Iterator[Check]:
    batch, height, width = (case.integer(name) for name in ("batch", "network_height", "network_width"))
    method = published_method(FCNsInTheWild, "fcns_in_the_wild", 19)
    for source in ("synthia", "cityscapes"):
        areas = ClassAreas(*(jnp.asarray(case[f"{source}_{name}"]) for name in ("lower_ten", "avg", "upper_ten")))
        name = f"network_logits_{source.capitalize()}"
        drawn = seeded.normal(case.integer("seed"), name, (2 * batch, height, width, 19), 1.5)
        logits = jnp.asarray((drawn + case[f"{source}_tilt"])[batch:])
        stride = method.settings.constraint_stride
        cells = logits[:, ::stride, ::stride]
        flat = cells.reshape(batch, -1, 19)
        present = jax.vmap(present_classes, (0, None))(flat, areas)
        yield check(case, f"{source}_present", present, 0)
        labels = jax.jit(jax.vmap(method.labels, (0, None)))(flat, areas)
        yield check(case, f"{source}_q", labels.reshape(cells.shape), CONSTRAINTS)
        loss = jax.jit(jax.value_and_grad(lambda x, areas=areas: _with_divergence(method, x, areas), has_aux=True))
        (_, divergence), gradient = loss(logits)
        yield check(case, f"{source}_loss", divergence / batch, CONSTRAINTS)
        yield check(case, f"{source}_gradient", gradient[:, ::stride, ::stride], CONSTRAINTS)
        elsewhere = gradient.at[:, ::stride, ::stride].set(0)
        yield Check(f"{source}_gradient, other pixels", float(jnp.abs(elsewhere).max()), 0)


def _with_divergence(method: FCNsInTheWild, logits: jax.Array, areas: ClassAreas) -> tuple[jax.Array, jax.Array]:
    found = method.constraint_loss(logits, areas)
    return found.loss, found.divergence
