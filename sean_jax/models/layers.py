"""The 3×3 convolution of which the backbone and the classifier are built."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax

from sean_jax.ops.convolution import conv3x3


class Conv3x3(nn.Module):
    """A same-size 3×3 convolution with zero padding: ``[b, h, w, c] → [b, h, w, features]``.

    Its parameters are those of ``nn.Conv``: ``kernel`` ``[3, 3, c, features]`` and ``bias`` ``[features]``, both
    float32, and the same key gives the same initial values.

    Attributes:
      dtype: type of the operands of the products; default: the type that the input and the parameters promote to.
      precision: of float32 products, as in ``nn.Conv``.
      preferred_element_type: type of the output, in which the bias is added; default: ``dtype``.
    """

    features: int
    dilation: int = 1
    use_bias: bool = True
    dtype: Any = None
    precision: lax.PrecisionLike = None
    preferred_element_type: Any = None
    kernel_init: initializers.Initializer = initializers.lecun_normal()
    bias_init: initializers.Initializer = initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features), jnp.float32)
        dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
        operands = x.astype(dtype), kernel.astype(dtype)
        y = conv3x3(*operands, self.dilation, self.precision, self.preferred_element_type)
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
