"""CycleGAN: two generators that translate images between the domains, trained without pairs.

Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial networks" (ICCV 2017), with the
semantic consistency of CyCADA (Hoffman et al., ICML 2018); defaults and the order of a step are those of the authors'
code that CyCADA uses. The run ends with translators, which ``python -m sean_jax.translate`` applies to a data set.

Where the paper and the code differ, this follows the code: the learning rate falls from the last of the constant
epochs on and is 0 in the last epoch, and source images must keep their true labels, not the network's prediction.
"""

from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sean_jax.methods.base import Batch, Method, Metrics, Params, TrainState, Translators, mean_share, sum_over_devices
from sean_jax.models import translator
from sean_jax.models.network import PRECISIONS
from sean_jax.settings import setting, settings
from sean_jax.training import image_pool, optimizers
from sean_jax.training.augmentation import mirror, random_crops, random_flips
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.randomness import example_keys, step_key

_GENERATORS = ("to_target", "to_source")
_DISCRIMINATORS = ("source_discriminator", "target_discriminator")
_ADAM = {"learning_rate": 2e-4, "beta1": 0.5, "weight_decay": 0.0, "learning_rate_schedule": "constant"}
_NO_LOSS_YET = 1e9  # the semantic terms are off in the first step; finite, since a run checks its state


@settings
class CycleGANSettings:
    """Networks, loss weights, image pool and schedule."""

    translator_width: int = setting(64, "channels of the first layer of generators and discriminators", least=1)
    translator_blocks: int = setting(9, "residual blocks of a generator", least=1)
    crop_size: int = setting(400, "side of the random square crop in pixels; at most the image", least=24)
    random_flip: bool = setting(True, "mirror images at random (not in SEAN's paper and code)")
    pool_size: int = setting(50, "translated images kept for each discriminator; 0: none", least=0)
    cycle_weight_source: float = setting(10.0, "weight of the cycle loss of source images (lambda_A)", least=0)
    cycle_weight_target: float = setting(10.0, "weight of the cycle loss of target images (lambda_B)", least=0)
    identity_weight: float = setting(0.5, "weight of the identity losses, as a factor of the cycle weights", least=0)
    to_target_weight: float = setting(
        1.0,
        "weight of the adversarial loss of the source → target generator; 2 in the authors' semantic model",
        least=0,
    )
    constant_epochs: int = setting(100, "epochs of constant learning rate", least=0)
    decay_epochs: int = setting(100, "epochs of linear decay; all epochs together are --steps long", least=0)
    discriminator_learning_rate_factor: float = setting(
        1.0, "learning rate of the discriminator, as a factor of --learning_rate", least=0
    )
    semantic_network: Literal["none", "frozen", "trained"] = setting(
        "none", "segmentation network of the semantic consistency loss: as in --init_weights, or trained beside"
    )
    semantic_weight: float = setting(1.0, "weight of the semantic consistency losses", least=0)
    semantic_gate: float = setting(
        1.0, "with a trained network, no semantic consistency while its loss exceeds this", least=0
    )
    semantic_learning_rate: float = setting(1e-3, "learning rate of the trained segmentation network", least=0)


class Views(NamedTuple):
    """The cropped and mirrored batch of one device: images in [−1, 1], and the labels of the source."""

    source: jax.Array
    target: jax.Array
    label: jax.Array


class Translations(NamedTuple):
    """What the generators make of a batch; the back-translations are compared with the images."""

    to_target: jax.Array
    to_source: jax.Array
    source_again: jax.Array
    target_again: jax.Array


class CycleGAN(Method):
    """LSGAN, cycle, identity and semantic consistency losses; one step updates generators, then discriminators."""

    Settings: ClassVar[type] = CycleGANSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **dict.fromkeys(("paper", "published", "reference"), _ADAM),
        "quick": {
            **(_ADAM | {"learning_rate": 5e-4, "batch_size": 1}),
            **{"translator_width": 16, "translator_blocks": 3, "crop_size": 96},
        },
    }
    ACCUMULATES: ClassVar[bool] = False  # the image pool takes the images of a batch one after another
    SPREAD_OVER_STEPS: ClassVar[tuple[str, ...]] = ("decay_epochs",)
    SEGMENTS: ClassVar[bool] = False
    MIN_SIZE: ClassVar[int] = translator.MIN_SIZE

    def generator(self) -> translator.Generator:
        dtype, precision = PRECISIONS[self.network.precision]
        width, blocks = self.settings.translator_width, self.settings.translator_blocks
        return translator.Generator(width, blocks, dtype, precision, self.network.remat)

    def discriminator(self) -> translator.PatchDiscriminator:
        return translator.PatchDiscriminator(self.settings.translator_width, *PRECISIONS[self.network.precision])

    def tx(self) -> optax.GradientTransformation:
        return optimizers.make_optimizer(self.optimizer)

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of the crops, multiples of the generator's stride."""
        height, width = (min(self.settings.crop_size, side) for side in self.image_size)
        return height - height % translator.STRIDE, width - width % translator.STRIDE

    def init(self, key: jax.Array, params: Params) -> TrainState:
        sample = jnp.zeros((1, translator.MIN_SIZE, translator.MIN_SIZE, 3))
        networks = {}
        for names, module in ((_GENERATORS, self.generator()), (_DISCRIMINATORS, self.discriminator())):
            key, *own = jax.random.split(key, 3)
            both = jax.jit(jax.vmap(module.init, (0, None)))(jnp.stack(own), sample)["params"]
            networks |= {name: jax.tree.map(itemgetter(i), both) for i, name in enumerate(names)}
        pool = self.settings.pool_size, (*self.crop, 3)
        memory: dict[str, Any] = {name: image_pool.empty(*pool) for name in _GENERATORS}
        groups = {"generators": _GENERATORS, "discriminators": _DISCRIMINATORS}
        if self.settings.semantic_network != "none":
            networks["segmentation"] = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
        if self.settings.semantic_network == "trained":
            groups["segmentation"] = ("segmentation",)
            memory["segmentation_loss"] = jnp.float32(_NO_LOSS_YET)
        opt_state = {group: self.tx().init({n: networks[n] for n in members}) for group, members in groups.items()}
        return TrainState(step=jnp.int32(0), params=networks, opt_state=opt_state, memory=memory)

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        del state
        return {}

    def translators(self, state: TrainState) -> Translators:
        return Translators(state.params["to_target"], state.params["to_source"])

    def translate(self, params: Params, images: jax.Array) -> jax.Array:
        return translator.from_signed(self.generate(params, translator.to_signed(images)))

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        return self.update(state, self.augment(batch, state.step, rng), rng)

    def augment(self, batch: Batch, step: jax.Array, rng: jax.Array) -> Views:
        """Crops and mirrors images at random, a source image and its label alike."""

        def view(domain: str, images: jax.Array) -> jax.Array:
            crops, flips = (example_keys(rng, f"{domain}_{what}", step, len(images)) for what in ("crop", "flip"))
            images = random_crops(crops, self.crop, images)
            return mirror(random_flips(flips), images) if self.settings.random_flip else images

        return Views(
            translator.to_signed(view("source", batch["source_image"])),
            translator.to_signed(view("target", batch["target_image"])),
            view("source", batch["source_label"]),
        )

    def learning_rate(self, step: jax.Array) -> jax.Array:
        """Of the generators: that of the optimizer's settings, times the decay over epochs."""
        epochs = (self.settings.constant_epochs, self.settings.decay_epochs)
        rate = optimizers.learning_rate_at(self.optimizer, step, self.steps)
        return rate * optimizers.linear_decay(step, self.steps, *epochs)

    def update(self, state: TrainState, views: Views, rng: jax.Array) -> tuple[TrainState, Metrics]:
        """The generators' update, then the discriminators' on images from before it, then the segmentation network's.

        ``rng`` decides which images the pools return.
        """
        rate = self.learning_rate(state.step)
        gradients, (terms, translated) = self.generator_gradients(state, views)
        after, metrics = self._apply(state, "generators", gradients, rate)
        metrics |= {f"train/loss_{name}": value for name, value in terms.items()}
        metrics["train/loss"] = sum(terms.values(), jnp.float32(0))

        memory, fakes = dict(state.memory), {}
        for name in _GENERATORS:
            key = step_key(rng, f"{name}_pool", state.step)
            memory[name], fakes[name] = image_pool.exchange(memory[name], getattr(translated, name), key)
        after = after.replace(memory=memory, step=state.step + 1)
        gradients, losses = self.discriminator_gradients(state, views, fakes)
        rate *= self.settings.discriminator_learning_rate_factor
        after, _ = self._apply(after, "discriminators", gradients, rate)
        metrics |= {f"train/loss_{name}": value for name, value in losses.items()}
        if self.settings.semantic_network != "trained":
            return after, metrics

        gradients, loss = self.segmentation_gradients(state, views)
        rate = jnp.float32(self.settings.semantic_learning_rate)
        after, _ = self._apply(after, "segmentation", gradients, rate)
        after = after.replace(memory=after.memory | {"segmentation_loss": loss})
        return after, metrics | {"train/loss_segmentation": loss}

    def _apply(
        self, state: TrainState, group: str, gradients: dict[str, Params], rate: jax.Array
    ) -> tuple[TrainState, Metrics]:
        old = {name: state.params[name] for name in gradients}
        new, opt_state, metrics = optimizers.apply(self.tx(), gradients, state.opt_state[group], old, rate)
        state = state.replace(params=state.params | new, opt_state=state.opt_state | {group: opt_state})
        return state, metrics

    def generator_gradients(
        self, state: TrainState, views: Views
    ) -> tuple[dict[str, Params], tuple[dict[str, jax.Array], Translations]]:
        """Gradients of the weighted sum of all terms, summed over devices; the terms and the translations."""

        def loss_fn(generators: dict[str, Params]) -> tuple[jax.Array, Any]:
            terms, translated = self.generator_terms(state.params | generators, views)
            if self.settings.semantic_network == "trained":
                is_open = state.memory["segmentation_loss"] <= self.settings.semantic_gate
                terms = {name: jnp.where(is_open, x, 0) if "semantic" in name else x for name, x in terms.items()}
            return sum(terms.values(), jnp.float32(0)), (terms, translated)

        generators = {name: state.params[name] for name in _GENERATORS}
        gradients, (terms, translated) = jax.grad(loss_fn, has_aux=True)(generators)
        gradients, terms = sum_over_devices((gradients, terms))
        return gradients, (terms, translated)

    def generator_terms(self, params: dict[str, Params], views: Views) -> tuple[dict[str, jax.Array], Translations]:
        """This device's share of each weighted term of the generators' loss, and what they make of the images."""
        weights, examples = self.settings, len(views.source)
        source_weight, target_weight = weights.cycle_weight_source, weights.cycle_weight_target
        to_target, to_source = (partial(self.generate, params[name]) for name in _GENERATORS)
        both = jnp.concatenate([views.source, views.target])  # the identity losses need the other two results
        target, same_target = jnp.split(to_target(both), [examples])
        same_source, source = jnp.split(to_source(both), [examples])
        translated = Translations(target, source, to_source(target), to_target(source))

        def distance(x: jax.Array, y: jax.Array) -> jax.Array:
            return mean_share(jnp.abs(x - y))

        terms = {
            "to_target": weights.to_target_weight * self.judged(params["target_discriminator"], target, 1),
            "to_source": self.judged(params["source_discriminator"], source, 1),
            "cycle_source": source_weight * distance(translated.source_again, views.source),
            "cycle_target": target_weight * distance(translated.target_again, views.target),
            "identity_source": weights.identity_weight * source_weight * distance(same_source, views.source),
            "identity_target": weights.identity_weight * target_weight * distance(same_target, views.target),
        }
        return terms | self._semantic_terms(params, views, translated), translated

    def _semantic_terms(
        self, params: dict[str, Params], views: Views, translated: Translations
    ) -> dict[str, jax.Array]:
        """Cross-entropy of translated images with the labels of the source, and with the prediction for the target."""
        if self.settings.semantic_network == "none":
            return {}
        network = lax.stop_gradient(params["segmentation"])
        target = jnp.argmax(self.segment(network, views.target), -1)
        labels = {"semantic_to_target": views.label, "semantic_to_source": target}
        images = {"semantic_to_target": translated.to_target, "semantic_to_source": translated.to_source}
        return {
            name: self.settings.semantic_weight * _segmentation_loss(self.segment(network, images[name]), labels[name])
            for name in labels
        }

    def segment(self, params: Params, images: jax.Array) -> jax.Array:
        """The segmentation network's logits for images in [−1, 1]."""
        return self.network.predict(params, translator.from_signed(images)).logits

    def discriminator_gradients(
        self, state: TrainState, views: Views, fakes: dict[str, jax.Array]
    ) -> tuple[dict[str, Params], dict[str, jax.Array]]:
        """Gradients summed over devices, and the loss of each discriminator."""

        def loss_fn(params: dict[str, Params]) -> tuple[jax.Array, dict[str, jax.Array]]:
            images = {"source_discriminator": (views.source, fakes["to_source"])}
            images["target_discriminator"] = (views.target, fakes["to_target"])
            wanted = (jnp.arange(2 * len(views.source)) < len(views.source)).astype(jnp.float32)
            losses = {name: self.judged(params[name], jnp.concatenate(pair), wanted) for name, pair in images.items()}
            return sum(losses.values(), jnp.float32(0)), losses

        discriminators = {name: state.params[name] for name in _DISCRIMINATORS}
        return sum_over_devices(jax.grad(loss_fn, has_aux=True)(discriminators))

    def segmentation_gradients(self, state: TrainState, views: Views) -> tuple[dict[str, Params], jax.Array]:
        """Gradients of the trained segmentation network on source images, and its loss, summed over devices."""

        def loss_fn(networks: dict[str, Params]) -> jax.Array:
            return _segmentation_loss(self.segment(networks["segmentation"], views.source), views.label)

        loss, gradients = jax.value_and_grad(loss_fn)({"segmentation": state.params["segmentation"]})
        return sum_over_devices((gradients, loss))

    def generate(self, params: Params, images: jax.Array) -> jax.Array:
        return self.generator().apply({"params": params}, images)  # pyright: ignore[reportReturnType]

    def judged(self, params: Params, images: jax.Array, wanted: jax.Array | float) -> jax.Array:
        """This device's share of the mean squared error of a discriminator; ``wanted``: ``[b]`` or for all, 0 or 1."""
        outputs: Any = self.discriminator().apply({"params": params}, images)
        return mean_share((outputs - jnp.reshape(wanted, (-1, 1, 1, 1))) ** 2)


def _segmentation_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """This device's share of the mean cross-entropy over the labelled pixels of the global batch."""
    return segmentation_loss(logits, labels) / sum_over_devices(count_labelled(labels)).clip(1)
