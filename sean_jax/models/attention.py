"""The attention module, equation 1 of the paper."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax

from sean_jax.models.layers import Conv1x1
from sean_jax.ops.pooling import average_pool_2x2, average_pool_3x3
from sean_jax.ops.resize import resize_bilinear

POOLINGS = {"average_2x2": average_pool_2x2, "average_3x3": average_pool_3x3}


class Attention(nn.Module):
    """A(x) = T(U(D(F(x)))): ``[b, h, w, c] → [b, h, w, 1]`` float32 in (0, 1).

    D is average pooling, U is bilinear upsampling back to h×w, and T is a 1×1 convolution to one channel without bias
    followed by a sigmoid. Pooling and interpolation are linear and act on each channel separately, so the convolution
    can be applied first: D and U then process one channel instead of ``c``, with the same result. The sigmoid is not
    linear; ``transform`` sets its position.

    Attributes:
      pooling: ``average_2x2`` (paper) or ``average_3x3`` (authors' code).
      upsampling: ``bilinear`` (paper) or ``bilinear_align_corners`` (authors' code).
      transform: applies the sigmoid ``after_upsampling`` (equation 1) or ``before_upsampling``.
    """

    pooling: str
    upsampling: str
    transform: str
    kernel_init: initializers.Initializer
    dtype: Any
    precision: lax.Precision

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        conv = Conv1x1(
            1,
            use_bias=False,
            dtype=self.dtype,
            precision=self.precision,
            preferred_element_type=jnp.float32,
            kernel_init=self.kernel_init,
            name="conv",
        )
        pooled = POOLINGS[self.pooling](conv(features))
        height, width = features.shape[1:3]
        align_corners = self.upsampling == "bilinear_align_corners"
        if self.transform == "before_upsampling":
            return resize_bilinear(nn.sigmoid(pooled), (height, width), align_corners=align_corners)
        return nn.sigmoid(resize_bilinear(pooled, (height, width), align_corners=align_corners))
