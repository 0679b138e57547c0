"""Self-Ensembling Attention Networks (AAAI 2019): the step of equations 3 to 7."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.methods.base import (
    Batch,
    Metrics,
    Params,
    SelfEnsembling,
    SelfEnsemblingState,
    SourceView,
    map_micro_batches,
    sum_over_devices,
    sum_over_micro_batches,
)
from sean_jax.models.deeplab import Prediction
from sean_jax.ops.resize import resize_bilinear
from sean_jax.training.augmentation import add_noise, mirror, random_flips
from sean_jax.training.losses import (
    attention_mask,
    consistency_loss,
    consistency_normaliser,
    count_labelled,
    segmentation_loss,
)
from sean_jax.training.parallel import AXIS
from sean_jax.training.randomness import Purpose, example_keys


class Views(NamedTuple):
    """The augmented batch of one device: the source, and two independently noisy views of the target."""

    source: SourceView
    student_target: jax.Array  # [b, H, W, 3] float32 RGB, 0–255 scale
    teacher_target: jax.Array  # likewise


class SEAN(SelfEnsembling):
    """Segmentation loss on the source, consistency with the teacher on the attended regions of the target."""

    reads_target = True

    def step(self, state: SelfEnsemblingState, batch: Batch, rng: jax.Array) -> tuple[SelfEnsemblingState, Metrics]:
        return self.update(state, self.augment(batch, state.step, rng))

    def augment(self, batch: Batch, step: jax.Array, rng: jax.Array) -> Views:
        """g(X_s), g(X_t) for the student and g(X_t) for the teacher; both target views are mirrored alike."""
        target = batch["target_image"]

        def keys(purpose: Purpose) -> jax.Array:
            return example_keys(rng, step, purpose, target.shape[0], AXIS)

        if self.config.random_flip:
            target = mirror(random_flips(keys(Purpose.TARGET_FLIP)), target)
        return Views(
            self.augment_source(batch, step, rng),
            add_noise(keys(Purpose.STUDENT_NOISE), target, self.config.noise_std),
            add_noise(keys(Purpose.TEACHER_NOISE), target, self.config.noise_std),
        )

    def update(self, state: SelfEnsemblingState, view: Views) -> tuple[SelfEnsemblingState, Metrics]:
        """One step on an augmented batch: losses, the student's gradients, optimiser, moving average."""
        gradients, metrics = self.gradients(state.student, state.teacher, view)
        return self.apply_gradients(state, gradients), metrics

    def gradients(self, student: Params, teacher: Params, view: Views) -> tuple[Params, Metrics]:
        """The gradient of the loss (equation 6) over the global batch with respect to the student, and the losses."""
        config = self.config
        teacher_target = map_micro_batches(
            lambda images: self.teacher_prediction(teacher, images), view.teacher_target, config.accumulate_steps
        )
        mask = attention_mask(teacher_target.attention, config.attention_threshold)

        # The counts are taken over the whole batch on all devices first and held constant: each device then
        # differentiates its own share of the global means, part by part, and the gradients are summed.
        local_counts = (
            count_labelled(view.source.label),
            consistency_normaliser(mask, self.network.num_classes, config.consistency_reduction),
            jnp.sum(mask),
            jnp.float32(mask.size),
        )
        labelled, normaliser, kept, positions = sum_over_devices(local_counts)

        def loss_fn(
            student: Params, view: Views, teacher_target: Prediction, mask: jax.Array
        ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            source, target = self.student_predictions(student, view)
            segmentation = segmentation_loss(source.logits, view.source.label) / labelled.clip(1)
            consistency = consistency_loss(target.logits, teacher_target.logits, mask) / normaliser.clip(1)
            loss = segmentation + config.consistency_weight * consistency  # equation 6
            return loss, (segmentation, consistency)

        local = sum_over_micro_batches(
            lambda part: jax.grad(loss_fn, has_aux=True)(student, *part),
            (view, teacher_target, mask),
            config.accumulate_steps,
        )
        gradients, (segmentation, consistency) = sum_over_devices(local)
        metrics = {
            "train/loss": segmentation + config.consistency_weight * consistency,
            "train/loss_segmentation": segmentation,
            "train/loss_consistency": consistency,
            "train/kept_pixels": kept / positions,
        }
        return gradients, metrics

    def student_predictions(self, student: Params, view: Views) -> tuple[Prediction, Prediction]:
        """The student on source and target, in one pass over both."""
        both = self.network.predict(student, jnp.concatenate([view.source.image, view.student_target]))
        split = view.source.image.shape[0]
        source, target = jax.tree.map(lambda x: x[:split], both), jax.tree.map(lambda x: x[split:], both)
        return source, self._at_loss_resolution(target, view.student_target)

    def teacher_prediction(self, teacher: Params, images: jax.Array) -> Prediction:
        """The teacher on its view of the target, at the resolution of the consistency loss; never differentiated."""
        # The gradient is taken with respect to the student alone, so stop_gradient changes nothing. It is said
        # all the same: the teacher learns by averaging only.
        return lax.stop_gradient(self._at_loss_resolution(self.network.predict(teacher, images), images))

    def _at_loss_resolution(self, prediction: Prediction, images: jax.Array) -> Prediction:
        if self.config.consistency_resolution == "output":
            return prediction
        size = images.shape[1], images.shape[2]
        attention = resize_bilinear(prediction.attention[..., None], size)[..., 0]
        return Prediction(resize_bilinear(prediction.logits, size), attention)
