"""Cross-city adaptation, CCA (Chen et al., "No More Discrimination", ICCV 2017): global and class-wise alignment.

In class-wise alignment, one discriminator for each class tells the domains apart; a cell of the feature map is
weighted by the class's share of it, in the labels of the source and in the prediction of the target.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.methods.base import Metrics, Params, Stage, TrainState
from sean_jax.methods.domain_adversarial import (
    Alignment,
    DomainAdversarial,
    DomainAdversarialSettings,
    DomainView,
    Update,
    half_of_both,
)
from sean_jax.models import Prediction
from sean_jax.settings import setting, settings
from sean_jax.training.adversarial import (
    Domains,
    adaptation_factor,
    cell_means,
    class_weights,
    domain_losses,
    label_shares,
)


@settings
class CCASettings(DomainAdversarialSettings):
    """Those of the authors' code; its other quirks are in the preset ``published``."""

    confusion_learning_rate_factor: float = setting(
        0.05, "final learning rate at which features learn to confuse the discriminator, as a factor", least=0
    )
    class_discriminator_learning_rate_factor: float = setting(
        20.0, "learning rate of the discriminators of single classes, as a factor of --learning_rate", least=0
    )
    class_confusion_learning_rate_factor: float = setting(
        0.05, "final learning rate at which features learn to confuse the discriminators of classes", least=0
    )
    class_alignment_start: float = setting(1000.0, "step at which class-wise alignment starts", least=0)
    void_source_pixels: Literal["ignored", "class_0"] = setting(
        "ignored", "what void source pixels count as in class-wise alignment; class_0 in the authors' code"
    )


class CCA(DomainAdversarial):
    """Segmentation loss, discriminator, confusion L_inv; later those of each class, with confusion (L + L_inv)/2."""

    Settings: ClassVar[type] = CCASettings
    STAGES: ClassVar[Mapping[str, Stage]] = {"source": Stage({"method": "source_only"}, gives="init_weights")}
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "architecture": "dilated",
            "optimizer": "adam_tensorflow",
            "learning_rate": 5e-6,
            "weight_decay": 5e-4,
            "height": 256,
            "width": 512,
            "batch_size": 4,
            "steps": 10_000,
            "noise_std": 0.0,
            "segmentation_reduction": "all_pixels",
            "void_source_pixels": "class_0",
        },
        "quick": {
            "random_flip": True,
            "discriminator_channels": 64,
            "confusion_ramp_steps": 360.0,
            "class_alignment_start": 200.0,
        },
    }

    settings: CCASettings

    def init(self, key: jax.Array, params: Params) -> TrainState:
        state = super().init(key, params)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, 1 + jnp.arange(self.network.num_classes))
        discriminators = jax.vmap(self.init_discriminator)(keys)
        added = {
            "class_discriminators": self.tx().init(discriminators),
            "class_confusion": self.tx().init(state.params["network"]),
        }
        return state.replace(
            params=state.params | {"class_discriminators": discriminators}, opt_state=state.opt_state | added
        )

    def updates(self) -> tuple[Update, ...]:
        return (*super().updates(), self.update_class_alignment)

    def confusion(self, alignment: Alignment) -> jax.Array:
        return alignment.inverse

    def update_class_alignment(self, state: TrainState, view: DomainView) -> tuple[TrainState, Metrics]:
        """Both updates of class-wise alignment; before its start the state stays as it is and the metrics are zero."""

        def both(state: TrainState) -> tuple[TrainState, Metrics]:
            state, found = self.update_class_discriminators(state, view)
            state, confused = self.update_class_confusion(state, view)
            return state, found | confused

        def neither(state: TrainState) -> tuple[TrainState, Metrics]:
            return state, {name: jnp.zeros_like(value) for name, value in jax.eval_shape(both, state)[1].items()}

        return lax.cond(state.step.astype(jnp.float32) >= self.settings.class_alignment_start, both, neither, state)

    def update_class_discriminators(self, state: TrainState, view: DomainView) -> tuple[TrainState, Metrics]:
        network, discriminators = state.params["network"], state.params["class_discriminators"]
        gradients, found = self.discriminator_gradients(network, discriminators, view, self.align_classes)
        rate = self.settings.class_discriminator_learning_rate_factor * self.learning_rate(state)
        state, _ = self.apply(state, "class_discriminators", "class_discriminators", gradients, rate)
        return state, {
            "train/loss_class_discriminators": found.loss,
            "train/class_domain_accuracy": found.accuracy / self.network.num_classes,
        }

    def update_class_confusion(self, state: TrainState, view: DomainView) -> tuple[TrainState, Metrics]:
        network, discriminators = state.params["network"], state.params["class_discriminators"]
        gradients, loss = self.confusion_gradients(network, discriminators, view, half_of_both, self.align_classes)
        s = self.settings
        ramp = adaptation_factor(state.step.astype(jnp.float32) - s.class_alignment_start, s.confusion_ramp_steps)
        rate = s.class_confusion_learning_rate_factor * ramp * self.learning_rate(state)
        state, _ = self.apply(state, "class_confusion", "network", gradients, rate)
        return state, {"train/loss_class_confusion": loss}

    def align_classes(self, network: Params, discriminators: Params, view: DomainView) -> Alignment:
        """Means over images, sums over classes. Cells that do not contain a class do not count in its loss."""
        prediction = self.predict_both(network, view)
        source, target = jnp.split(self.class_logits(discriminators, prediction.features, view), 2, axis=1)
        shares = self.cell_shares(prediction, view)
        losses = domain_losses(Domains(source, target), Domains(*map(class_weights, shares)))
        return Alignment(*(x / self.global_count(2 * source.shape[1]) for x in losses))

    def class_logits(self, discriminators: Params, features: jax.Array, view: DomainView) -> jax.Array:
        """Domain logits ``[classes, 2b, h, w, 2]``; the classes draw their dropout independently."""
        keys = None
        if view.source_dropout is not None and view.target_dropout is not None:
            keys = jnp.concatenate([view.source_dropout, view.target_dropout])

        def of_class(index: jax.Array, discriminator: Params) -> jax.Array:
            own = None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, 2 + index))(keys)
            return self.discriminate(discriminator, features, own)

        return jax.vmap(of_class)(jnp.arange(self.network.num_classes), discriminators)

    def cell_shares(self, prediction: Prediction, view: DomainView) -> Domains:
        """The share of each class in each cell ``[b, h, w, classes]``: source labels, target probabilities."""
        _, *size, _ = prediction.features.shape
        cells = size[0], size[1]
        _, target = jnp.split(lax.stop_gradient(prediction.logits), 2)
        return Domains(
            label_shares(view.source.label, self.network.num_classes, cells, self.settings.void_source_pixels),
            cell_means(jax.nn.softmax(target), cells),
        )
