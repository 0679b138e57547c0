"""MCD: its FCN-8s, the losses, gradients and updates of steps A, B and C, and the one-step variant."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax import weights
from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.methods import TrainState
from sean_jax.methods.mcd import MCD, Views, absolute_difference
from sean_jax.models import Params
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case, Check, check, check_seeds, check_tensors, on_one_device, relative_error
from sean_jax.parity.fcn8s import MCD_FORM, MCD_MODULES, input_shape, mcd_spec, network, normalized, to_params
from sean_jax.training.augmentation import SourceView, TargetView
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.optimizers import OptimizerSettings

FORWARD, LOSSES = 3e-5, 1e-3
GRADIENTS = {"norms": 3e-2, "projections": 6e-2, "tensors": 3e-2}
DELTAS = {"norms": 3e-2, "projections": 6e-2, "tensors": 6e-2}
HEADS = {"F1": "head_1", "F2": "head_2"}

Tensors = Mapping[str, np.ndarray]
Step = Callable[[TrainState, Views], tuple[jax.Array, Params, TrainState]]


def compare(case: Case) -> Iterator[Check]:
    """Runs the case and yields one check for each stored quantity."""
    tensors = seeded.weights(case.integer("seed"), mcd_spec(case.integer("n_class")))
    views, label = _views(case)
    images = {"source_image": normalized(views.source.image), "target_image": normalized(views.target.image)}
    check_seeds(case, {**tensors, **images, "source_label": label})
    method = MCD(
        settings=MCD.Settings(noise_std=0.0),
        optimizer=OptimizerSettings(optimizer="sgd", **case.settings(("learning_rate", "momentum", "weight_decay"))),
        steps=1,
        network=network(case.integer("n_class"), **MCD_FORM),
    )
    params = to_params(tensors, MCD_MODULES)
    yield from _compare_forward(case, method, params, views)
    yield from _compare_steps(case, method, params, tensors, views)
    yield from _compare_one_step(case, method, params, tensors, views)


def _views(case: Case) -> tuple[Views, np.ndarray]:
    """The case's batch, and its labels with MCD's void class."""
    seed, void, shape = case.integer("seed"), case.integer("n_class") - 1, input_shape(case)
    label = seeded.label(seed, "source_label", *shape, void, void)
    source, target = (seeded.image(seed, name, *shape) for name in ("source_image", "target_image"))
    ignored = np.where(label == void, IGNORE_LABEL, label)
    return jax.tree.map(jnp.asarray, Views(SourceView(source, ignored), TargetView(target))), label  # pyright: ignore[reportArgumentType]


def _compare_forward(case: Case, method: MCD, params: Params, views: Views) -> Iterator[Check]:
    features, predict = jax.jit(method.network.features), jax.jit(method.network.head)
    found = {}
    for domain, image in (("source", views.source.image), ("target", views.target.image)):
        pools = features(params, image)
        for name in ("pool3", "pool4", "pool5"):
            values = np.asarray(getattr(pools, name), np.float64)
            yield check(case, f"{domain}_{name}_stats", [values.mean(), np.sqrt((values**2).mean())], FORWARD)
        for code, head in HEADS.items():
            found[domain, code] = predict({"head": params[head]}, pools).logits
            key, logits = f"{domain}_logits_{code}", np.asarray(found[domain, code], np.float64)
            yield check(case, key, logits[:, ::3, ::3], FORWARD)
            yield check(case, f"{key}_norms", [np.linalg.norm(logits)], FORWARD)
            projection = np.vdot(logits, np.float64(seeded.direction(f"logits_{code}", logits.shape)))
            error = abs(projection - case[f"{key}_projections"][0]) / np.linalg.norm(logits)
            yield Check(f"{key}_projections", error, FORWARD)
    labelled, (one, two) = count_labelled(views.source.label), (found["target", code] for code in HEADS)
    losses = [segmentation_loss(found["source", code], views.source.label) / labelled for code in HEADS]
    losses.append(absolute_difference(one, two) / one.size)
    yield Check("initial_losses", max(map(relative_error, losses, case["initial_losses"])), FORWARD)


def _compare_steps(case: Case, method: MCD, params: Params, tensors: Tensors, views: Views) -> Iterator[Check]:
    """Steps A, B and C four times: up to the first C, they are the iteration with num_k = 1."""
    steps = {name: on_one_device(step, 1) for name, step in _steps(method).items()}
    state, losses = _initial_state(method, params), []
    for number, name in enumerate("ABCCCC"):
        loss, gradients, state = steps[name](state, views)
        losses.append(float(loss))
        found = weights.from_params(gradients, MCD_MODULES)
        del gradients
        if name == "C":  # the gradient of the heads is never applied
            found = {str(name): found.get(str(name), np.zeros(1)) for name in case["parameter_names"]}
            norms = [np.linalg.norm(np.float64(x)) for x in found.values()]
            errors = map(relative_error, norms, case["k4_C_grad_norms"][number - 2])
            yield Check(f"k4_C_grad_norms, C{number - 1}", max(errors), GRADIENTS["norms"])
        if number <= 2:
            yield from check_tensors(case, f"{name}_grad_", found, bounds=GRADIENTS)
        if number == 2:
            yield from check_tensors(case, "k1_delta_", _deltas(state.params, tensors), bounds=DELTAS)
    for key in ("k1_losses", "k4_losses"):
        yield Check(key, max(map(relative_error, losses[: len(case[key])], case[key])), LOSSES)
    yield from check_tensors(case, "k4_delta_", _deltas(state.params, tensors), bounds=DELTAS)


def _steps(method: MCD) -> dict[str, Step]:
    """Loss, gradients and new state of each step. The gradients of B include the trunk's, which does not move."""

    def a(state: TrainState, views: Views) -> tuple[jax.Array, Params, TrainState]:
        labelled = count_labelled(views.source.label)
        loss, gradients = method.value_and_grad(
            lambda params, part: method.source_loss(params, part, labelled, 0), state.params, views.source
        )
        return loss, gradients, method.update_all(state, views.source)[0]

    def b(state: TrainState, views: Views) -> tuple[jax.Array, Params, TrainState]:
        labelled = count_labelled(views.source.label)
        (loss, _), gradients = method.value_and_grad(
            lambda params, part: method.opposed_loss(params, part, labelled), state.params, views, has_aux=True
        )
        return loss, gradients, method.update_heads(state, views)[0]

    def c(state: TrainState, views: Views) -> tuple[jax.Array, Params, TrainState]:
        heads = {head: state.params[head] for head in HEADS.values()}
        loss, gradients = method.value_and_grad(
            lambda trunk, part: method.discrepancy(heads | trunk, part, 2),
            {"trunk": state.params["trunk"]},
            views.target,
        )
        return loss, gradients, method.update_trunk(state, views.target, 0)[0]

    return {"A": a, "B": b, "C": c}


def _compare_one_step(case: Case, method: MCD, params: Params, tensors: Tensors, views: Views) -> Iterator[Check]:
    step = on_one_device(lambda method, state, views: method.update_reversed(state, views), 2)
    # SGD's momentum after its first step is the gradient, here without the weight decay.
    undecayed = method.replace(optimizer=dataclasses.replace(method.optimizer, weight_decay=0.0))
    state, metrics = step(undecayed, _initial_state(undecayed, params), views)
    losses = metrics["train/loss"], -metrics["train/discrepancy"]
    yield Check("onestep_losses", max(map(relative_error, losses, case["onestep_losses"])), LOSSES)
    gradients = {name: x for part in state.opt_state.values() for name, x in part[1].trace.items()}
    found = weights.from_params(gradients, MCD_MODULES)
    yield from check_tensors(case, "onestep_grad_", found, bounds=GRADIENTS)
    del state, gradients, found
    state, _ = step(method, _initial_state(method, params), views)
    yield from check_tensors(case, "onestep_delta_", _deltas(state.params, tensors), bounds=DELTAS)


def _initial_state(method: MCD, params: Params) -> TrainState:
    state = method.init(jax.random.key(0), {"trunk": params["trunk"], "head": params["head_1"]})
    return state.replace(params=params)


def _deltas(params: Params, tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: np.float64(x) - tensors[name] for name, x in weights.from_params(params, MCD_MODULES).items()}
