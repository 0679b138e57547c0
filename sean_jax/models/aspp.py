"""The classifier of DeepLab-v2: atrous spatial pyramid pooling."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.models.initializers import Initializers
from sean_jax.models.layers import Conv3x3

DILATIONS = (6, 12, 18, 24)


class ASPP(nn.Module):
    """Sum of dilated 3×3 classifiers: ``[b, h, w, c] → [b, h, w, num_classes]`` float32.

    All four branches have parameters, so that checkpoints keep the authors' shape; the first
    ``summed_branches`` act. The paper sums four; the authors' code returns after the second, so that the
    branches of dilation 18 and 24 get no gradient there.
    """

    num_classes: int
    summed_branches: int
    init_fns: Initializers
    dtype: Any
    precision: lax.Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = [
            Conv3x3(
                self.num_classes,
                dilation=dilation,
                kernel_init=self.init_fns.classifier,
                bias_init=self.init_fns.bias(9 * x.shape[-1]),
                dtype=self.dtype,
                precision=self.precision,
                preferred_element_type=jnp.float32,  # of logits, whatever the type of the features
                name=f"branch_{i}",
            )(x)
            for i, dilation in enumerate(DILATIONS)
        ]
        # The branches left out cost nothing: the compiler drops what nobody reads.
        return functools.reduce(jnp.add, branches[: self.summed_branches])
