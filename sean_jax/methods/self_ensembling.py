"""A student, its optimiser, and the teacher that is its moving average: what mean-teacher methods share."""

import jax
import jax.numpy as jnp
import optax

from sean_jax.methods.base import Method, Metrics, Params, TrainState, sum_over_devices
from sean_jax.settings import settings
from sean_jax.training import ema, logit_adjustment, optimizers
from sean_jax.training.augmentation import AugmentationSettings


@settings
class SelfEnsemblingSettings(logit_adjustment.LogitAdjustmentSettings, AugmentationSettings, ema.EMASettings):
    """Those that all self-ensembling methods share."""


class SelfEnsembling(Method):
    """Initial state, update and evaluated networks of the methods that train a student and average a teacher."""

    def tx(self) -> optax.GradientTransformation:
        return optimizers.make_optimizer(self.optimizer, decay_mask=self.network.decayed)

    def init(self, key: jax.Array, params: Params) -> TrainState:
        """Student and teacher start equal, each a copy of its own: the state is donated to each step."""
        del key
        student, teacher = (jax.tree.map(lambda x: jnp.array(x, copy=True), params) for _ in range(2))
        return TrainState(
            step=jnp.int32(0),
            params={"student": student, "teacher": teacher},
            opt_state={"student": self.tx().init(student)},
            memory={"class_shares": logit_adjustment.initial_shares(self.network.num_classes)},
        )

    def count_classes(self, state: TrainState, label: jax.Array) -> TrainState:
        """The state with the classes of this step's source labels ``[b, H, W]`` in its frequencies."""
        found = sum_over_devices(logit_adjustment.shares(label, self.network.num_classes))
        return state.replace(memory=state.memory | {"class_shares": state.memory["class_shares"] + found})

    def adjustment(self, state: TrainState) -> jax.Array:
        """What the loss adds to logits, ``[1, 1, 1, classes]``."""
        log_frequencies = logit_adjustment.log_frequencies(state.memory["class_shares"])
        return self.settings.logit_adjustment * log_frequencies.reshape(1, 1, 1, -1)

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        return {name: state.params[name] for name in ("teacher", "student")}

    def apply_gradients(self, state: TrainState, gradients: Params) -> tuple[TrainState, Metrics]:
        """Updates the student first, then the teacher with the student's new parameters (equation 7)."""
        student, opt_state, metrics = optimizers.apply(
            self.tx(),
            gradients,
            state.opt_state["student"],
            state.params["student"],
            optimizers.learning_rate_at(self.optimizer, state.step, self.steps),
        )
        teacher = ema.update(state.params["teacher"], student, ema.decay_at(self.settings, state.step))
        state = state.replace(
            step=state.step + 1,
            params={"student": student, "teacher": teacher},
            opt_state={"student": opt_state},
        )
        return state, metrics
