"""Recomputes a parity case with this project's own step and measures how far it is from the frozen values."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax import weights
from sean_jax.config import PRESETS, Config, architecture
from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.methods.base import Params, SourceView
from sean_jax.methods.sean import SEAN, Views
from sean_jax.models.deeplab import Segmenter
from sean_jax.parity.reference import Case, seeded_batch, seeded_state_dict
from sean_jax.training.parallel import AXIS

# Bounds by quantity: a plain rerun in another framework stays well inside (parity README's "seen" column).
BOUNDS = {
    "step 0": 1e-5,
    "step 0 consistency gradients": 1e-3,
    "step 0 gradients": 1e-2,  # a ReLU or a maximum that flips costs up to 4e-3 in the first layer
    "history": 2e-3,
    "student delta norms": 1e-2,
    "student deltas": 6e-2,  # Adam turns a flipped sign into a full step
    "teacher delta norms": 1e-4,
    "teacher deltas": 1e-4,
}


class Check(NamedTuple):
    """One quantity's largest relative error beside its bound."""

    quantity: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.error <= self.bound  # False for NaN


def relative_error(x: Any, reference: Any) -> float:
    """‖x − reference‖ / ‖reference‖ over the whole tensor, in float64; where the reference is zero, ‖x‖."""
    x, reference = np.asarray(x, np.float64), np.asarray(reference, np.float64)
    if x.shape != reference.shape:
        return float("inf")
    scale = np.linalg.norm(reference)
    return float(np.linalg.norm(x - reference) / (scale if scale > 0 else 1.0))


def reference_method(case: Case) -> SEAN:
    """SEAN as the authors' code runs it, with the case's settings."""
    names = {field.name for field in dataclasses.fields(Config)}
    settings: dict[str, Any] = {name: value for name, value in case._asdict().items() if name in names}
    settings = PRESETS["reference"] | settings | {"precision": "float32"}
    config = Config(**settings)
    network = Segmenter(
        **architecture(config), num_classes=case.num_classes, input_convention="bgr_mean", precision="float32"
    )
    return SEAN(config, network)


def seeded_views(case: Case, step: int) -> Views:
    """The augmented batch of a step; the noise is the case's, not drawn."""
    batch = seeded_batch(case.seed * 1000 + step, case.num_classes, case.batch_size, case.height, case.width)
    student, teacher = (
        jnp.asarray(batch["target_image"] + np.float32(case.noise_std) * batch[f"{who}_noise"])
        for who in ("student", "teacher")
    )
    return Views(SourceView(jnp.asarray(batch["source_image"]), jnp.asarray(batch["source_label"])), student, teacher)


def seeded_params(seed: int, num_classes: int, like: Any) -> Any:
    """The seeded parameters as a Flax tree."""
    file = weights.WeightsFile(seeded_state_dict(seed, num_classes), {})
    return weights.into_params(file, like)[0]


def compare(case: Case) -> Iterator[Check]:
    """Runs the case and yields one check for each quantity it stores."""
    method = reference_method(case)
    like = method.network.abstract_params()
    student = seeded_params(case.seed, case.num_classes, like)
    teacher = seeded_params(case.teacher_seed, case.num_classes, like)
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
        yield Check(name, relative_error(value, case.expected[name]), BOUNDS["step 0"])


def _compare_gradients(method: SEAN, student: Params, teacher: Params, case: Case) -> Iterator[Check]:
    def gradients(config: Config, view: Views) -> dict[str, np.ndarray]:
        on_one_device = _on_one_device(SEAN(config, method.network).gradients)
        return weights.from_params(on_one_device(student, teacher, view)[0])

    view = seeded_views(case, 0)
    # The consistency loss alone: no source pixel has a label, and the loss is not weighted.
    unlabelled = view._replace(source=view.source._replace(label=jnp.full_like(view.source.label, IGNORE_LABEL)))
    alone = gradients(dataclasses.replace(method.config, consistency_weight=1.0), unlabelled)
    consistency, total = BOUNDS["step 0 consistency gradients"], BOUNDS["step 0 gradients"]
    yield from _compare_tensors("consistency_grad_", alone, case, norms=consistency, tensors=consistency)
    yield from _compare_tensors("grad_", gradients(method.config, view), case, norms=total, tensors=total)


def _compare_steps(method: SEAN, student: Params, teacher: Params, case: Case) -> Iterator[Check]:
    initial = {"student": weights.from_params(student), "teacher": weights.from_params(teacher)}
    state = method.init(student).replace(teacher=teacher)
    step = _on_one_device(method.update)
    columns = ("loss", "loss_segmentation", "loss_consistency", "kept_pixels")
    errors = []
    for k, reference in enumerate(case.expected["history"]):
        state, metrics = step(state, seeded_views(case, k))
        row = [metrics[f"train/{name}"] for name in columns]
        errors.append(max(relative_error(x, r) for x, r in zip(row, reference, strict=True)))
    yield Check("history, step 0", errors[0], BOUNDS["step 0"])
    if len(errors) > 1:
        yield Check("history, later steps", max(errors[1:]), BOUNDS["history"])
    for who, params in method.networks(state).items():
        final = weights.from_params(params)
        deltas = {name: np.float64(final[name]) - initial[who][name] for name in final}
        norms, tensors = BOUNDS[f"{who} delta norms"], BOUNDS[f"{who} deltas"]
        yield from _compare_tensors(f"{who}_delta_", deltas, case, norms=norms, tensors=tensors)


def _compare_tensors(
    prefix: str, values: dict[str, np.ndarray], case: Case, *, norms: float, tensors: float
) -> Iterator[Check]:
    """Compares the norms of all ``values`` and the whole tensors that the case stores under ``prefix``."""
    references = zip(case.expected["grad_names"], case.expected[f"{prefix}norms"], strict=True)
    errors = [relative_error(np.linalg.norm(np.float64(values[name])), r) for name, r in references]
    yield Check(f"{prefix}norms", max(errors), norms)
    for key, reference in case.expected.items():
        if key.startswith(prefix) and key not in (f"{prefix}norms", f"{prefix}names"):
            name = _SHORT_KEYS.get(key, key.removeprefix(prefix))
            yield Check(key, relative_error(values[name], reference), tensors)


def _on_one_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(*replicated, view)`` under the mapped axis that the losses sum over, on one device."""

    def call(*args: Any) -> Any:
        *replicated, view = args
        in_axes = (*[None] * len(replicated), 0)
        mapped = jax.pmap(function, AXIS, in_axes=in_axes, out_axes=None, devices=jax.local_devices()[:1])
        return mapped(*replicated, jax.tree.map(lambda x: x[None], view))

    return call


_SHORT_KEYS = {"grad_first_conv": "features.0.weight", "grad_attention": "aconv.weight"}
