"""CyCADA's feature stage: losses, gradients and two iterations on its FCN-8s, and the accuracy rule."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sean_jax import weights
from sean_jax.methods import TrainState
from sean_jax.methods.cycada import CyCADA
from sean_jax.models import Params
from sean_jax.models.fcn8s import FC_CHANNELS
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case, Check, check, check_seeds, check_tensors, on_one_device, relative_error
from sean_jax.parity.fcn8s import CYCADA_MODULES, Modules, cycada_spec, input_shape, network, normalized, to_params
from sean_jax.parity.seeded import Spec, conv
from sean_jax.training.adversarial import add_to_window
from sean_jax.training.augmentation import SourceView, TargetView
from sean_jax.training.optimizers import OptimizerSettings

FORWARD, LOSSES, ACCURACY = 3e-5, 1e-3, 0.1  # the last one in percentage points: an argmax near a tie may switch
GRADIENTS = {"norms": 3e-2, "projections": 6e-2, "tensors": 3e-2}
DELTAS = {"norms": 3e-2, "projections": 6e-2, "tensors": 6e-2}
DISCRIMINATOR_MODULES = {("conv1",): "D.0", ("conv2",): "D.3", ("conv3",): "D.6"}

Views = tuple[SourceView, TargetView]


def compare(case: Case, discriminator_input: Any) -> Iterator[Check]:
    """Runs a case with the discriminator on ``scores`` or ``features``, and yields one check for each quantity."""
    tensors = seeded.weights(case.integer("seed"), cycada_spec(case.integer("num_cls")))
    views = _views(case, 0)
    images = {
        f"{name}_image": normalized(np.asarray(view.image))
        for name, view in zip(("source", "target"), views, strict=True)
    }
    check_seeds(case, {**tensors, **images, "source_label": views[0].label})
    method = CyCADA(
        settings=CyCADA.Settings(
            noise_std=0.0,
            discriminator_input=discriminator_input,
            discriminator_weight=case.number("lambda_d"),
            adversarial_weight=case.number("lambda_g"),
        ),
        optimizer=OptimizerSettings(optimizer="sgd", **case.settings(("learning_rate", "momentum", "weight_decay"))),
        steps=case.integer("steps"),
        network=network(case.integer("num_cls")),
    )
    inputs = case.integer("num_cls") if discriminator_input == "scores" else FC_CHANNELS
    of_discriminator = seeded.weights(case.integer("disc_seed"), _discriminator_spec(inputs))
    state = method.init(jax.random.key(0), to_params(tensors, CYCADA_MODULES))
    discriminator = to_params(of_discriminator, DISCRIMINATOR_MODULES)
    state = state.replace(params=state.params | {"discriminator": discriminator})
    own = Case({**case, "parameter_names": case["discriminator_names"]})

    yield from _compare_forward(case, method, state.params, views)
    yield from _compare_gradients(case, own, method, state, jax.tree.map(jnp.asarray, views))
    yield from _compare_iterations(case, own, method, state, {**tensors, **of_discriminator})


def _discriminator_spec(inputs: int) -> Spec:
    width = 1024 if inputs == FC_CHANNELS else 512
    yield from conv("D.0", width, inputs, 1)
    yield from conv("D.3", width // 2, width, 1)
    yield from conv("D.6", 2, width // 2, 1, gain=1.0)


def _views(case: Case, iteration: int) -> Views:
    """The batch of an iteration. The target is darker than the source."""
    seed, shape = case.integer("seed") * 1000 + iteration, input_shape(case)
    label = seeded.label(seed, "source_label", *shape, case.integer("num_cls"), 255)
    target = (seeded.image(seed, "target_image", *shape) / 2).round()
    source = SourceView(seeded.image(seed, "source_image", *shape), label)  # pyright: ignore[reportArgumentType]
    return source, TargetView(target)  # pyright: ignore[reportArgumentType]


def _compare_forward(case: Case, method: CyCADA, params: dict[str, Params], views: Views) -> Iterator[Check]:
    @jax.jit
    def discriminate(params: dict[str, Params], images: jax.Array) -> jax.Array:
        return method.discriminate(params["discriminator"], method.network.predict(params["network"], images), None)

    stride = 3 if method.settings.discriminator_input == "scores" else 1
    for name, view in zip(("source", "target"), views, strict=True):
        found = discriminate(params, view.image)[:, ::stride, ::stride]
        yield check(case, f"{name}_discriminator_logits", found, FORWARD)


def _compare_gradients(case: Case, own: Case, method: CyCADA, state: TrainState, views: Views) -> Iterator[Check]:
    """The gradients of the first iteration, each at the weights as they are when its update runs."""
    # SGD's momentum after its first step is the gradient, here without the weight decay.
    undecayed = method.replace(optimizer=dataclasses.replace(method.optimizer, weight_decay=0.0))
    state, *_ = on_one_device(lambda state, views: undecayed.update_discriminator(state, *views), 1)(state, views)
    found = weights.from_params(_momentum(state, "discriminator"), DISCRIMINATOR_MODULES)
    yield from check_tensors(own, "D_grad_", found, bounds=GRADIENTS)
    state, _ = on_one_device(undecayed.update_against_discriminator, 1)(state, views[1])
    adversarial = weights.from_params(_momentum(state, "network"), CYCADA_MODULES)
    yield from check_tensors(case, "G_grad_", adversarial, bounds=GRADIENTS)
    state, _ = on_one_device(undecayed.update_on_source, 1)(state, views[0])
    both = weights.from_params(_momentum(state, "network"), CYCADA_MODULES)
    found = {name: x - np.float32(undecayed.optimizer.momentum) * adversarial[name] for name, x in both.items()}
    yield from check_tensors(case, "S_grad_", found, bounds=GRADIENTS)


def _momentum(state: TrainState, name: str) -> Params:
    chained: Any = state.opt_state[name]
    return chained[1].trace


def _compare_iterations(
    case: Case, own: Case, method: CyCADA, state: TrainState, tensors: Mapping[str, np.ndarray]
) -> Iterator[Check]:
    iterate = on_one_device(lambda state, views: method.update(state, *views), 1)
    factors = {
        "train/loss_discriminator": method.settings.discriminator_weight,
        "train/loss_adversarial": method.settings.adversarial_weight,
        "train/loss_segmentation": 1,
    }
    losses, accuracies = [], []
    for iteration in range(case.integer("steps")):
        state, metrics = iterate(state, jax.tree.map(jnp.asarray, _views(case, iteration)))
        losses.append([factor * metrics[name] for name, factor in factors.items()])
        accuracies.append(100 * metrics["train/domain_accuracy"])
    yield Check("losses, discriminator, step 0", relative_error(losses[0][0], case["losses"][0, 0]), FORWARD)
    yield Check("losses", max(map(relative_error, np.ravel(losses), np.ravel(case["losses"]))), LOSSES)
    yield Check("domain_accuracies", float(np.abs(accuracies - case["domain_accuracies"]).max()), ACCURACY)
    found = _deltas(state.params["network"], CYCADA_MODULES, tensors)
    yield from check_tensors(case, "net_delta_", found, bounds=DELTAS)
    found = _deltas(state.params["discriminator"], DISCRIMINATOR_MODULES, tensors)
    yield from check_tensors(own, "D_delta_", found, bounds=DELTAS)


def _deltas(params: Params, modules: Modules, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.float64(x) - tensors[name] for name, x in weights.from_params(params, modules).items()}


def compare_rule(case: Case) -> Iterator[Check]:
    """Decides after each accuracy of the stored sequences whether the network is updated."""
    window, threshold = case.integer("window"), case.number("threshold")

    @jax.jit
    def means(margins: jax.Array) -> jax.Array:
        def add(recent: jax.Array, step_and_margin: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return add_to_window(recent, *step_and_margin)

        return lax.scan(add, jnp.zeros(window), (jnp.arange(margins.size), margins))[1]

    def margins(accuracies: np.ndarray) -> jax.Array:
        return jnp.asarray(accuracies - threshold, jnp.float32)

    found = np.asarray(means(margins(case["loop_accuracies"])))
    yield check(case, "loop_means", found + threshold, 1e-6)
    clear = abs(case["loop_means"] - threshold) > 1e-4
    wrong = (found > 0) != case["loop_updates"]
    yield Check("loop_updates", float(np.sum(wrong & clear)), 0.0)
    decisions = []
    for row in case["edge_accuracies"]:
        count = np.sum(~np.isnan(row))
        decisions.append(np.asarray(means(margins(row)))[count - 1] > 0)
    yield Check("edge_updates", float(np.sum(np.array(decisions) != case["edge_updates"])), 0.0)
