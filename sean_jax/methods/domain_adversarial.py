"""A network, and a discriminator that tells by its features where an image is from: what adversarial methods share.

A step updates the network by the segmentation loss, the discriminator, and the network's features so that they confuse
the discriminator. Each update has an optimiser of its own and is computed after the one before it.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers

from sean_jax.methods.base import Batch, Method, Metrics, Params, TrainState, sum_over_devices, sum_over_parts
from sean_jax.models import Prediction
from sean_jax.models.discriminator import Discriminator
from sean_jax.models.network import MIN_SIZE, PRECISIONS
from sean_jax.settings import setting, settings
from sean_jax.training import optimizers
from sean_jax.training.adversarial import Domains, adaptation_factor, domain_losses
from sean_jax.training.augmentation import (
    AugmentationSettings,
    SourceView,
    TargetView,
    augment_source,
    augment_target,
)
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.randomness import example_keys


@settings
class DomainAdversarialSettings(AugmentationSettings):
    """The public code's factors. Each multiplies ``--learning_rate``."""

    segmentation_reduction: Literal["labelled_pixels", "all_pixels"] = setting(
        "labelled_pixels", "what the segmentation loss is a mean over; all_pixels counts void ones too (public code)"
    )
    discriminator_channels: int = setting(1024, "channels of each hidden layer of a discriminator", least=1)
    discriminator_learning_rate_factor: float = setting(
        10.0, "learning rate of the discriminator, as a factor of --learning_rate", least=0
    )
    confusion_learning_rate_factor: float = setting(
        1.0, "final learning rate at which features learn to confuse the discriminator, as a factor", least=0
    )
    confusion_ramp_steps: float = setting(
        1200.0, "steps T of the ramp 2/(1+exp(-10t/T))-1 of the learning rate of the confusion", least=1
    )


class DomainView(NamedTuple):
    """The augmented batch of one device, and keys ``[b]`` of the discriminator's dropout."""

    source: SourceView
    target: TargetView
    source_dropout: jax.Array | None = None
    target_dropout: jax.Array | None = None


class Alignment(NamedTuple):
    """This device's part of the mean losses of a discriminator, and of its accuracy; scalars."""

    loss: jax.Array
    inverse: jax.Array
    accuracy: jax.Array


Align = Callable[[Params, Params, DomainView], Alignment]  # of the network, the discriminator and the batch
Update = Callable[[TrainState, DomainView], tuple[TrainState, Metrics]]


class DomainAdversarial(Method):
    """Initial state, the three updates that a step begins with, and the evaluated network."""

    settings: DomainAdversarialSettings

    def tx(self, decay: bool = False) -> Any:
        """An optimiser. Only the segmentation loss is regularised: weight decay would move layers without gradient."""
        settings = self.optimizer if decay else optimizers.without_weight_decay(self.optimizer)
        return optimizers.make_optimizer(settings, decay_mask=self.network.decayed if decay else None)

    def init(self, key: jax.Array, params: Params) -> TrainState:
        network = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
        discriminator = self.init_discriminator(key)
        return TrainState(
            step=jnp.int32(0),
            params={"network": network, "discriminator": discriminator},
            opt_state={
                "segmentation": self.tx(decay=True).init(network),
                "discriminator": self.tx().init(discriminator),
                "confusion": self.tx().init(network),
            },
        )

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        return {"network": state.params["network"]}

    def augment(self, batch: Batch, step: jax.Array, rng: jax.Array) -> DomainView:
        """Both domains' images, seen alike by all updates of a step."""
        examples = batch["source_image"].shape[0]
        return DomainView(
            augment_source(self.settings, batch, step, rng),
            augment_target(self.settings, batch, step, rng),
            example_keys(rng, "source_discriminator_dropout", step, examples),
            example_keys(rng, "target_discriminator_dropout", step, examples),
        )

    def learning_rate(self, state: TrainState) -> jax.Array:
        return optimizers.learning_rate_at(self.optimizer, state.step, self.steps)

    # The discriminator

    def discriminator_module(self) -> Discriminator:
        dtype, precision = PRECISIONS[self.network.precision]
        return Discriminator(
            (self.settings.discriminator_channels,) * 2,
            kernel_init=initializers.truncated_normal(0.001),
            dtype=dtype,
            precision=precision,
        )

    def init_discriminator(self, key: jax.Array) -> Params:
        image = jax.ShapeDtypeStruct((1, MIN_SIZE, MIN_SIZE, 3), jnp.float32)
        features = jax.eval_shape(self.network.predict, self.network.abstract_params(), image).features
        return dict(self.discriminator_module().init(key, jnp.zeros((1, 1, 1, features.shape[-1])))["params"])

    def discriminate(self, discriminator: Params, features: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Domain logits ``[b, h, w, 2]``."""
        return self.discriminator_module().apply({"params": discriminator}, features, keys)  # pyright: ignore[reportReturnType]

    # Losses

    def predict_both(self, network: Params, view: DomainView) -> Prediction:
        """The network on source and target images, in one pass."""
        images = jnp.concatenate([view.source.image, view.target.image])
        return self.network.predict(network, images, _both(view.source.dropout, view.target.dropout))

    def align(self, network: Params, discriminator: Params, view: DomainView) -> Alignment:
        """Global alignment: means over the positions of both domains."""
        features = self.predict_both(network, view).features
        logits = self.discriminate(discriminator, features, _both(view.source_dropout, view.target_dropout))
        examples, *cells, _ = logits.shape
        losses = domain_losses(Domains(*jnp.split(logits, 2)))
        return Alignment(*(x / (self.global_count(examples) * cells[0] * cells[1]) for x in losses))

    def global_count(self, examples: int) -> jax.Array:
        """The number of examples on all devices, of which a device processes ``examples`` at a time."""
        return sum_over_devices(jnp.float32(examples)) * self.accumulate_steps

    def segmentation_gradients(self, network: Params, view: SourceView) -> tuple[Params, jax.Array]:
        """The gradient of the segmentation loss, and the loss."""
        every_pixel = self.settings.segmentation_reduction == "all_pixels"
        pixels = sum_over_devices(jnp.float32(view.label.size) if every_pixel else count_labelled(view.label)).clip(1)

        def loss_fn(network: Params, view: SourceView) -> jax.Array:
            return (
                segmentation_loss(self.network.predict(network, view.image, view.dropout).logits, view.label) / pixels
            )

        local = sum_over_parts(lambda part: jax.value_and_grad(loss_fn)(network, part), view, self.accumulate_steps)
        loss, gradients = sum_over_devices(local)
        return gradients, loss

    def discriminator_gradients(
        self, network: Params, discriminator: Params, view: DomainView, align: Align | None = None
    ) -> tuple[Params, Alignment]:
        """The gradient of the discriminator's loss with respect to the discriminator."""

        def loss_fn(discriminator: Params, view: DomainView) -> tuple[jax.Array, Alignment]:
            alignment = (align or self.align)(network, discriminator, view)
            return alignment.loss, alignment

        return sum_over_devices(
            sum_over_parts(
                lambda part: jax.grad(loss_fn, has_aux=True)(discriminator, part), view, self.accumulate_steps
            )
        )

    def confusion_gradients(
        self,
        network: Params,
        discriminator: Params,
        view: DomainView,
        confusion: Callable[[Alignment], jax.Array],
        align: Align | None = None,
    ) -> tuple[Params, jax.Array]:
        """The gradient of ``confusion`` with respect to the network, which is zero after the features, and its value.

        If no accumulation intervenes, the compiler merges the forward pass with that of the discriminator's update:
        the network and the random numbers are the same.
        """

        def loss_fn(network: Params, view: DomainView) -> tuple[jax.Array, jax.Array]:
            loss = confusion((align or self.align)(network, discriminator, view))
            return loss, loss

        return sum_over_devices(
            sum_over_parts(lambda part: jax.grad(loss_fn, has_aux=True)(network, part), view, self.accumulate_steps)
        )

    # Updates

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        view, metrics = self.augment(batch, state.step, rng), {}
        for update in self.updates():
            state, found = update(state, view)
            metrics |= found
        return state.replace(step=state.step + 1), metrics

    def updates(self) -> tuple[Update, ...]:
        """The updates of a step, in order."""
        return self.update_segmentation, self.update_discriminator, self.update_confusion

    def update_segmentation(self, state: TrainState, view: DomainView) -> tuple[TrainState, Metrics]:
        gradients, loss = self.segmentation_gradients(state.params["network"], view.source)
        state, metrics = self.apply(state, "segmentation", "network", gradients, self.learning_rate(state))
        return state, {"train/loss": loss, "train/loss_segmentation": loss, **metrics}

    def update_discriminator(self, state: TrainState, view: DomainView) -> tuple[TrainState, Metrics]:
        gradients, found = self.discriminator_gradients(state.params["network"], state.params["discriminator"], view)
        rate = self.settings.discriminator_learning_rate_factor * self.learning_rate(state)
        state, _ = self.apply(state, "discriminator", "discriminator", gradients, rate)
        return state, {"train/loss_discriminator": found.loss, "train/domain_accuracy": found.accuracy}

    def update_confusion(self, state: TrainState, view: DomainView) -> tuple[TrainState, Metrics]:
        gradients, loss = self.confusion_gradients(
            state.params["network"], state.params["discriminator"], view, self.confusion
        )
        s = self.settings
        factor = s.confusion_learning_rate_factor * adaptation_factor(state.step, s.confusion_ramp_steps)
        state, _ = self.apply(state, "confusion", "network", gradients, factor * self.learning_rate(state))
        return state, {"train/loss_confusion": loss}

    def confusion(self, alignment: Alignment) -> jax.Array:
        """What the features minimise in global alignment."""
        raise NotImplementedError

    def apply(
        self, state: TrainState, optimizer: str, params: str, gradients: Params, rate: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Updates ``params`` with the optimiser of that name."""
        new, opt_state, metrics = optimizers.apply(
            self.tx(decay=optimizer == "segmentation"),
            gradients,
            state.opt_state[optimizer],
            state.params[params],
            rate,
        )
        state = state.replace(params=state.params | {params: new}, opt_state=state.opt_state | {optimizer: opt_state})
        return state, metrics


def half_of_both(alignment: Alignment) -> jax.Array:
    """(L + L_inv) / 2: smallest where the discriminator is undecided."""
    return (alignment.loss + alignment.inverse) / 2


def _both(source: jax.Array | None, target: jax.Array | None) -> jax.Array | None:
    return None if source is None or target is None else jnp.concatenate([source, target])
