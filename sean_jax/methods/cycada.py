"""CyCADA (Hoffman et al., ICML 2018): CycleGAN, training on the translated source, and feature-level adaptation.

The last of these is the method of this file; the others are stages, each an ordinary run or command. As in the authors'
scripts, one network serves both domains.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sean_jax.methods.base import Batch, Method, Metrics, Params, Stage, TrainState, sum_over_devices, sum_over_parts
from sean_jax.models import Prediction
from sean_jax.models.discriminator import Discriminator
from sean_jax.models.network import PRECISIONS
from sean_jax.settings import setting, settings
from sean_jax.training import optimizers
from sean_jax.training.adversarial import add_to_window, count_recognised, domain_cross_entropy
from sean_jax.training.augmentation import (
    AugmentationSettings,
    SourceView,
    TargetView,
    augment_source,
    augment_target,
)
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.randomness import purpose_key

SOURCE, TARGET = 1, 0  # the discriminator's classes
_PUBLISHED = {  # of training on the translated source, and of adaptation
    "architecture": "fcn8s",
    "optimizer": "sgd",
    "momentum": 0.99,
    "weight_decay": 5e-4,
    "height": 1024,
    "width": 2048,
    "steps": 100_000,
    "noise_std": 0.0,
}


@settings
class CyCADASettings(AugmentationSettings):
    """The published values."""

    discriminator_input: Literal["scores", "features"] = setting(
        "scores", "what the discriminator reads: the class scores, or the features before the classifier"
    )
    discriminator_weight: float = setting(1.0, "weight of the discriminator's loss (lambda_d)", least=0)
    adversarial_weight: float = setting(0.1, "weight of the network's loss against the discriminator", least=0)
    discriminator_learning_rate_factor: float = setting(
        1.0, "learning rate of the discriminator, as a factor of --learning_rate", least=0
    )
    accuracy_threshold: float = setting(
        60.0, "update the network if the discriminator's mean accuracy in percent exceeds this", least=0, most=100
    )
    accuracy_window: int = setting(100, "steps over which the discriminator's accuracy is averaged", least=1)
    translator: str | None = setting(
        None, "run directory of --method=cyclegan, or none to adapt features only; default: trained first"
    )


class CyCADA(Method):
    """A discriminator learns to tell the domains apart; while it can, the network learns against it and on the source.

    A step updates the discriminator. If the mean of its latest accuracies exceeds the threshold, it then updates the
    network twice with one optimiser, whose moments the two updates share: first on the target, with the discriminator's
    loss for the wrong domain, then on the labelled source.

    The authors' script stops if the network was not updated for as many steps as the smaller data set has images. Here
    the discriminator goes on learning, and ``train/steps_since_update`` counts these steps. The script also skips
    batches without a labelled pixel; here their segmentation loss is zero.
    """

    Settings: ClassVar[type] = CyCADASettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {"noise_std": 0.1, "noise_domains": "target"},
        "quick": {  # with the published discriminator, 200 steps end before the network is updated
            **{"random_flip": True, "steps": 200, "learning_rate": 1e-4},
            **{"discriminator_input": "features", "discriminator_learning_rate_factor": 10.0},
        },
        # Those of the shell scripts. Weights of a VGG-16 come from --init_weights.
        "published": _PUBLISHED | {"learning_rate": 1e-5, "batch_size": 1, "crop_size": 768, "random_flip": True},
    }
    # Initial weights of a complete network are taken for those of the stage ``source``, and --source as it is.
    STAGES: ClassVar[Mapping[str, Stage]] = {
        "cyclegan": Stage(
            {"method": "cyclegan"},
            gives="translator",
            unless=("translator", "init_weights"),
            presets={
                "quick": {"steps": 400, "batch_size": 1},
                "published": {"height": 512, "width": 1024, "crop_size": 400, "batch_size": 1, "steps": 500_000},
            },
        ),
        "translate": Stage({}, gives="source", command="translate", unless=("init_weights",)),
        "source": Stage(
            {"method": "source_only"},
            gives="init_weights",
            presets={"published": _PUBLISHED | {"learning_rate": 1e-3, "batch_size": 2, "ema_decay": 0.0}},
        ),
    }

    def init(self, key: jax.Array, params: Params) -> TrainState:
        image = jnp.zeros((1, 16, 16, 3))
        inputs = jax.eval_shape(lambda params: self.discriminator_input(self.network.predict(params, image)), params)
        discriminator = self.discriminator().init(key, jnp.zeros(inputs.shape, inputs.dtype))["params"]
        networks = {"network": jax.tree.map(lambda x: jnp.array(x, copy=True), params), "discriminator": discriminator}
        return TrainState(
            step=jnp.int32(0),
            params=networks,
            opt_state={name: self.tx(name).init(params) for name, params in networks.items()},
            memory={"margins": jnp.zeros(self.settings.accuracy_window), "steps_since_update": jnp.int32(0)},
        )

    def tx(self, name: str) -> optax.GradientTransformation:
        used = self.network.used if name == "network" else None
        return optimizers.make_optimizer(self.optimizer, decay_mask=used)

    def discriminator(self) -> Discriminator:
        dtype, precision = PRECISIONS[self.network.precision]
        channels = (512, 256) if self.settings.discriminator_input == "scores" else (1024, 512)
        return Discriminator(channels, whole_channels=True, dtype=dtype, precision=precision)

    def discriminator_input(self, prediction: Prediction) -> jax.Array:
        return prediction.logits if self.settings.discriminator_input == "scores" else prediction.features

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        return {"network": state.params["network"]}

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        source = augment_source(self.settings, batch, state.step, rng)
        return self.update(state, source, augment_target(self.settings, batch, state.step, rng))

    def update(self, state: TrainState, source: SourceView, target: TargetView) -> tuple[TrainState, Metrics]:
        """One step on an augmented batch."""
        state, metrics, losses = self.update_discriminator(state, source, target)
        margin = 100 * metrics["train/domain_accuracy"] - self.settings.accuracy_threshold
        margins, mean = add_to_window(state.memory["margins"], state.step, margin)
        state, of_network = lax.cond(
            mean > 0,
            lambda state: self.update_network(state, source, target),
            lambda state: self.keep_network(state, losses),
            state,
        )
        memory = {"margins": margins, "steps_since_update": state.memory["steps_since_update"]}
        metrics |= {
            "train/loss": of_network["train/loss_segmentation"]
            + self.settings.adversarial_weight * of_network["train/loss_adversarial"],
            "train/mean_domain_accuracy": (mean + self.settings.accuracy_threshold) / 100,
            "train/steps_since_update": memory["steps_since_update"].astype(jnp.float32),
        }
        return state.replace(step=state.step + 1, memory=memory), of_network | metrics

    def update_discriminator(
        self, state: TrainState, source: SourceView, target: TargetView
    ) -> tuple[TrainState, Metrics, Metrics]:
        """Trains the discriminator on both domains, with the network as it is.

        Returns:
          The state, the discriminator's metrics, and the network's losses before the update. Accuracy and losses are
          those before the update.
        """
        network = state.params["network"]

        def loss_fn(discriminator: Params, views: tuple[SourceView, TargetView]) -> tuple[jax.Array, dict[str, Any]]:
            source, target = views
            images = jnp.concatenate([source.image, target.image])
            prediction = self.network.predict(network, images, _both_keys(source, target, "network"))
            logits = self.discriminate(discriminator, prediction, _both_keys(source, target, "discriminator"))
            of_source, of_target = jnp.split(logits, 2)
            loss = domain_cross_entropy(of_source, SOURCE) + domain_cross_entropy(of_target, TARGET)
            sums = {
                "recognised": count_recognised(of_source, SOURCE) + count_recognised(of_target, TARGET),
                "positions": _positions(logits),
                "confusion": domain_cross_entropy(of_target, SOURCE),
                "target_positions": _positions(of_target),
                "segmentation": segmentation_loss(jnp.split(prediction.logits, 2)[0], source.label),
                "labelled": count_labelled(source.label),
            }
            return loss, sums

        (loss, sums), gradients = self.sums(loss_fn, state.params["discriminator"], (source, target))
        scale = self.settings.discriminator_weight / sums["positions"]
        rate = self.settings.discriminator_learning_rate_factor * self.learning_rate(state)
        state, _ = self.apply(state, "discriminator", _scaled(gradients, scale), rate)
        metrics = {
            "train/loss_discriminator": loss / sums["positions"],
            "train/domain_accuracy": sums["recognised"] / sums["positions"],
        }
        losses = {
            "train/loss_segmentation": sums["segmentation"] / sums["labelled"].clip(1),
            "train/loss_adversarial": sums["confusion"] / sums["target_positions"],
        }
        return state, metrics, losses

    def update_network(self, state: TrainState, source: SourceView, target: TargetView) -> tuple[TrainState, Metrics]:
        """Updates the network against the discriminator on the target, then on the labelled source."""
        state, against = self.update_against_discriminator(state, target)
        state, on_source = self.update_on_source(state, source)
        return state.replace(memory=state.memory | {"steps_since_update": jnp.int32(0)}), against | on_source

    def keep_network(self, state: TrainState, losses: Metrics) -> tuple[TrainState, Metrics]:
        """Leaves the network and its optimiser as they are."""
        metrics = {
            "train/learning_rate": self.learning_rate(state),
            "train/gradient_norm": jnp.float32(0),
            "train/update_norm": jnp.float32(0),
            "train/parameter_norm": optax.tree.norm(state.params["network"]),
        }
        steps = state.memory["steps_since_update"] + 1
        return state.replace(memory=state.memory | {"steps_since_update": steps}), losses | metrics

    def update_against_discriminator(self, state: TrainState, target: TargetView) -> tuple[TrainState, Metrics]:
        """Updates the network so that the discriminator takes the target for the source."""

        def loss_fn(network: Params, target: TargetView) -> tuple[jax.Array, jax.Array]:
            prediction = self.network.predict(network, target.image, _keys(target, "confusion, network"))
            keys = _keys(target, "confusion, discriminator")
            logits = self.discriminate(state.params["discriminator"], prediction, keys)
            return domain_cross_entropy(logits, SOURCE), _positions(logits)

        (loss, positions), gradients = self.sums(loss_fn, state.params["network"], target)
        gradients = _scaled(gradients, self.settings.adversarial_weight / positions)
        # PyTorch skips parameters until their first gradient, the weight decay included: here, with the discriminator
        # on features, those of the classifier in the first update.
        first = state.memory["steps_since_update"] == state.step
        skipped = jax.tree.map(lambda gradient: first & jnp.all(gradient == 0), gradients)
        before = state.params["network"]
        decayed = jax.tree.map(lambda skip, x: jnp.where(skip, 0, x), skipped, before)
        state = state.replace(params=state.params | {"network": decayed})
        state, _ = self.apply(state, "network", gradients, self.learning_rate(state))
        after = jax.tree.map(jnp.where, skipped, before, state.params["network"])
        return state.replace(params=state.params | {"network": after}), {"train/loss_adversarial": loss / positions}

    def update_on_source(self, state: TrainState, source: SourceView) -> tuple[TrainState, Metrics]:
        """Updates the network on the labelled source."""

        def loss_fn(network: Params, source: SourceView) -> tuple[jax.Array, jax.Array]:
            prediction = self.network.predict(network, source.image, _keys(source, "segmentation"))
            return segmentation_loss(prediction.logits, source.label), count_labelled(source.label)

        (loss, labelled), gradients = self.sums(loss_fn, state.params["network"], source)
        labelled = labelled.clip(1)
        state, metrics = self.apply(state, "network", _scaled(gradients, 1 / labelled), self.learning_rate(state))
        return state, {"train/loss_segmentation": loss / labelled, **metrics}

    def sums(self, loss_fn: Any, params: Params, view: Any) -> Any:
        """Values, further outputs and gradients of ``loss_fn(params, view)``, summed over the global batch."""
        function = jax.value_and_grad(loss_fn, has_aux=True)
        return sum_over_devices(sum_over_parts(lambda part: function(params, part), view, self.accumulate_steps))

    def discriminate(self, discriminator: Params, prediction: Prediction, keys: jax.Array | None) -> jax.Array:
        """Domain logits ``[b, h, w, 2]`` float32 of what the discriminator reads of a prediction."""
        inputs = self.discriminator_input(prediction)
        return self.discriminator().apply({"params": discriminator}, inputs, keys)  # pyright: ignore[reportReturnType]

    def learning_rate(self, state: TrainState) -> jax.Array:
        return optimizers.learning_rate_at(self.optimizer, state.step, self.steps)

    def apply(self, state: TrainState, name: str, gradients: Params, rate: jax.Array) -> tuple[TrainState, Metrics]:
        """One update of the network or the discriminator."""
        params, opt_state, metrics = optimizers.apply(
            self.tx(name), gradients, state.opt_state[name], state.params[name], rate
        )
        state = state.replace(params=state.params | {name: params}, opt_state=state.opt_state | {name: opt_state})
        return state, metrics


def _positions(logits: jax.Array) -> jax.Array:
    return jnp.float32(logits[..., 0].size)


def _scaled(gradients: Params, scale: jax.Array) -> Params:
    return jax.tree.map(lambda gradient: scale * gradient, gradients)


def _keys(view: SourceView | TargetView, purpose: str) -> jax.Array | None:
    """The view's dropout keys for one of the passes of a step."""
    return None if view.dropout is None else jax.vmap(lambda key: purpose_key(key, purpose))(view.dropout)


def _both_keys(source: SourceView, target: TargetView, purpose: str) -> jax.Array | None:
    of_source, of_target = _keys(source, purpose), _keys(target, purpose)
    return None if of_source is None or of_target is None else jnp.concatenate([of_source, of_target])
