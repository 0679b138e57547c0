"""FCNs in the Wild (Hoffman et al., 2016): global alignment of features, and constraints on the target's class areas.

The authors published no code; numbers follow the public TensorFlow code that CCA's authors wrote for comparison.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from sean_jax.methods.base import Metrics, Params, Reads, Stage, TrainState, sum_over_devices, sum_over_parts
from sean_jax.methods.domain_adversarial import (
    Alignment,
    DomainAdversarial,
    DomainAdversarialSettings,
    DomainView,
    Update,
    half_of_both,
)
from sean_jax.ops.resize import resize_bilinear
from sean_jax.settings import setting, settings
from sean_jax.training.augmentation import TargetView
from sean_jax.training.constraints import ClassAreas, class_areas, constrained_labels, present_classes

ROAD_BUILDING_VEGETATION = (0, 2, 8)  # of Cityscapes' 19 classes


@settings
class FCNsInTheWildSettings(DomainAdversarialSettings):
    """Those of the public code; its other quirks are in the preset ``published``."""

    constraint_learning_rate_factor: float = setting(
        0.1, "learning rate of the category constraints, as a factor of --learning_rate", least=0
    )
    constraint_stride: int = setting(4, "every n-th pixel of the target, in both directions, is constrained", least=1)
    constraint_slack_weight: float = setting(2.0, "cost of an area below its lower bound", least=0)
    constraint_reduction: Literal["mean", "sum"] = setting(
        "mean", "over target images, of the gradient of the constraints; sum in the public code"
    )
    large_classes: Literal["by_area", "road_building_vegetation"] = setting(
        "by_area", "classes whose gradient is scaled: small area above 0.1 (paper), or indices 0, 2, 8 (public code)"
    )
    large_class_factor: float = setting(0.1, "factor of the gradient of large classes", least=0)


class ConstraintLoss(NamedTuple):
    """The loss of the category constraints; its value is that of a single device's images.

    Attributes:
      loss: whose gradient with respect to the logits is (p − q)/N at each of the N cells of an image, times the factor
        of the class.
      divergence: the mean over cells of KL(q‖p), summed over images.
    """

    loss: jax.Array
    divergence: jax.Array


class FCNsInTheWild(DomainAdversarial):
    """Segmentation loss, discriminator, confusion (L + L_inv)/2, category constraints."""

    Settings: ClassVar[type] = FCNsInTheWildSettings
    READS: ClassVar[Reads] = Reads(source_statistics=True)
    STAGES: ClassVar[Mapping[str, Stage]] = {"source": Stage({"method": "source_only"}, gives="init_weights")}
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "architecture": "dilated",
            "optimizer": "adam_tensorflow",
            "learning_rate": 1e-6,
            "weight_decay": 5e-4,
            "height": 256,
            "width": 512,
            "batch_size": 4,
            "steps": 2000,
            "noise_std": 0.0,
            "segmentation_reduction": "all_pixels",
            "constraint_reduction": "sum",
            "large_classes": "road_building_vegetation",
        },
        "quick": {"random_flip": True, "discriminator_channels": 256, "confusion_ramp_steps": 360.0},
    }

    settings: FCNsInTheWildSettings

    def init(self, key: jax.Array, params: Params) -> TrainState:
        """Without statistics of the source, an area may have any value."""
        state = super().init(key, params)
        anything = ClassAreas(*(jnp.full(self.network.num_classes, x, jnp.float32) for x in (0, 0, 1)))
        constraints = self.tx().init(state.params["network"])
        return state.replace(opt_state=state.opt_state | {"constraints": constraints}, memory={"areas": anything})

    def with_source_shares(self, state: TrainState, shares: jax.Array) -> TrainState:
        return state.replace(memory={"areas": class_areas(shares)})

    def updates(self) -> tuple[Update, ...]:
        return (*super().updates(), self.update_constraints)

    def confusion(self, alignment: Alignment) -> jax.Array:
        return half_of_both(alignment)

    def update_constraints(self, state: TrainState, view: DomainView) -> tuple[TrainState, Metrics]:
        gradients, divergence = self.constraint_gradients(state.params["network"], state.memory["areas"], view.target)
        rate = self.settings.constraint_learning_rate_factor * self.learning_rate(state)
        state, _ = self.apply(state, "constraints", "network", gradients, rate)
        return state, {"train/constraint_divergence": divergence}

    def constraint_gradients(self, network: Params, areas: ClassAreas, view: TargetView) -> tuple[Params, jax.Array]:
        """The gradient of the constraint loss, and the mean of KL(q‖p) over target images."""
        images = sum_over_devices(jnp.float32(len(view.image)))
        scale = 1 / images if self.settings.constraint_reduction == "mean" else 1.0

        def loss_fn(network: Params, view: TargetView) -> tuple[jax.Array, jax.Array]:
            logits = self.network.predict(network, view.image, view.dropout).logits
            found = self.constraint_loss(resize_bilinear(logits, (view.image.shape[1], view.image.shape[2])), areas)
            return scale * found.loss, found.divergence

        gradients, divergence = sum_over_devices(
            sum_over_parts(lambda part: jax.grad(loss_fn, has_aux=True)(network, part), view, self.accumulate_steps)
        )
        return gradients, divergence / images

    def constraint_loss(self, logits: jax.Array, areas: ClassAreas) -> ConstraintLoss:
        """The loss on target logits ``[b, H, W, classes]``, summed over images."""
        stride = self.settings.constraint_stride
        cells = logits[:, ::stride, ::stride].reshape(len(logits), -1, logits.shape[-1])
        labels = jax.lax.stop_gradient(jax.vmap(lambda x: self.labels(x, areas))(cells))
        factors = self.class_factors(areas).reshape(1, 1, -1)
        fixed = jax.lax.stop_gradient(cells)
        cells = fixed + factors * (cells - fixed)  # the logits, with the gradient of each class scaled
        log_probs = jax.nn.log_softmax(cells)
        loss = -jnp.sum(labels * log_probs) / cells.shape[1]
        entropy = -jnp.sum(jax.scipy.special.xlogy(labels, labels)) / cells.shape[1]
        return ConstraintLoss(loss, loss - entropy)

    def labels(self, logits: jax.Array, areas: ClassAreas) -> jax.Array:
        """q of an image, ``[cells, classes]``."""
        present = present_classes(logits, areas)
        return constrained_labels(logits, present, areas.mean, areas.high, self.settings.constraint_slack_weight).probs

    def class_factors(self, areas: ClassAreas) -> jax.Array:
        """Factors of the gradient by class, ``[classes]``."""
        large = areas.low > 0.1
        if self.settings.large_classes == "road_building_vegetation":
            large = jnp.isin(jnp.arange(len(areas.low)), jnp.array(ROAD_BUILDING_VEGETATION))
        return jnp.where(large, self.settings.large_class_factor, 1.0)
