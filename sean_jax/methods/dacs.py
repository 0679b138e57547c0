"""DACS: domain adaptation by cross-domain mixed sampling (Tranheden et al., WACV 2021; code: vikolss/DACS).

Half of the classes of each source image are pasted onto a target image, and their labels onto the teacher's
pseudo-labels; the student learns from the mixed image, with changed colours, and from the source image. The preset
``best`` adds logit adjustment, so that pseudo-labels do not prefer the source's frequent classes, Fourier adaptation
and changed colours of the source, and DAFormer's sampling of rare source classes. SEAN's mask, outside which
pseudo-labels do not count, is a setting.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

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
from sean_jax.methods.sean import SEANSettings
from sean_jax.methods.self_ensembling import SelfEnsembling, SelfEnsemblingSettings
from sean_jax.models import Prediction
from sean_jax.ops.resize import resize_bilinear, resize_map
from sean_jax.settings import redefault, setting, settings
from sean_jax.training.augmentation import (
    SourceView,
    augment_source,
    crop,
    crop_and_mirror_target,
)
from sean_jax.training.fourier import with_amplitudes_of
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.mixing import class_mask, paste
from sean_jax.training.photometric import SourcePhotometricSettings, change_source, photometric
from sean_jax.training.randomness import example_keys


@settings
class DACSSettings(SourcePhotometricSettings, SelfEnsemblingSettings):
    """The published values; DACS adds no noise."""

    noise_std: float = redefault(SelfEnsemblingSettings, "noise_std", 0.0)
    random_flip: bool = redefault(SelfEnsemblingSettings, "random_flip", True)
    ema_ramp: bool = redefault(SelfEnsemblingSettings, "ema_ramp", True)
    confidence_threshold: float = setting(
        0.968, "confidence of the teacher above which a pseudo-label counts as certain", least=0, most=1
    )
    mixed_weight: float = setting(1.0, "weight of the loss on mixed images", least=0)
    attention_threshold: float = redefault(SEANSettings, "attention_threshold", 0.0)  # no mask: attention is above 0
    fourier_adaptation: bool = setting(False, "give source images the low frequencies of target images (FDA)")
    fourier_beta: float = setting(0.01, "share of the shorter side that counts as low in FDA", least=0, most=0.5)


class Views(NamedTuple):
    """The augmented batch of one device: the source, and mixed images with labels and weights."""

    source: SourceView
    mixed: SourceView
    weight: jax.Array  # [b, H, W] float32
    pasted: jax.Array  # [b, H, W] bool, whether a pixel of the mixed image is the source's


class DACS(SelfEnsembling):
    """Cross-entropy on the source and on mixed images."""

    Settings: ClassVar[type] = DACSSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "optimizer": "sgd",
            "learning_rate": 2.5e-4,
            "learning_rate_schedule": "poly",
            "weight_decay": 5e-4,
            "batch_size": 2,
            "steps": 250_000,
            "height": 512,
            "width": 1024,
            "crop_size": 512,
        },
        "best": {"logit_adjustment": 1.0, "fourier_adaptation": True, "photometric_source": True},
    }

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        target = crop_and_mirror_target(self.settings, batch, state.step, rng)
        label, confident, inside = concatenate_over_parts(
            lambda images: self.pseudo_labels(state.params["teacher"], images), target, self.accumulate_steps
        )
        # The share of certain pixels over all target images is the weight of every pseudo-label inside the mask.
        counts = (jnp.sum(x, dtype=jnp.int32).astype(jnp.float32) for x in (confident, inside))
        certain, kept, pixels = sum_over_devices((*counts, jnp.float32(label.size)))
        source = self.source(batch, target, state.step, rng)
        views = self.mix(source, target, label, jnp.where(inside, certain / pixels, 0.0), state.step, rng)
        state, metrics = self.update(self.count_classes(state, source.label), views)
        return state, metrics | {"train/certain_pixels": certain / pixels, "train/kept_pixels": kept / pixels}

    def source(self, batch: Batch, target: jax.Array, step: jax.Array, rng: jax.Array) -> SourceView:
        """The augmented source, in the colours of the target images with the same indices if the settings say so."""
        if self.settings.fourier_adaptation:
            cropped = crop(self.settings, "source", batch["source_image"], step, rng)
            adapted = with_amplitudes_of(cropped, target, self.settings.fourier_beta)
            batch = batch | {"source_image": adapted}
        return augment_source(self.settings, batch, step, rng)

    def pseudo_labels(self, teacher: Params, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The teacher's classes ``[b, H, W]`` uint8, whether it is certain of them, and SEAN's mask, at full size."""
        size = images.shape[1], images.shape[2]
        prediction = self.network.predict(teacher, images)
        logits = resize_bilinear(prediction.logits, size)
        certain = jnp.max(jax.nn.softmax(logits), -1) >= self.settings.confidence_threshold
        inside = resize_map(prediction.attention, size) > self.settings.attention_threshold
        return lax.stop_gradient((jnp.argmax(logits, -1).astype(jnp.uint8), certain, inside))

    def masks(self, prediction: Prediction) -> dict[str, jax.Array]:
        """Where the teacher is certain, inside SEAN's mask."""
        certain = jnp.max(jax.nn.softmax(prediction.logits), -1) >= self.settings.confidence_threshold
        return {"certain": certain & (prediction.attention > self.settings.attention_threshold)}

    def mix(
        self,
        source: SourceView,
        target: jax.Array,
        label: jax.Array,
        weight: jax.Array,
        step: jax.Array,
        rng: jax.Array,
    ) -> Views:
        """Pastes classes of each source image onto the target image with the same index.

        Args:
          label: pseudo-labels of the target.
          weight: of the pseudo-labels in the loss, ``[b, H, W]``; pasted pixels weigh 1.
        """
        examples = target.shape[0]
        masks = jax.vmap(lambda key, label: class_mask(key, label, self.network.num_classes))(
            example_keys(rng, "class_mix", step, examples), source.label
        )
        image = paste(masks, source.image, target)
        image = photometric(self.settings, example_keys(rng, "photometric", step, examples), image)
        mixed = SourceView(
            image, paste(masks, source.label, label), example_keys(rng, "target_dropout", step, examples)
        )
        source = source._replace(image=change_source(self.settings, source.image, step, rng))
        return Views(source, mixed, jnp.where(masks, 1.0, weight), masks)

    def update(self, state: TrainState, views: Views) -> tuple[TrainState, Metrics]:
        """One step on mixed images."""
        local = count_labelled(views.source.label), jnp.float32(views.weight.size)
        labelled, pixels = sum_over_devices(local)
        labelled, adjustment = labelled.clip(1), self.adjustment(state)

        def loss_fn(student: Params, views: Views) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            images, keys = (
                jnp.concatenate([getattr(v, name) for v in (views.source, views.mixed)])
                for name in ("image", "dropout")
            )
            logits = self.network.predict(student, images, keys).logits
            split = views.source.image.shape[0]
            segmentation = segmentation_loss(logits[:split], views.source.label, adjustment=adjustment) / labelled
            # Pseudo-labels come from logits, so they are learned as such: adjusted again, they would drift.
            on_pasted = jnp.where(views.pasted[..., None], adjustment, 0.0)
            mixed = segmentation_loss(logits[split:], views.mixed.label, views.weight, on_pasted) / pixels
            return segmentation + self.settings.mixed_weight * mixed, (segmentation, mixed)

        summed = sum_over_parts(
            lambda part: jax.grad(loss_fn, has_aux=True)(state.params["student"], part), views, self.accumulate_steps
        )
        gradients, (segmentation, mixed) = sum_over_devices(summed)
        state, metrics = self.apply_gradients(state, gradients)
        loss = segmentation + self.settings.mixed_weight * mixed
        return state, {
            "train/loss": loss,
            "train/loss_segmentation": segmentation,
            "train/loss_mixed": mixed,
            **metrics,
        }
