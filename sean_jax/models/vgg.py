"""The convolutions of VGG-16 with output stride 8, as DeepLab-v2 uses them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.models.initializers import Initializers
from sean_jax.models.inputs import apply_convention
from sean_jax.models.layers import Conv3x3, relu
from sean_jax.ops.pooling import max_pool_2x2

# Block → (convolutions, channels, dilation, followed by pooling). pool4 and pool5 are dropped: stride 8 remains.
BLOCKS = {
    1: (2, 64, 1, True),
    2: (2, 128, 1, True),
    3: (3, 256, 1, True),
    4: (3, 512, 1, False),
    5: (3, 512, 2, False),
}
CONVOLUTIONS = tuple(f"conv{block}_{i}" for block, (count, *_) in BLOCKS.items() for i in range(1, count + 1))


def scaled(channels: int, width_multiplier: float) -> int:
    """Channels of a layer under a width multiplier; at least one."""
    return max(1, round(channels * width_multiplier))


class VGG16(nn.Module):
    """conv1_1 to conv5_3: images ``[b, H, W, 3]`` → ``[b, H/8, W/8, 512]``, after three halvings rounded down.

    There is no batch normalisation and no dropout, as in the authors' network.

    Attributes:
      remat: store only what passes from block to block for the backward pass, and recompute the rest there.
    """

    width_multiplier: float
    input_convention: str
    init_fns: Initializers
    dtype: Any
    precision: lax.Precision
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = apply_convention(images.astype(jnp.float32), self.input_convention).astype(self.dtype)
        for block, (convolutions, channels, dilation, pooled) in BLOCKS.items():
            names = tuple(f"conv{block}_{i}" for i in range(1, convolutions + 1))
            width = scaled(channels, self.width_multiplier)
            x = conv_block(self, x, names, width, dilation, pooled=pooled, init=self.init_fns, remat=self.remat)
        return x


def conv_block(
    module: Any,
    x: jax.Array,
    names: tuple[str, ...],
    channels: int,
    dilation: int,
    *,
    pooled: bool = False,
    init: Initializers,
    remat: bool,
) -> jax.Array:
    """3×3 convolutions with ReLU, named ``names`` in ``module``, whose ``dtype`` and ``precision`` they take.

    Args:
      pooled: whether max-pooling follows.
      remat: whether the backward pass recomputes the block's activations.
    """

    def run(_: nn.Module, x: jax.Array) -> jax.Array:
        for name in names:
            layer = Conv3x3(
                channels,
                dilation=dilation,
                kernel_init=init.kernel,
                bias_init=init.bias(9 * x.shape[-1]),
                dtype=module.dtype,
                precision=module.precision,
                name=name,
            )
            x = relu(layer(x))
        return max_pool_2x2(x) if pooled else x

    return (nn.remat(run) if remat else run)(module, x)
