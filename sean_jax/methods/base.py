"""What a training objective provides; see :class:`Method`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from sean_jax.models import Network, Params, Prediction
from sean_jax.training.optimizers import OptimizerSettings
from sean_jax.training.parallel import AXIS

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class Reads(NamedTuple):
    """What a method reads besides the labelled source images.

    Attributes:
      target: whether it reads target images.
      target_extras: arrays stored beside the prepared target, one entry an image; in the batch as ``target_NAME``.
        They are stored under the names that :meth:`Method.stored_extra` gives.
      source_statistics: whether it needs the share of each class in each source image; see
        :meth:`Method.with_source_shares`.
    """

    target: bool = True
    target_extras: tuple[str, ...] = ()
    source_statistics: bool = False


class Stage(NamedTuple):
    """A run or command that a method needs first; it works in a sub-directory of the method's run.

    Attributes:
      settings: what differs from the settings of the run that needs it, such as ``{"method": "source_only"}``.
      gives: the setting that takes the product of the finished stage, such as ``init_weights``; later stages get it
        too.
      command: what makes the product, a key of :data:`sean_jax.run.stages.COMMANDS`; ``train`` gives the run
        directory.
      presets: further settings by the name of the run's preset.
      unless: the stage is not needed if the user sets one of these; default: ``gives``. Of ``init_weights``, only those
        of a complete network count. The stages start from a VGG-16's.
    """

    settings: Mapping[str, Any]
    gives: str
    command: str = "train"
    presets: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    unless: tuple[str, ...] | None = None


class Translators(NamedTuple):
    """Parameters of two networks that translate images between the domains."""

    to_target: Params
    to_source: Params


class TrainState(flax.struct.PyTreeNode):
    """Everything that a run carries from step to step. Random numbers are not in it: they follow from ``step``.

    Attributes:
      step: int32, steps taken.
      params: parameters by network, such as ``{"student", "teacher"}``.
      opt_state: optimiser states by optimiser.
      memory: whatever else the method keeps, such as an image pool or running confidences.
    """

    step: jax.Array
    params: dict[str, Params]
    opt_state: dict[str, optax.OptState]
    memory: Any = ()


class Method(flax.struct.PyTreeNode):
    """A training objective as pure functions of a state that only it looks into.

    A subclass is one file: its settings, presets, state, step, and what it evaluates. It is a pytree whose leaves are
    the numbers in its settings: they are arguments of the compiled step, not constants in it.

    Attributes:
      settings: an instance of ``Settings``.
      optimizer: of the run; a method with several optimisers derives the others from it or from its own settings.
      steps: length of the run, for schedules.
      network: the architecture; parameters come from outside.
      image_size: height and width of the images of a batch.
      accumulate_steps: parts into which each device divides its share of a batch to save memory.
    """

    Settings: ClassVar[type]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # name → settings, also of the run and of the network
    PRESETS_BY_SOURCE: ClassVar[Mapping[tuple[str, str], Mapping[str, Any]]] = {}  # (name, source) → further ones
    READS: ClassVar[Reads] = Reads()
    STAGES: ClassVar[Mapping[str, Stage]] = {}
    ACCUMULATES: ClassVar[bool] = True  # False: --accumulate_steps is refused
    SEGMENTS: ClassVar[bool] = True  # False: ``evaluated`` is empty, so the run is not scored
    SPREAD_OVER_STEPS: ClassVar[tuple[str, ...]] = ()  # settings that, unless zero, mean parts of the run's length
    MIN_SIZE: ClassVar[int] = 16  # pixels on either side of the images
    # Part of the published method that cannot be had any more → what stands in for it; said with every result.
    SUBSTITUTED: ClassVar[Mapping[str, str]] = {}

    settings: Any
    optimizer: OptimizerSettings
    steps: Any
    network: Network = flax.struct.field(pytree_node=False)
    image_size: tuple[int, int] = flax.struct.field(pytree_node=False, default=(512, 1024))
    accumulate_steps: int = flax.struct.field(pytree_node=False, default=1)

    def init(self, key: jax.Array, params: Params) -> TrainState:
        """The state at step 0.

        Args:
          key: for parameters of the method's own, such as a discriminator's.
          params: initial parameters of the network.
        """
        raise NotImplementedError

    def stored_extra(self, name: str) -> str:
        """The name under which one of ``READS.target_extras`` is stored; it may depend on the settings."""
        return name

    def with_source_shares(self, state: TrainState, shares: jax.Array) -> TrainState:
        """The state at step 0 with what the method keeps of the source's statistics, in ``memory``.

        Called once, if :class:`Reads` asks for them. The structure of the state does not change.

        Args:
          shares: float32 ``[source images, classes]``, the share of each class among all pixels of the image.
        """
        del shares
        return state

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        """One training step with all its updates, pure, under ``pmap`` over the axis :data:`AXIS`.

        Args:
          state: equal on all devices, as the returned state and metrics must be.
          batch: this device's share: ``source_image`` uint8 ``[b, H, W, 3]``, ``source_label`` uint8 ``[b, H, W]``,
            and what :class:`Reads` asks for, such as ``target_image``.
          rng: key of the run, equal on all devices and in all steps.
        """
        raise NotImplementedError

    def evaluated(self, state: TrainState) -> dict[str, Params]:
        """Segmentation networks that can be evaluated, by name; the first counts. It selects from ``state.params``."""
        raise NotImplementedError

    def translators(self, state: TrainState) -> Translators | None:
        """The networks that translate images, if the method trains such. It selects from ``state.params``."""
        del state
        return None

    def translate(self, params: Params, images: jax.Array) -> jax.Array:
        """Applies one of the :meth:`translators` to images ``[b, H, W, 3]``; float32 on the 0–255 scale, same size.

        Args:
          params: of the translator.
          images: RGB on the 0–255 scale, any real type; ``H`` and ``W`` are multiples of 4, at least 16.
        """
        raise NotImplementedError

    def masks(self, prediction: Prediction) -> dict[str, jax.Array]:
        """Where the method uses a target prediction, bool ``[b, h, w]`` by title; for pictures only."""
        del prediction
        return {}


def sum_over_devices(tree: Any) -> Any:
    """Sums each leaf over the devices of the global batch."""
    return lax.psum(tree, AXIS)


def mean_share(values: jax.Array) -> jax.Array:
    """This device's share of the mean over the global batch; the shares of all devices sum to the mean."""
    return values.sum() / sum_over_devices(jnp.float32(values.size))


def concatenate_over_parts(function: Callable[[Any], Any], batch: Any, parts: int) -> Any:
    """``function(batch)`` for a function of each example alone, computed on ``parts`` of the batch in turn."""
    return _in_parts(function, batch, parts, optax.microbatching.AccumulationType.CONCAT)


def sum_over_parts(function: Callable[[Any], Any], batch: Any, parts: int) -> Any:
    """The sum of ``function`` over ``parts`` of the batch, computed in turn: needs the memory of one part."""
    return _in_parts(function, batch, parts, optax.microbatching.AccumulationType.SUM)


def _in_parts(function: Callable[[Any], Any], batch: Any, parts: int, accumulation: Any) -> Any:
    if parts == 1:
        return function(batch)
    size = jax.tree.leaves(batch)[0].shape[0] // parts
    return optax.microbatch(function, 0, size, accumulation)(batch)
