"""VGG-16 as DeepLab-v2 uses it: output stride 8, dilated conv5, fc6 and fc7 as 3×3 convolutions."""

from typing import Any

import flax.linen as nn
import jax
from jax import lax

from sean_jax.models.initializers import Initializers
from sean_jax.models.layers import Conv3x3
from sean_jax.ops.pooling import max_pool_2x2

# Block → (convolutions, channels, dilation, followed by pooling). pool4 and pool5 are dropped: stride 8 remains.
BLOCKS = {
    1: (2, 64, 1, True),
    2: (2, 128, 1, True),
    3: (3, 256, 1, True),
    4: (3, 512, 1, False),
    5: (3, 512, 2, False),
}


def thin(channels: int, width_multiplier: float) -> int:
    """Channels of a layer in a network thinned by ``width_multiplier``; at least one."""
    return max(1, round(channels * width_multiplier))


class Backbone(nn.Module):
    """Features F(x) of equation 1: ``[b, H, W, 3] → [b, H/8, W/8, fc_channels]``, after three floor halvings.

    There is no batch normalisation and no dropout, as in the authors' network.

    Attributes:
      remat: keep for the backward pass only what passes from block to block, and compute the rest again there.
    """

    fc_channels: int
    fc_dilation: int
    width_multiplier: float
    init_fns: Initializers
    dtype: Any
    precision: lax.Precision
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:

        def run_block(_: nn.Module, x: jax.Array, names: list[str], channels: int, dilation: int, pooled: bool):
            for name in names:
                width = thin(channels, self.width_multiplier)
                layer = Conv3x3(
                    width,
                    dilation=dilation,
                    kernel_init=self.init_fns.kernel,
                    bias_init=self.init_fns.bias(9 * x.shape[-1]),
                    dtype=self.dtype,
                    precision=self.precision,
                    name=name,
                )
                x = nn.relu(layer(x))
            return max_pool_2x2(x) if pooled else x

        run = nn.remat(run_block, static_argnums=(2, 3, 4, 5)) if self.remat else run_block
        for block, (convolutions, channels, dilation, pooled) in BLOCKS.items():
            x = run(self, x, [f"conv{block}_{i}" for i in range(1, convolutions + 1)], channels, dilation, pooled)
        return run(self, x, ["fc6", "fc7"], self.fc_channels, self.fc_dilation, False)
