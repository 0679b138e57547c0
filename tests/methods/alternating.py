"""A method outside the package: adversarial alignment of features, with alternating updates of two optimisers.

It shows that a method needs only a file of its own and an entry in ``METHODS``.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from sean_jax.methods.base import Batch, Method, Metrics, Params, Reads, Stage, TrainState, sum_over_devices
from sean_jax.settings import setting, settings
from sean_jax.training import optimizers
from sean_jax.training.losses import count_labelled, segmentation_loss


@settings
class AlternatingSettings:
    adversarial_weight: float = setting(0.1, "weight of the adversarial loss", least=0)
    discriminator_learning_rate: float = setting(1e-3, "learning rate of the discriminator", least=0)


class Alternating(Method):
    """A linear discriminator tells the domains apart by their features; then the network learns to confuse it."""

    Settings: ClassVar[type] = AlternatingSettings
    STAGES: ClassVar = {"source": Stage({"method": "source_only", "steps": 2}, gives="init_weights")}
    READS: ClassVar[Reads] = Reads(source_statistics=True)
    ACCUMULATES: ClassVar[bool] = False

    def init(self, key: jax.Array, params: Params) -> TrainState:
        features = jax.eval_shape(self.network.predict, params, jnp.zeros((1, 16, 16, 3))).features
        networks = {"network": jax.tree.map(jnp.array, params)}
        networks["discriminator"] = {"weight": 1e-2 * jax.random.normal(key, features.shape[-1:])}
        opt_state = {name: self.tx().init(params) for name, params in networks.items()}
        return TrainState(step=jnp.int32(0), params=networks, opt_state=opt_state, memory=self.empty_memory())

    def empty_memory(self) -> dict[str, jax.Array]:
        return {"accuracy": jnp.float32(0), "class_shares": jnp.zeros(self.network.num_classes)}

    def with_source_shares(self, state: TrainState, shares: jax.Array) -> TrainState:
        return state.replace(memory=state.memory | {"class_shares": shares.mean(0)})

    def tx(self) -> optax.GradientTransformation:
        return optimizers.make_optimizer(self.optimizer)

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        return {"network": state.params["network"]}

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        state, accuracy = self.update_discriminator(state, batch)
        state, metrics = self.update_network(state, batch)
        memory = state.memory | {"accuracy": 0.9 * state.memory["accuracy"] + 0.1 * accuracy}
        return state.replace(step=state.step + 1, memory=memory), metrics | {"train/domain_accuracy": accuracy}

    def update_discriminator(self, state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        network = jax.lax.stop_gradient(state.params["network"])

        def loss_fn(discriminator: Params) -> tuple[jax.Array, jax.Array]:
            scores, domains = self.domain_scores(network, discriminator, batch)
            return self.mean(optax.sigmoid_binary_cross_entropy(scores, domains)), (scores > 0) == (domains > 0)

        gradients, correct = jax.grad(loss_fn, has_aux=True)(state.params["discriminator"])
        rate = jnp.float32(self.settings.discriminator_learning_rate)
        state, _ = self.apply(state, "discriminator", gradients, rate)
        return state, sum_over_devices(self.mean(correct.astype(jnp.float32)))

    def update_network(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        labelled = sum_over_devices(count_labelled(batch["source_label"])).clip(1)

        def loss_fn(network: Params) -> tuple[jax.Array, jax.Array]:
            logits = self.network.predict(network, batch["source_image"]).logits
            segmentation = segmentation_loss(logits, batch["source_label"]) / labelled
            scores, domains = self.domain_scores(network, state.params["discriminator"], batch)
            confusion = self.mean(optax.sigmoid_binary_cross_entropy(scores, 1 - domains))
            return segmentation + self.settings.adversarial_weight * confusion, segmentation

        gradients, segmentation = jax.grad(loss_fn, has_aux=True)(state.params["network"])
        rate = optimizers.learning_rate_at(self.optimizer, state.step, self.steps)
        state, metrics = self.apply(state, "network", gradients, rate)
        return state, {"train/loss": sum_over_devices(segmentation), **metrics}

    def apply(self, state: TrainState, name: str, gradients: Params, rate: jax.Array) -> tuple[TrainState, Metrics]:
        params, opt_state, metrics = optimizers.apply(
            self.tx(), sum_over_devices(gradients), state.opt_state[name], state.params[name], rate
        )
        state = state.replace(params=state.params | {name: params}, opt_state=state.opt_state | {name: opt_state})
        return state, metrics

    def domain_scores(self, network: Params, discriminator: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        images = jnp.concatenate([batch["source_image"], batch["target_image"]])
        features = self.network.predict(network, images).features
        is_target = (jnp.arange(len(images)) >= len(batch["source_image"])).astype(jnp.float32)
        scores = features @ discriminator["weight"]
        return scores, jnp.broadcast_to(is_target[:, None, None], scores.shape)

    def mean(self, values: jax.Array) -> jax.Array:
        """This device's share of the mean over the global batch."""
        return values.sum() / sum_over_devices(jnp.float32(values.size))


class Weighted(Alternating):
    """Reads a number that is stored beside each target image."""

    STAGES: ClassVar = {}
    READS: ClassVar[Reads] = Reads(target_extras=("weight",))

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        state, metrics = super().step(state, batch, rng)
        return state, metrics | {"train/weight": sum_over_devices(self.mean(batch["target_weight"]))}
