"""The convolutions of which networks are built, ReLU and dropout."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax

from sean_jax.ops.convolution import conv1x1, conv3x3


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
        return _convolution(self, x, 3, functools.partial(conv3x3, dilation=self.dilation))


class Conv1x1(nn.Module):
    """A 1×1 convolution: ``[b, h, w, c] → [b, h, w, features]``; attributes and parameters as of :class:`Conv3x3`."""

    features: int
    use_bias: bool = True
    dtype: Any = None
    precision: lax.PrecisionLike = None
    preferred_element_type: Any = None
    kernel_init: initializers.Initializer = initializers.lecun_normal()
    bias_init: initializers.Initializer = initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _convolution(self, x, 1, conv1x1)


def _convolution(layer: Conv3x3 | Conv1x1, x: jax.Array, size: int, convolve: Callable[..., jax.Array]) -> jax.Array:
    kernel = layer.param("kernel", layer.kernel_init, (size, size, x.shape[-1], layer.features), jnp.float32)
    dtype = layer.dtype or jnp.promote_types(x.dtype, kernel.dtype)
    options = {"precision": layer.precision, "preferred_element_type": layer.preferred_element_type}
    y = convolve(x.astype(dtype), kernel.astype(dtype), **options)
    if not layer.use_bias:
        return y
    bias = layer.param("bias", layer.bias_init, (layer.features,), jnp.float32)
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """``max(x, 0)``, with gradient 0 at 0.

    Unlike ``jax.nn.relu``, whose derivative needs ``x``, the backward pass needs the result alone. A convolution before
    it then stores one map instead of two, and cuDNN applies the ReLU before it writes that map.
    """
    return jnp.maximum(x, 0)


def _relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_backward(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(y > 0, gradient, jnp.zeros_like(gradient)),)


relu.defvjp(_relu_forward, _relu_backward)


def dropout(
    x: jax.Array, rate: float, keys: jax.Array | None, layer: int = 0, *, whole_channels: bool = False
) -> jax.Array:
    """Sets values to zero with probability ``rate`` and scales the others by ``1 / (1 − rate)``.

    Each example has a key of its own, so that the result does not depend on how a batch is divided among devices.

    Args:
      x: ``[b, h, w, c]``.
      keys: one key for each example, ``[b]``; None, as in prediction, returns ``x``.
      layer: number of the layer in its network; layers draw independently.
      whole_channels: drop whole channels of an example, as PyTorch's ``Dropout2d`` does.
    """
    if keys is None or rate == 0:
        return x
    shape = (1, 1, x.shape[-1]) if whole_channels else x.shape[1:]
    kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, shape))(keys)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
