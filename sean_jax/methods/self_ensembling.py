"""A student, its optimiser, and the teacher that is its moving average: what mean-teacher methods share."""

import jax
import jax.numpy as jnp
import optax

from sean_jax.methods.base import Method, Metrics, Params, TrainState
from sean_jax.training import ema, optimizers


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
        )

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
        state = TrainState(
            step=state.step + 1,
            params={"student": student, "teacher": teacher},
            opt_state={"student": opt_state},
        )
        return state, metrics
