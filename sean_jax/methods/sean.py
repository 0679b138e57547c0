"""Self-Ensembling Attention Networks (Xu et al., AAAI 2019): the step of equations 3 to 7."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.methods.base import (
    Batch,
    Metrics,
    Params,
    TrainState,
    concatenate_over_parts,
    sum_over_devices,
    sum_over_parts,
)
from sean_jax.methods.self_ensembling import SelfEnsembling, SelfEnsemblingSettings
from sean_jax.models import Prediction
from sean_jax.ops.resize import resize_bilinear, resize_map
from sean_jax.settings import setting, settings
from sean_jax.training.augmentation import (
    SourceView,
    add_noise,
    augment_source,
    crop_and_mirror_target,
)
from sean_jax.training.losses import (
    attention_mask,
    consistency_loss,
    consistency_normaliser,
    count_kept,
    count_labelled,
    segmentation_loss,
)
from sean_jax.training.randomness import example_keys


@settings
class SEANSettings(SelfEnsemblingSettings):
    """The paper's; ``reference`` in :attr:`SEAN.PRESETS` lists where the authors' code differs."""

    consistency_weight: float = setting(0.3, "weight of the consistency loss (lambda_con of equation 6)", least=0)
    consistency_reduction: Literal["all_positions", "kept_positions"] = setting(
        "all_positions", "mean of equation 4: over H*W, or over positions in the mask x classes (authors' code)"
    )
    consistency_resolution: Literal["output", "input"] = setting(
        "output", "resolution of the consistency loss: the network's output (1/8) or the input"
    )
    attention_threshold: float = setting(
        0.3, "attention above which a position is in the consistency mask (tau_att of equation 5)", least=0, most=1
    )


class Views(NamedTuple):
    """The augmented batch of one device: the source, and two independently noisy views of the target."""

    source: SourceView
    student_target: jax.Array  # [b, H, W, 3] float32 RGB, 0–255 scale
    teacher_target: jax.Array  # likewise
    student_dropout: jax.Array | None = None  # [b] keys of the student's dropout on the target


class TargetPrediction(NamedTuple):
    """A prediction of the target at the resolution of the consistency loss, ``[b, h, w, ...]`` float32."""

    logits: jax.Array
    attention: jax.Array


class SEAN(SelfEnsembling):
    """Segmentation loss on the source, consistency with the teacher in the attended regions of the target."""

    Settings: ClassVar[type] = SEANSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {"noise_std": 0.1, "noise_domains": "target", "consistency_reduction": "kept_positions"},
        "quick": {"random_flip": True, "ema_ramp": True},
    }
    PRESETS_BY_SOURCE: ClassVar[Mapping[tuple[str, str], Mapping[str, Any]]] = {
        ("reference", "gta5"): {"attention_threshold": 0.1}
    }

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        view = self.augment(batch, state.step, rng)
        return self.update(self.count_classes(state, view.source.label), view)

    def augment(self, batch: Batch, step: jax.Array, rng: jax.Array) -> Views:
        """g(X_s), g(X_t) for the student and g(X_t) for the teacher; both target views are mirrored alike."""
        target = crop_and_mirror_target(self.settings, batch, step, rng)
        examples = target.shape[0]
        return Views(
            augment_source(self.settings, batch, step, rng),
            add_noise(example_keys(rng, "student_noise", step, examples), target, self.settings.noise_std),
            add_noise(example_keys(rng, "teacher_noise", step, examples), target, self.settings.noise_std),
            example_keys(rng, "target_dropout", step, examples),
        )

    def update(self, state: TrainState, view: Views) -> tuple[TrainState, Metrics]:
        """One step on an augmented batch: losses, the student's gradients, optimiser, moving average."""
        networks = state.params["student"], state.params["teacher"]
        gradients, losses = self.gradients(*networks, view, self.adjustment(state))
        state, metrics = self.apply_gradients(state, gradients)
        return state, losses | metrics

    def gradients(
        self, student: Params, teacher: Params, view: Views, adjustment: jax.Array | None = None
    ) -> tuple[Params, Metrics]:
        """The gradient of the loss (equation 6) over the global batch with respect to the student, and the losses.

        Args:
          adjustment: of the logits of the source; see :meth:`adjustment`.
        """
        s = self.settings
        teacher_target = concatenate_over_parts(
            lambda images: self.teacher_prediction(teacher, images), view.teacher_target, self.accumulate_steps
        )
        mask = attention_mask(teacher_target.attention, s.attention_threshold)

        # Counts are taken over the whole batch on all devices first and held constant: each device then
        # differentiates its own share of the global means, part by part, and the gradients are summed.
        local_counts = (
            count_labelled(view.source.label),
            consistency_normaliser(mask, self.network.num_classes, s.consistency_reduction),
            count_kept(mask),
            jnp.float32(mask.size),
        )
        labelled, normaliser, kept, positions = sum_over_devices(local_counts)

        def loss_fn(
            student: Params, view: Views, teacher_target: TargetPrediction, mask: jax.Array
        ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            source, target = self.student_predictions(student, view)
            segmentation = segmentation_loss(source.logits, view.source.label, adjustment=adjustment) / labelled.clip(1)
            consistency = consistency_loss(target.logits, teacher_target.logits, mask) / normaliser.clip(1)
            loss = segmentation + s.consistency_weight * consistency  # equation 6
            return loss, (segmentation, consistency)

        local = sum_over_parts(
            lambda part: jax.grad(loss_fn, has_aux=True)(student, *part),
            (view, teacher_target, mask),
            self.accumulate_steps,
        )
        gradients, (segmentation, consistency) = sum_over_devices(local)
        metrics = {
            "train/loss": segmentation + s.consistency_weight * consistency,
            "train/loss_segmentation": segmentation,
            "train/loss_consistency": consistency,
            "train/kept_pixels": kept / positions,
        }
        return gradients, metrics

    def student_predictions(self, student: Params, view: Views) -> tuple[Prediction, TargetPrediction]:
        """The student on source and target, in one pass over both."""
        keys = None
        if view.source.dropout is not None and view.student_dropout is not None:
            keys = jnp.concatenate([view.source.dropout, view.student_dropout])
        both = self.network.predict(student, jnp.concatenate([view.source.image, view.student_target]), keys)
        split = view.source.image.shape[0]
        source, target = jax.tree.map(lambda x: x[:split], both), jax.tree.map(lambda x: x[split:], both)
        return source, self._at_loss_resolution(target, view.student_target)

    def teacher_prediction(self, teacher: Params, images: jax.Array) -> TargetPrediction:
        """The teacher on its view of the target, at the resolution of the consistency loss; never differentiated."""
        # The gradient is taken with respect to the student alone, so stop_gradient changes nothing. It is written
        # all the same: the teacher learns by averaging only.
        return lax.stop_gradient(self._at_loss_resolution(self.network.predict(teacher, images), images))

    def _at_loss_resolution(self, prediction: Prediction, images: jax.Array) -> TargetPrediction:
        logits, attention = prediction.logits, prediction.attention
        if self.settings.consistency_resolution == "output":
            return TargetPrediction(logits, attention)
        size = images.shape[1], images.shape[2]
        return TargetPrediction(resize_bilinear(logits, size), resize_map(attention, size))

    def masks(self, prediction: Prediction) -> dict[str, jax.Array]:
        """The consistency mask."""
        return {"mask": prediction.attention > self.settings.attention_threshold}
