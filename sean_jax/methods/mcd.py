"""Maximum Classifier Discrepancy (Saito et al., CVPR 2018): two heads disagree on the target, the trunk unites them.

A step has three kinds of update on one batch, in the order of the authors' code:

A. Trunk and heads learn the source.
B. The heads learn the source and to disagree on the target: L_s − d.
C. The trunk learns features of the target on which they agree: d, ``num_k`` times.

L_s is the sum of both heads' cross-entropies. d is the mean absolute difference of their class probabilities over
target pixels and classes, at the resolution of the network's output.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sean_jax.methods.base import Batch, Method, Metrics, Params, TrainState, sum_over_devices, sum_over_parts
from sean_jax.settings import setting, settings
from sean_jax.training import optimizers
from sean_jax.training.augmentation import (
    AugmentationSettings,
    SourceView,
    TargetView,
    augment_source,
    augment_target,
)
from sean_jax.training.losses import count_labelled, segmentation_loss

HEADS = ("head_1", "head_2")
_SHARED_START = ("fc6", "fc7")  # the layers in which both heads start equal


@settings
class MCDSettings(AugmentationSettings):
    """The defaults are those of the authors' code."""

    num_k: int = setting(4, "updates of the trunk per step that reduce the discrepancy (step C)", least=1)
    one_step: bool = setting(
        False, "update trunk and heads once per step, with the discrepancy's gradient reversed between them"
    )


class Views(NamedTuple):
    """The augmented batch of one device."""

    source: SourceView
    target: TargetView


class MCD(Method):
    """The parameters are a ``trunk`` and two heads; trunk and heads have optimisers of their own.

    The momentum of each optimiser is shared by all of its updates in a step.
    """

    Settings: ClassVar[type] = MCDSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"random_flip": True},
        # ImageNet weights come from --init_weights. The authors' void class, a further channel of the softmax, is left
        # out.
        "published": {
            "architecture": "fcn8s",
            "upsampling": "learned",
            "pool4_scale": 1.0,
            "pool3_scale": 1.0,
            "zero_skips": False,
            "dropout_rate": 0.1,
            "optimizer": "sgd",
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "weight_decay": 2e-5,
            "height": 512,
            "width": 1024,
            "batch_size": 1,
            "steps": 50_000,
            "noise_std": 0.0,
        },
    }

    def init(self, key: jax.Array, params: Params) -> TrainState:
        """Both heads start with the same fc6 and fc7. The second one's other layers are fresh."""
        second = self.network.init_params(key)["head"]
        second |= {layer: params["head"][layer] for layer in _SHARED_START if layer in second}
        networks = {"trunk": params["trunk"], "head_1": params["head"], "head_2": second}
        networks = jax.tree.map(lambda x: jnp.array(x, copy=True), networks)  # the state is donated to each step
        return TrainState(
            step=jnp.int32(0),
            params=networks,
            opt_state={
                "trunk": self._tx().init({"trunk": networks["trunk"]}),
                "heads": self._tx().init(_heads(networks)),
            },
        )

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        return {name: {"trunk": state.params["trunk"], "head": state.params[name]} for name in HEADS}

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        source = augment_source(self.settings, batch, state.step, rng)
        views = Views(source, augment_target(self.settings, batch, state.step, rng))
        state, metrics = self.update_reversed(state, views) if self.settings.one_step else self.update(state, views)
        return state.replace(step=state.step + 1), metrics

    def update(self, state: TrainState, views: Views) -> tuple[TrainState, Metrics]:
        """Steps A, B and ``num_k`` times C. The metrics' norms are of step A."""
        state, metrics = self.update_all(state, views.source)
        state, before = self.update_heads(state, views)
        state, during = lax.scan(
            lambda state, repetition: self.update_trunk(state, views.target, repetition),
            state,
            jnp.arange(self.settings.num_k),
        )
        discrepancies = {
            "train/discrepancy_before_heads": before,
            "train/discrepancy_after_heads": during[0],
            "train/discrepancy_last": during[-1],  # before the last update of the trunk
        }
        return state, metrics | discrepancies

    def update_all(self, state: TrainState, source: SourceView) -> tuple[TrainState, Metrics]:
        """Step A; returns the metrics of the step."""
        labelled = _labelled(source)
        loss, gradients = self.value_and_grad(
            lambda params, part: self.source_loss(params, part, labelled, 0), state.params, source
        )
        return self._apply_all(state, gradients, loss)

    def update_heads(self, state: TrainState, views: Views) -> tuple[TrainState, jax.Array]:
        """Step B; returns d before the update."""
        trunk, labelled = {"trunk": state.params["trunk"]}, _labelled(views.source)
        (_, discrepancy), gradients = self.value_and_grad(
            lambda heads, part: self.opposed_loss(heads | trunk, part, labelled),
            _heads(state.params),
            views,
            has_aux=True,
        )
        return self._apply(state, "heads", gradients)[0], discrepancy

    def update_trunk(
        self, state: TrainState, target: TargetView, repetition: jax.Array | int
    ) -> tuple[TrainState, jax.Array]:
        """Step C; returns d before the update."""
        heads = _heads(state.params)
        discrepancy, gradients = self.value_and_grad(
            lambda trunk, part: self.discrepancy(heads | trunk, part, 2 + repetition),
            {"trunk": state.params["trunk"]},
            target,
        )
        return self._apply(state, "trunk", gradients)[0], discrepancy

    def update_reversed(self, state: TrainState, views: Views) -> tuple[TrainState, Metrics]:
        """The one-step variant: the heads follow ∇(L_s − d), the trunk ∇(L_s + d)."""
        labelled = _labelled(views.source)

        def loss(params: Params, part: Views) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            source = self.source_loss(params, part.source, labelled, 0)
            discrepancy = self.discrepancy(params, part.target, 1, reverse=True)
            return source - discrepancy, (source, discrepancy)

        (_, (source, discrepancy)), gradients = self.value_and_grad(loss, state.params, views, has_aux=True)
        state, metrics = self._apply_all(state, gradients, source)
        return state, metrics | {"train/discrepancy": discrepancy}

    def value_and_grad(self, loss: Any, params: Params, views: Any, *, has_aux: bool = False) -> Any:
        """Value and gradient of ``loss(params, views)`` over the global batch, as sums over parts and devices."""
        function = jax.value_and_grad(loss, has_aux=has_aux)
        return sum_over_devices(sum_over_parts(lambda part: function(params, part), views, self.accumulate_steps))

    def source_loss(self, params: Params, source: SourceView, labelled: jax.Array, use: int) -> jax.Array:
        """This part's share of L_s: a mean over the ``labelled`` pixels of the batch, summed over the heads.

        Args:
          use: number of the forward pass in the step; each has its own dropout.
        """
        features = self.network.features(params, source.image)
        one, two = self.head_logits(params, features, source.dropout, use)
        return (segmentation_loss(one, source.label) + segmentation_loss(two, source.label)) / labelled

    def opposed_loss(self, params: Params, views: Views, labelled: jax.Array) -> tuple[jax.Array, jax.Array]:
        """This part's share of step B's loss L_s − d, and of d."""
        discrepancy = self.discrepancy(params, views.target, 1)
        return self.source_loss(params, views.source, labelled, 1) - discrepancy, discrepancy

    def discrepancy(
        self, params: Params, target: TargetView, use: jax.Array | int, *, reverse: bool = False
    ) -> jax.Array:
        """This part's share of d.

        Args:
          use: see :meth:`source_loss`.
          reverse: reverse the gradient between heads and trunk.
        """
        features = self.network.features(params, target.image)
        if reverse:
            features = jax.tree.map(lambda x: lax.stop_gradient(2 * x) - x, features)  # x, with the gradient of -x
        one, two = self.head_logits(params, features, target.dropout, use)
        values = sum_over_devices(jnp.float32(one.size * self.accumulate_steps))
        return absolute_difference(one, two) / values

    def head_logits(
        self, params: Params, features: Any, dropout: jax.Array | None, use: jax.Array | int
    ) -> tuple[jax.Array, jax.Array]:
        """Both heads' logits; each head and each pass draws dropout of its own. See :meth:`source_loss`."""

        def logits(number: int, name: str) -> jax.Array:
            keys = dropout
            if keys is not None:
                keys = jax.vmap(jax.random.fold_in, (0, None))(keys, len(HEADS) * use + number)
            return self.network.head({"head": params[name]}, features, keys).logits

        return logits(0, HEADS[0]), logits(1, HEADS[1])

    def _apply_all(self, state: TrainState, gradients: Params, loss: jax.Array) -> tuple[TrainState, Metrics]:
        state, of_trunk = self._apply(state, "trunk", {"trunk": gradients["trunk"]})
        state, of_heads = self._apply(state, "heads", _heads(gradients))
        norms = {name: jnp.hypot(of_trunk[name], of_heads[name]) for name in of_trunk if name.endswith("norm")}
        return state, {"train/loss": loss, **of_trunk, **norms}

    def _apply(self, state: TrainState, part: str, gradients: Params) -> tuple[TrainState, Metrics]:
        """Updates the trunk or both heads, whichever ``gradients`` are of, with the optimiser ``part``."""
        params, opt_state, metrics = optimizers.apply(
            self._tx(),
            gradients,
            state.opt_state[part],
            {name: state.params[name] for name in gradients},
            optimizers.learning_rate_at(self.optimizer, state.step, self.steps),
        )
        return state.replace(params=state.params | params, opt_state=state.opt_state | {part: opt_state}), metrics

    def _tx(self) -> optax.GradientTransformation:
        return optimizers.make_optimizer(self.optimizer, decay_mask=self.network.used)


def absolute_difference(one: jax.Array, two: jax.Array) -> jax.Array:
    """Sums the absolute difference of class probabilities; logits ``[b, h, w, classes]``."""
    return jnp.sum(jnp.abs(jax.nn.softmax(one) - jax.nn.softmax(two)))


def _heads(tree: Params) -> Params:
    return {name: tree[name] for name in HEADS}


def _labelled(source: SourceView) -> jax.Array:
    """Labelled pixels of the global batch, at least 1; counted before gradients are taken, see SEAN."""
    return sum_over_devices(count_labelled(source.label)).clip(1)
