"""The 3×3 convolution from which everything but the attention module is built."""

from typing import Any

import flax.linen as nn
from flax.linen import initializers
from jax import lax

from sean_jax.models.initializers import Initializers
from sean_jax.ops import convolution


def conv3x3(
    x: Any,
    channels: int,
    *,
    name: str,
    init: Initializers,
    dtype: Any,
    precision: lax.Precision,
    dilation: int = 1,
    kernel_init: initializers.Initializer | None = None,
) -> Any:
    """A same-size 3×3 convolution ``[b, h, w, c] → [b, h, w, channels]``; called inside a compact module."""
    layer = nn.Conv(
        channels,
        (3, 3),
        padding=dilation,
        kernel_dilation=dilation,
        dtype=dtype,
        precision=precision,
        kernel_init=kernel_init or init.kernel,
        bias_init=init.bias(9 * x.shape[-1]),
        conv_general_dilated=convolution.conv_general_dilated,
        name=name,
    )
    return layer(x)
