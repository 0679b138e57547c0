"""The domain discriminator of adversarial methods: 1×1 convolutions, so one decision for each position of a map."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax

from sean_jax.models.layers import Conv1x1, dropout


class Discriminator(nn.Module):
    """Maps ``[b, h, w, c]`` to the logits of two domains, ``[b, h, w, 2]`` float32.

    FCNs in the Wild and CCA use 1024 and 1024 hidden channels on features, and drop single values; CyCADA uses 1024
    and 512 on features, 256 and 128 or 512 and 256 on class scores, and drops whole channels.

    Attributes:
      channels: of the hidden layers.
      dropout_rate: after each hidden layer, in training.
      whole_channels: whether dropout drops whole channels.
    """

    channels: tuple[int, ...]
    dropout_rate: float = 0.5
    whole_channels: bool = False
    kernel_init: initializers.Initializer = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    dtype: Any = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """``keys``: one for each example, for dropout; None without dropout."""
        common: dict[str, Any] = {
            "kernel_init": self.kernel_init,
            "dtype": self.dtype,
            "precision": self.precision,
        }
        for layer, channels in enumerate(self.channels):
            x = nn.relu(Conv1x1(channels, name=f"conv{layer + 1}", **common)(x))
            x = dropout(x, self.dropout_rate, keys, layer, whole_channels=self.whole_channels)
        logits = Conv1x1(2, name=f"conv{len(self.channels) + 1}", **common)(x)
        return logits.astype(jnp.float32)
