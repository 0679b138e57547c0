"""NoAdapt: the network trained on the labelled source alone; the baseline of every adaptation.

Same network, initialisation, schedule and moving average as SEAN; the target is never read.
"""

import jax

from sean_jax.methods.base import (
    Batch,
    Metrics,
    Params,
    SelfEnsembling,
    SelfEnsemblingState,
    SourceView,
    sum_over_devices,
    sum_over_micro_batches,
)
from sean_jax.training.losses import count_labelled, segmentation_loss


class SourceOnly(SelfEnsembling):
    """Cross-entropy on the source. Student and teacher are both evaluated: averaging is not credited to adaptation."""

    reads_target = False

    def step(self, state: SelfEnsemblingState, batch: Batch, rng: jax.Array) -> tuple[SelfEnsemblingState, Metrics]:
        return self.update(state, self.augment_source(batch, state.step, rng))

    def update(self, state: SelfEnsemblingState, view: SourceView) -> tuple[SelfEnsemblingState, Metrics]:
        """One step on an augmented batch."""
        # Counted over the whole batch before any gradient is taken, see SEAN.
        labelled = sum_over_devices(count_labelled(view.label)).clip(1)

        def loss_fn(student: Params, view: SourceView) -> jax.Array:
            return segmentation_loss(self.network.predict(student, view.image).logits, view.label) / labelled

        local = sum_over_micro_batches(
            lambda part: jax.value_and_grad(loss_fn)(state.student, part), view, self.config.accumulate_steps
        )
        loss, gradients = sum_over_devices(local)
        return self.apply_gradients(state, gradients), {"train/loss": loss, "train/loss_segmentation": loss}
