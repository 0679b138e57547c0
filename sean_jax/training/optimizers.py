"""Adam with coupled L2 weight decay, as an optax chain."""

from typing import Any

import optax


def make_optimizer(
    *, learning_rate: float, schedule: str, final_fraction: float, steps: int, weight_decay: float, decay_mask: Any
) -> optax.GradientTransformation:
    """PyTorch's ``Adam(lr, weight_decay=...)``: the decay is added to the gradient before the moments (not AdamW).

    Args:
      schedule: ``constant`` (paper and authors' code), or ``cosine`` from ``learning_rate`` down to
        ``final_fraction`` of it over ``steps``, for training from scratch.
      decay_mask: tree of bools, False for parameters that the network never reads (see
        :func:`sean_jax.models.deeplab.classifier_is_read`), or a function from parameters to such a tree.
    """
    rates = {
        "constant": optax.constant_schedule(learning_rate),
        "cosine": optax.cosine_decay_schedule(learning_rate, steps, alpha=final_fraction),
    }
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.scale_by_learning_rate(rates[schedule]),
    )
