"""What a training objective supplies, and the student and teacher that the self-ensembling ones share."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from sean_jax.config import Config
from sean_jax.models.deeplab import Segmenter, classifier_is_read
from sean_jax.training import ema
from sean_jax.training.augmentation import add_noise, mirror, random_flips
from sean_jax.training.optimizers import make_optimizer
from sean_jax.training.parallel import AXIS
from sean_jax.training.randomness import Purpose, example_keys

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Params = dict[str, Any]


class Method(Protocol):
    """A training objective: pure functions of a state that only it looks into.

    ``step`` runs under ``pmap`` with :data:`AXIS`: the state and ``rng`` are replicated, the batch is this
    device's share, and the returned state and metrics must be equal on all devices.
    """

    reads_target: bool  # False: no target image is loaded

    def init(self, params: Params) -> Any:
        """The state at step 0 from the network's initial parameters; it must have a field ``step``."""
        ...

    def step(self, state: Any, batch: Batch, rng: jax.Array) -> tuple[Any, Metrics]:
        """One optimisation step. ``batch``: uint8 ``source_image``, ``source_label`` and, if read, ``target_image``."""
        ...

    def networks(self, state: Any) -> dict[str, Params]:
        """The parameters that may be evaluated, by name; ``teacher`` first."""
        ...


class SelfEnsemblingState(flax.struct.PyTreeNode):
    """Everything a run carries from step to step; the random numbers follow from ``step``."""

    step: jax.Array  # int32, steps taken
    student: Params
    teacher: Params
    opt_state: optax.OptState


class SourceView(NamedTuple):
    """The augmented source batch of one device."""

    image: jax.Array  # [b, H, W, 3] float32 RGB, 0–255 scale
    label: jax.Array  # [b, H, W] class index or 255


class SelfEnsembling:
    """The student, its optimiser and the moving average that follows it; a subclass supplies ``step``."""

    def __init__(self, config: Config, network: Segmenter):
        self.config = config
        self.network = network
        assert config.steps is not None
        self.tx = make_optimizer(
            learning_rate=config.learning_rate,
            schedule=config.learning_rate_schedule,
            final_fraction=config.learning_rate_final_fraction,
            steps=config.steps,
            weight_decay=config.weight_decay,
            decay_mask=lambda params: classifier_is_read(params, config.classifier_branches),
        )

    def init(self, params: Params) -> SelfEnsemblingState:
        """Student and teacher start equal, each a copy of its own: the state is donated to each step."""
        student, teacher = (jax.tree.map(lambda x: jnp.array(x, copy=True), params) for _ in range(2))
        return SelfEnsemblingState(jnp.int32(0), student, teacher, self.tx.init(student))

    def networks(self, state: SelfEnsemblingState) -> dict[str, Params]:
        return {"teacher": state.teacher, "student": state.student}

    def augment_source(self, batch: Batch, step: jax.Array, rng: jax.Array) -> SourceView:
        """g(X_s), with its labels mirrored along."""
        image, label = batch["source_image"], batch["source_label"]
        examples = image.shape[0]
        if self.config.random_flip:
            flips = random_flips(example_keys(rng, step, Purpose.SOURCE_FLIP, examples, AXIS))
            image, label = mirror(flips, image), mirror(flips, label)
        if self.config.noise_domains == "source_and_target":
            keys = example_keys(rng, step, Purpose.SOURCE_NOISE, examples, AXIS)
            image = add_noise(keys, image, self.config.noise_std)
        return SourceView(image, label)

    def apply_gradients(self, state: SelfEnsemblingState, gradients: Params) -> SelfEnsemblingState:
        """Optimiser first, then the teacher's average with the student's new parameters (equation 7)."""
        updates, opt_state = self.tx.update(gradients, state.opt_state, state.student)
        student = optax.apply_updates(state.student, updates)
        decay = ema.decay_at(state.step, self.config.ema_decay, self.config.ema_ramp)
        teacher = ema.update(state.teacher, student, decay)
        return SelfEnsemblingState(state.step + 1, student, teacher, opt_state)  # pyright: ignore[reportArgumentType]


def sum_over_devices(tree: Any) -> Any:
    """Sums each leaf over the devices of the global batch."""
    return lax.psum(tree, AXIS)


def map_micro_batches(function: Callable[[Any], Any], batch: Any, count: int) -> Any:
    """``function(batch)`` for a function that treats each example alone, on ``count`` parts one after the other."""
    if count == 1:
        return function(batch)
    results = lax.map(function, _micro_batches(batch, count))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)


def sum_over_micro_batches(function: Callable[[Any], Any], batch: Any, count: int) -> Any:
    """The sum of ``function`` over ``count`` parts of the batch, one after the other: one part's memory at a time."""
    if count == 1:
        return function(batch)
    parts = _micro_batches(batch, count)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None), zeros, parts)[0]


def _micro_batches(batch: Any, count: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
