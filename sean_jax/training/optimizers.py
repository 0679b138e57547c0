"""Optimisers as optax chains: PyTorch's Adam and SGD with coupled L2 weight decay."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from sean_jax.settings import setting, settings


@settings
class OptimizerSettings:
    """Which optimiser, and its rates. The defaults are the paper's and the authors' code's."""

    optimizer: Literal["adam", "adam_tensorflow", "sgd"] = setting(
        "adam", "optimiser, with PyTorch's meaning of its settings, or TensorFlow 1's of adam's epsilon"
    )
    learning_rate: float = setting(1e-5, "learning rate", least=0)
    learning_rate_schedule: Literal["constant", "cosine", "poly"] = setting(
        "constant", "learning rate over the steps of a run; poly: times (1 - step / steps)^0.9"
    )
    learning_rate_final_fraction: float = setting(
        0.05, "final learning rate of the cosine schedule, as a fraction of --learning_rate", least=0, most=1
    )
    head_learning_rate_factor: float = setting(
        1.0, "learning rate of the layers after the backbone, as a factor of --learning_rate (DeepLab: 10)", least=0
    )
    momentum: float = setting(0.9, "momentum of sgd", least=0, most=1)
    beta1: float = setting(0.9, "decay of adam's first moment", least=0, most=1)
    weight_decay: float = setting(5e-5, "L2 weight decay, added to the gradient before the moments", least=0)


def learning_rate_at(settings: OptimizerSettings, step: jax.Array, steps: jax.Array | int) -> jax.Array:
    """The learning rate at ``step`` (0 first) of a run of ``steps``; float32.

    ``cosine`` falls from ``learning_rate`` to ``learning_rate_final_fraction`` of it after ``steps``, as
    ``optax.cosine_decay_schedule`` does. (That one rejects traced settings, with which a sweep compiles once.) ``poly``
    falls to zero.
    """
    rate = jnp.float32(settings.learning_rate)
    if settings.learning_rate_schedule == "constant":
        return rate
    progress = jnp.minimum(step.astype(jnp.float32) / steps, 1.0)
    if settings.learning_rate_schedule == "poly":  # DeepLab's
        return rate * (1 - progress) ** 0.9
    floor = settings.learning_rate_final_fraction
    return rate * (floor + (1 - floor) * 0.5 * (1 + jnp.cos(jnp.pi * progress)))


def linear_decay(step: jax.Array, steps: jax.Array | int, constant_epochs: int, decay_epochs: int) -> jax.Array:
    """CycleGAN's factor of the learning rate at ``step`` (0 first) of a run of ``steps``; float32.

    In epoch e (from 1) it is 1 − max(0, e + 1 − constant) / (decay + 1), as in the authors' code: it falls from the
    last of the constant epochs on, and is 0 in the last epoch. An epoch is the run's steps divided by all epochs.
    """
    if not decay_epochs:
        return jnp.float32(1)
    epoch = step * (constant_epochs + decay_epochs) // steps + 1
    past = jnp.clip(epoch + 1 - constant_epochs, 0, decay_epochs + 1).astype(jnp.float32)
    return 1 - past / (decay_epochs + 1)


def without_weight_decay(settings: OptimizerSettings) -> OptimizerSettings:
    """The settings of an optimiser that leaves parameters without gradient alone."""
    return dataclasses.replace(settings, weight_decay=0.0)


def make_optimizer(settings: OptimizerSettings, decay_mask: Any = None) -> optax.GradientTransformation:
    """PyTorch's ``Adam(weight_decay=…)`` (not AdamW) or ``SGD(momentum=…, weight_decay=…)``, without the learning rate.

    Apply the result with :func:`apply`, which scales by the learning rate.

    Args:
      decay_mask: tree of bools, False for parameters without weight decay, or a function from parameters to such a
        tree, such as :meth:`sean_jax.models.network.Network.decayed`.
    """
    scale = {
        "adam": lambda: optax.scale_by_adam(b1=settings.beta1, b2=0.999, eps=1e-8),
        "adam_tensorflow": lambda: _scale_by_tensorflow_adam(settings.beta1),
        "sgd": lambda: optax.trace(settings.momentum),
    }[settings.optimizer]()
    tx = optax.chain(optax.add_decayed_weights(settings.weight_decay, mask=decay_mask), scale)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        directions, state = tx.update(updates, state, params)
        return _scale_heads(directions, settings.head_learning_rate_factor), state

    return optax.GradientTransformation(tx.init, update)


def _scale_heads(directions: Any, factor: jax.Array | float) -> Any:
    """Scales those of a network's head (``head``; ``head_1`` and ``head_2`` of MCD)."""

    def scaled(path: Any, direction: jax.Array) -> jax.Array:
        return factor * direction if path and str(path[0].key).startswith("head") else direction

    return jax.tree_util.tree_map_with_path(scaled, directions)


def _scale_by_tensorflow_adam(b1: jax.Array | float, b2: float = 0.999, eps: float = 1e-8) -> Any:
    """Adam with ε added to √v before the bias correction, which matters for gradients below about 1e-5."""
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = adam.update(updates, state, params)
        count = state.count.astype(jnp.float32)
        scale = jnp.sqrt(1 - jnp.float32(b2) ** count) / (1 - jnp.asarray(b1, jnp.float32) ** count)
        return jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), state.mu, state.nu), state

    return optax.GradientTransformation(adam.init, update)


def apply(
    tx: optax.GradientTransformation, gradients: Any, opt_state: optax.OptState, params: Any, learning_rate: jax.Array
) -> tuple[Any, optax.OptState, dict[str, jax.Array]]:
    """One update: the new parameters and optimiser state, and metrics of the update.

    The metrics are ``train/learning_rate`` and the L2 norms over all parameters ``train/gradient_norm``,
    ``train/update_norm`` and ``train/parameter_norm`` (of the new parameters).
    """
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes its integer count with floats
        directions, opt_state = tx.update(gradients, opt_state, params)
    updates = jax.tree.map(lambda direction: -learning_rate * direction, directions)
    params = optax.apply_updates(params, updates)
    metrics = {
        "train/learning_rate": learning_rate,
        "train/gradient_norm": optax.tree.norm(gradients),
        "train/update_norm": optax.tree.norm(updates),
        "train/parameter_norm": optax.tree.norm(params),
    }
    return params, opt_state, metrics
