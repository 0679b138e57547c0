"""CyCADA's task stage: its FCN-8s, what each skip adds, and two supervised updates."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax import weights
from sean_jax.methods.source_only import SourceOnly
from sean_jax.models import Params
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case, Check, check, check_seeds, check_tensors, on_one_device, relative_error
from sean_jax.parity.fcn8s import CYCADA_MODULES, cycada_spec, input_shape, network, normalized, to_params
from sean_jax.training.augmentation import SourceView
from sean_jax.training.optimizers import OptimizerSettings

FORWARD, LOSSES = 3e-5, 1e-3
GRADIENTS = {"norms": 3e-2, "projections": 6e-2, "tensors": 3e-2}
DELTAS = {"norms": 3e-2, "projections": 6e-2, "tensors": 6e-2}


def compare(case: Case) -> Iterator[Check]:
    """Runs the case and yields one check for each stored quantity."""
    classes, seed = case.integer("num_cls"), case.integer("seed")
    tensors = seeded.weights(seed, cycada_spec(classes))
    first = _view(case, 0)
    check_seeds(case, tensors | {"source_image": normalized(first.image), "source_label": first.label})
    method = SourceOnly(
        settings=SourceOnly.Settings(noise_std=0.0),
        optimizer=OptimizerSettings(optimizer="sgd", **case.settings(("learning_rate", "momentum", "weight_decay"))),
        steps=case.integer("steps"),
        network=network(classes),
    )
    params = to_params(tensors, CYCADA_MODULES)
    yield from _compare_forward(case, method, params, first)
    yield from _compare_steps(case, method, params, tensors)


def _view(case: Case, iteration: int) -> SourceView:
    seed, shape = case.integer("seed") * 1000 + iteration, input_shape(case)
    label = seeded.label(seed, "source_label", *shape, case.integer("num_cls"), 255)
    return SourceView(seeded.image(seed, "source_image", *shape), label)  # pyright: ignore[reportArgumentType]


def _compare_forward(case: Case, method: SourceOnly, params: Params, view: SourceView) -> Iterator[Check]:
    predict = jax.jit(method.network.predict)
    prediction = predict(params, view.image)
    logits, features = np.asarray(prediction.logits), np.asarray(prediction.features)
    yield check(case, "logits", logits[:, ::3, ::3], FORWARD)
    yield check(case, "feature", features[..., ::64], FORWARD)
    for name, value in (("logits", logits), ("feature", features)):
        norm = np.linalg.norm(np.float64(value))
        yield check(case, f"{name}_norms", [norm], FORWARD)
        projection = np.vdot(np.float64(value), np.float64(seeded.direction(name, value.shape)))
        yield Check(f"{name}_projections", abs(projection - case[f"{name}_projections"][0]) / norm, FORWARD)
    for skip in ("score_pool3", "score_pool4"):
        without = {name: np.zeros_like(value) for name, value in params["head"][skip].items()}
        found = predict(params | {"head": params["head"] | {skip: without}}, view.image).logits
        yield check(case, f"logits_without_{skip}", found[:, ::9, ::9], FORWARD)


def _compare_steps(case: Case, method: SourceOnly, params: Params, tensors: dict[str, np.ndarray]) -> Iterator[Check]:
    mapped = on_one_device(lambda method, *args: method.update(*args), 2)
    first = jax.tree.map(jnp.asarray, _view(case, 0))
    # SGD's momentum after its first step is the gradient, here without the weight decay.
    undecayed = method.replace(optimizer=dataclasses.replace(method.optimizer, weight_decay=0.0))
    state, _ = mapped(undecayed, undecayed.init(jax.random.key(0), params), first)
    gradients = weights.from_params(state.opt_state["student"][1].trace, CYCADA_MODULES)
    yield from check_tensors(case, "grad_", gradients, bounds=GRADIENTS)

    state, losses = method.init(jax.random.key(0), params), []
    for iteration in range(case.integer("steps")):
        state, metrics = mapped(method, state, jax.tree.map(jnp.asarray, _view(case, iteration)))
        losses.append(metrics["train/loss"])
    yield Check("losses", max(map(relative_error, losses, case["losses"])), LOSSES)
    final = weights.from_params(state.params["student"], CYCADA_MODULES)
    deltas = {name: np.float64(final[name]) - tensors[name] for name in final}
    yield from check_tensors(case, "delta_", deltas, bounds=DELTAS)
