"""SEAN: two forward passes, the gradients of the first step, and three steps of the authors' network."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax import weights
from sean_jax.config import describe_settings, from_flat_settings
from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.methods.sean import SEAN, Views
from sean_jax.models import DeepLab, Params
from sean_jax.parity.cases import Case, Check, check, on_one_device, relative_error
from sean_jax.parity.sean_seeds import seeded_batch, seeded_state_dict
from sean_jax.training.augmentation import SourceView

# Largest relative error allowed by quantity. A faithful implementation in another framework stays well below it.
BOUNDS = {
    "step 0": 1e-5,
    "step 0 consistency gradients": 1e-3,
    "step 0 gradients": 1e-2,  # one ReLU or maximum that switches changes the first layer's by up to 4e-3
    "history": 2e-3,
    "student delta norms": 1e-2,
    "student deltas": 6e-2,  # Adam turns the sign change of a small gradient into a full step
    "teacher delta norms": 1e-4,
    "teacher deltas": 1e-4,
}


# Arrays in every case. A case may hold complete tensors besides.
REQUIRED = (
    *("source_logits", "student_target_logits", "teacher_target_logits", "teacher_attention", "history"),
    *("grad_names", "grad_norms", "consistency_grad_norms", "student_delta_norms", "teacher_delta_norms"),
)


def reference_method(case: Case) -> SEAN:
    """Returns SEAN with the ``reference`` preset and the case's settings."""
    settings = case.settings(describe_settings())
    config = from_flat_settings({**DeepLab.PRESETS["reference"], **SEAN.PRESETS["reference"], **settings})
    network = DeepLab(settings=config.network_settings, num_classes=case.integer("num_classes"))
    return SEAN(
        settings=config.method_settings, optimizer=config.optimizer_settings, steps=config.steps, network=network
    )


def seeded_views(case: Case, step: int) -> Views:
    """Returns the augmented batch of a step, with the noise of the case."""
    shape = [case.integer(name) for name in ("num_classes", "batch_size", "height", "width")]
    batch = seeded_batch(case.integer("seed") * 1000 + step, *shape)
    student, teacher = (
        jnp.asarray(batch["target_image"] + np.float32(case.number("noise_std")) * batch[f"{who}_noise"])
        for who in ("student", "teacher")
    )
    return Views(SourceView(jnp.asarray(batch["source_image"]), jnp.asarray(batch["source_label"])), student, teacher)


def seeded_params(seed: int, num_classes: int, like: Any) -> Any:
    """Returns the seeded parameters as a Flax tree."""
    file = weights.WeightsFile(seeded_state_dict(seed, num_classes), {})
    return weights.into_params(file, like)[0]


def compare(case: Case) -> Iterator[Check]:
    """Runs the case and yields one check for each stored quantity."""
    case.require(REQUIRED)
    method = reference_method(case)
    like, classes = method.network.abstract_params(), case.integer("num_classes")
    student = seeded_params(case.integer("seed"), classes, like)
    teacher = seeded_params(case.integer("teacher_seed"), classes, like)
    yield from _compare_forward(method, student, teacher, case)
    yield from _compare_gradients(method, student, teacher, case)
    yield from _compare_steps(method, student, teacher, case)


def _compare_forward(method: SEAN, student: Params, teacher: Params, case: Case) -> Iterator[Check]:
    view = seeded_views(case, 0)
    source, target = jax.jit(method.student_predictions)(student, view)
    teacher_target = jax.jit(method.teacher_prediction)(teacher, view.teacher_target)
    for name, value in {
        "source_logits": source.logits,
        "student_target_logits": target.logits,
        "teacher_target_logits": teacher_target.logits,
        "teacher_attention": teacher_target.attention,
    }.items():
        yield check(case, name, value, BOUNDS["step 0"])


def _compare_gradients(method: SEAN, student: Params, teacher: Params, case: Case) -> Iterator[Check]:
    mapped = on_one_device(lambda method, *args: method.gradients(*args), 3)  # compiled once for both calls

    def gradients(consistency_weight: float, view: Views) -> dict[str, np.ndarray]:
        settings = dataclasses.replace(method.settings, consistency_weight=consistency_weight)
        found, _ = mapped(method.replace(settings=settings), student, teacher, view)
        return weights.from_params(found)

    view = seeded_views(case, 0)
    # Without source labels and with weight 1, the gradients are those of the consistency loss alone.
    unlabelled = view._replace(source=view.source._replace(label=jnp.full_like(view.source.label, IGNORE_LABEL)))
    alone = gradients(1.0, unlabelled)
    consistency, total = BOUNDS["step 0 consistency gradients"], BOUNDS["step 0 gradients"]
    yield from _compare_tensors("consistency_grad_", alone, case, norms=consistency, tensors=consistency)
    whole = gradients(method.settings.consistency_weight, view)
    yield from _compare_tensors("grad_", whole, case, norms=total, tensors=total)


def _compare_steps(method: SEAN, student: Params, teacher: Params, case: Case) -> Iterator[Check]:
    initial = {"student": weights.from_params(student), "teacher": weights.from_params(teacher)}
    state = method.init(jax.random.key(0), student)
    state = state.replace(params=state.params | {"teacher": teacher})
    step = on_one_device(method.update, 1)
    columns = ("loss", "loss_segmentation", "loss_consistency", "kept_pixels")
    errors = []
    for k, reference in enumerate(case["history"]):
        state, metrics = step(state, seeded_views(case, k))
        row = [metrics[f"train/{name}"] for name in columns]
        errors.append(max(relative_error(x, r) for x, r in zip(row, reference, strict=True)))
    yield Check("history, step 0", errors[0], BOUNDS["step 0"])
    if len(errors) > 1:
        yield Check("history, later steps", max(errors[1:]), BOUNDS["history"])
    for who, params in method.evaluated(state).items():
        final = weights.from_params(params)
        deltas = {name: np.float64(final[name]) - initial[who][name] for name in final}
        norms, tensors = BOUNDS[f"{who} delta norms"], BOUNDS[f"{who} deltas"]
        yield from _compare_tensors(f"{who}_delta_", deltas, case, norms=norms, tensors=tensors)


def _compare_tensors(
    prefix: str, values: dict[str, np.ndarray], case: Case, *, norms: float, tensors: float
) -> Iterator[Check]:
    """Compares the norms of all ``values``, and every complete tensor that the case stores under ``prefix``."""
    references = zip(case["grad_names"], case[f"{prefix}norms"], strict=True)
    errors = [relative_error(np.linalg.norm(np.float64(values[name])), r) for name, r in references]
    yield Check(f"{prefix}norms", max(errors), norms)
    for key, reference in case.items():
        if key.startswith(prefix) and key not in (f"{prefix}norms", f"{prefix}names"):
            name = _SHORT_KEYS.get(key, key.removeprefix(prefix))
            yield Check(key, relative_error(values[name], reference), tensors)


_SHORT_KEYS = {"grad_first_conv": "features.0.weight", "grad_attention": "aconv.weight"}
