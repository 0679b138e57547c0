"""Curriculum domain adaptation (Zhang et al., ICCV 2017): easy properties of the target guide its segmentation.

A stage infers two properties of each target image from a network that was trained on the source
(:mod:`sean_jax.run.properties`): its label distribution, and the labels of the superpixels that are easy to tell. The
network then learns the labels of the source, the labels of those superpixels, and the inferred label distributions.

The code that inferred the properties was never published and its data are gone; :attr:`CDA.SUBSTITUTED` says what
stands in for it. The losses are those of the published training code, whose quirks ``--preset=published`` follows.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from sean_jax.methods.base import (
    Batch,
    Method,
    Metrics,
    Params,
    Reads,
    Stage,
    TrainState,
    sum_over_devices,
    sum_over_parts,
)
from sean_jax.ops.resize import resize_bilinear
from sean_jax.settings import setting, settings
from sean_jax.training import optimizers
from sean_jax.training.augmentation import (
    AugmentationSettings,
    SourceView,
    TargetView,
    augment_source,
    augment_target,
    crop_and_mirror_target,
)
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.target_properties import (
    area_weights,
    class_balance,
    distribution_losses,
    of_pixels,
    soft_label_distribution,
)


@settings
class CDASettings(AugmentationSettings):
    """The paper's; ``published`` in :attr:`CDA.PRESETS` lists where the authors' code differs."""

    superpixel_weight: float = setting(1.0, "weight of the loss on the target's superpixel labels", least=0)
    distribution_weight: float = setting(0.1, "weight of the loss on the target's label distributions", least=0)
    distribution_exponent: float = setting(
        6.0, "exponent K of the soft label distribution (paper 6, authors' code 5)", least=0
    )
    class_balance: bool = setting(True, "weigh pixels so that the classes in an image count alike")
    loss_reduction: Literal["labelled", "all"] = setting(
        "labelled",
        "means over labelled pixels of a domain and over target images, or over all pixels and images of both domains "
        "(authors' code)",
    )
    logit_limit: float = setting(30.0, "logits are clipped to plus or minus this value in the losses", least=0)
    superpixel_count: int = setting(100, "superpixels of an image, about", least=2, most=60_000)
    superpixel_share: float = setting(
        0.6, "share of an image's superpixels, the most confident ones, whose labels are used", least=0, most=1
    )
    property_images: int = setting(
        1000, "source images, drawn at random, from which to learn to infer the target's properties", least=1
    )
    properties: str | None = setting(
        None, "which inferred properties beside the prepared target to use; default: inferred by a stage of the run"
    )


class View(NamedTuple):
    """The augmented batch of one device, and the properties of its target images."""

    source: SourceView
    target: TargetView
    landmarks: jax.Array  # [b, H, W] class index of the pixel's superpixel, or 255
    area_weights: jax.Array  # [b, H, W] float32, see area_weights
    distribution: jax.Array  # [b, classes] float32, sums to 1 for each image


class Losses(NamedTuple):
    """The three losses, or their divisors; float32 scalars."""

    segmentation: jax.Array
    superpixels: jax.Array
    distribution: jax.Array


class CDA(Method):
    """Segmentation loss on the source; superpixel labels and label distributions on the target."""

    Settings: ClassVar[type] = CDASettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "noise_std": 0.0,
            "distribution_exponent": 5.0,
            "loss_reduction": "all",  # halves the weight of the distributions: source images count with a loss of 0
            "optimizer": "sgd",
            "momentum": 0.0,
            "weight_decay": 0.0,
            "learning_rate": 1e-5,
            "height": 320,
            "width": 640,
            "batch_size": 4,
            "steps": 13_600,  # six epochs of SYNTHIA's 9,087 training images
            "eval_every": 500,
        },
        "quick": {"random_flip": True},
    }
    READS: ClassVar[Reads] = Reads(target_extras=("superpixels", "superpixel_labels", "label_distribution"))
    STAGES: ClassVar[Mapping[str, Stage]] = {
        "source": Stage({"method": "source_only"}, gives="init_weights"),
        "properties": Stage({}, gives="properties", command="infer_properties"),
    }
    SUBSTITUTED: ClassVar[Mapping[str, str]] = {
        "Inception-ResNet-v2 features of images": "mean features of the source-trained network",
        "PASCAL-Context FCN-8s scores of superpixels": "class probabilities by the source-trained network",
        "LSC superpixels": "SLIC superpixels",
        "linear SVM on superpixels": "multinomial logistic regression",
    }

    def stored_extra(self, name: str) -> str:
        return f"{name}_{self.settings.properties}"

    def tx(self) -> Any:
        return optimizers.make_optimizer(self.optimizer, decay_mask=self.network.used)

    def init(self, key: jax.Array, params: Params) -> TrainState:
        del key
        network = jax.tree.map(lambda x: jnp.array(x, copy=True), params)  # the state is donated to each step
        return TrainState(
            step=jnp.int32(0), params={"network": network}, opt_state={"network": self.tx().init(network)}
        )

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        return {"network": state.params["network"]}

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        return self.update(state, self.augment(batch, state.step, rng))

    def augment(self, batch: Batch, step: jax.Array, rng: jax.Array) -> View:
        """g(X_s) and g(X_t) with the target's properties, whose maps are mirrored along."""
        superpixels = crop_and_mirror_target(self.settings, batch, step, rng, "target_superpixels").astype(jnp.int32)
        labels = batch["target_superpixel_labels"]
        landmarks = jnp.take_along_axis(labels, superpixels.reshape(len(labels), -1), 1).reshape(superpixels.shape)
        return View(
            augment_source(self.settings, batch, step, rng),
            augment_target(self.settings, batch, step, rng),
            landmarks,
            area_weights(superpixels, labels.shape[1]),
            batch["target_label_distribution"],
        )

    def update(self, state: TrainState, view: View) -> tuple[TrainState, Metrics]:
        """One step on an augmented batch."""
        # Counted over the whole batch before any gradient is taken, see SEAN.
        divisors = sum_over_devices(self.divisors(view))

        def loss_fn(network: Params, view: View) -> tuple[jax.Array, Losses]:
            losses = self.losses(*self.predict(network, view), view, divisors)
            return self.total(losses), losses

        local = sum_over_parts(
            lambda part: jax.grad(loss_fn, has_aux=True)(state.params["network"], part), view, self.accumulate_steps
        )
        gradients, losses = sum_over_devices(local)
        network, opt_state, metrics = optimizers.apply(
            self.tx(),
            gradients,
            state.opt_state["network"],
            state.params["network"],
            optimizers.learning_rate_at(self.optimizer, state.step, self.steps),
        )
        state = TrainState(step=state.step + 1, params={"network": network}, opt_state={"network": opt_state})
        values = {f"train/loss_{name}": value for name, value in losses._asdict().items()}
        return state, {"train/loss": self.total(losses), **values, **metrics}

    def predict(self, network: Params, view: View) -> tuple[jax.Array, jax.Array]:
        """Logits of source and target at the size of the labels, from one pass over both."""
        images = jnp.concatenate([view.source.image, view.target.image])
        keys = None
        if view.source.dropout is not None and view.target.dropout is not None:
            keys = jnp.concatenate([view.source.dropout, view.target.dropout])
        examples, height, width = view.landmarks.shape
        logits = resize_bilinear(self.network.predict(network, images, keys).logits, (height, width))
        return logits[:examples], logits[examples:]

    def divisors(self, view: View) -> Losses:
        """This device's part of the divisors of the losses."""
        examples, pixels = len(view.landmarks), view.landmarks.size
        if self.settings.loss_reduction == "all":
            return Losses(jnp.float32(2 * pixels), jnp.float32(2 * pixels), jnp.float32(2 * examples))
        return Losses(count_labelled(view.source.label), count_labelled(view.landmarks), jnp.float32(examples))

    def losses(self, source_logits: jax.Array, target_logits: jax.Array, view: View, divisors: Losses) -> Losses:
        """This device's part of the losses.

        Args:
          source_logits, target_logits: ``[b, H, W, classes]`` float32.
          view: of which the images are not read.
          divisors: summed over all devices and parts of the batch.
        """
        s = self.settings
        source_logits, target_logits = (
            jnp.clip(x, -s.logit_limit, s.logit_limit) for x in (source_logits, target_logits)
        )
        source_weights, target_weights = jnp.ones(view.source.label.shape, jnp.float32), view.area_weights
        if s.class_balance:
            source_weights *= of_pixels(class_balance(view.source.label, self.network.num_classes), view.source.label)
            target_weights *= of_pixels(class_balance(view.landmarks, self.network.num_classes), view.landmarks)
        distribution = soft_label_distribution(target_logits, s.distribution_exponent)
        sums = Losses(
            segmentation_loss(source_logits, view.source.label, source_weights),
            segmentation_loss(target_logits, view.landmarks, target_weights),
            jnp.sum(distribution_losses(distribution, view.distribution)),
        )
        return Losses(*(total / divisor.clip(1) for total, divisor in zip(sums, divisors, strict=True)))

    def total(self, losses: Losses) -> jax.Array:
        """The weighted sum of the losses."""
        s = self.settings
        return (
            losses.segmentation + s.superpixel_weight * losses.superpixels + s.distribution_weight * losses.distribution
        )
