"""Source only (NoAdapt): the network trained on the labelled source alone; the baseline of every adaptation.

Same network, initialisation, schedule and moving average as SEAN; the target is never read.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from sean_jax.methods.base import Batch, Metrics, Params, Reads, TrainState, sum_over_devices, sum_over_parts
from sean_jax.methods.self_ensembling import SelfEnsembling, SelfEnsemblingSettings
from sean_jax.settings import settings
from sean_jax.training.augmentation import SourceView, augment_source, crop
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.photometric import SourcePhotometricSettings, change_source


@settings
class SourceOnlySettings(SourcePhotometricSettings, SelfEnsemblingSettings):
    """Those that all self-ensembling methods share, and changes of colours, which are off by default."""


class SourceOnly(SelfEnsembling):
    """Cross-entropy on the source. Both networks are evaluated, so averaging is not credited to adaptation."""

    Settings: ClassVar[type] = SourceOnlySettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {"noise_std": 0.1, "noise_domains": "target"},
        "quick": {"random_flip": True, "ema_ramp": True},
    }
    READS: ClassVar[Reads] = Reads(target=False)

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        # Colours change before noise is added, as in a camera.
        image = crop(self.settings, "source", batch["source_image"], state.step, rng)
        batch = batch | {"source_image": change_source(self.settings, image, state.step, rng)}
        view = augment_source(self.settings, batch, state.step, rng)
        return self.update(self.count_classes(state, view.label), view)

    def update(self, state: TrainState, view: SourceView) -> tuple[TrainState, Metrics]:
        """One step on an augmented batch."""
        # Counted over the whole batch before any gradient is taken, see SEAN.
        labelled = sum_over_devices(count_labelled(view.label)).clip(1)
        adjustment = self.adjustment(state)

        def loss_fn(student: Params, view: SourceView) -> jax.Array:
            logits = self.network.predict(student, view.image, view.dropout).logits
            return segmentation_loss(logits, view.label, adjustment=adjustment) / labelled

        local = sum_over_parts(
            lambda part: jax.value_and_grad(loss_fn)(state.params["student"], part), view, self.accumulate_steps
        )
        loss, gradients = sum_over_devices(local)
        state, metrics = self.apply_gradients(state, gradients)
        return state, {"train/loss": loss, "train/loss_segmentation": loss, **metrics}
