"""CycleGAN's networks: a generator that translates images into another look, and a discriminator of image patches.

Both follow Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial networks" (ICCV 2017),
and the authors' PyTorch code. Convolutions in front of an instance normalisation have no bias: it would change no
output, and Adam would move it by rounding noise.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax

STRIDE = 4  # height and width of the generator's images must be multiples of it
MIN_SIZE = 24  # pixels on either side; the discriminator's map of a smaller image would be empty

_normal = initializers.normal(0.02)


def to_signed(images: jax.Array) -> jax.Array:
    """Images on the 0–255 scale (any real type) → float32 in [−1, 1], as CycleGAN's networks read them."""
    return images.astype(jnp.float32) / 127.5 - 1


def from_signed(images: jax.Array) -> jax.Array:
    """The inverse of :func:`to_signed`; float32 on the 0–255 scale."""
    return (images + 1) * 127.5


def instance_norm(x: jax.Array) -> jax.Array:
    """Normalises each channel of each example over its positions; no parameters, computed in float32."""
    y = x.astype(jnp.float32)
    mean = y.mean((1, 2), keepdims=True)
    variance = jnp.square(y - mean).mean((1, 2), keepdims=True)
    return ((y - mean) * lax.rsqrt(variance + 1e-5)).astype(x.dtype)


def _reflect(x: jax.Array, width: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), mode="reflect")


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions whose result is added to the input."""

    dtype: Any = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def conv(y: jax.Array, name: str) -> jax.Array:
            layer = nn.Conv(
                x.shape[-1],
                (3, 3),
                padding="VALID",
                use_bias=False,
                kernel_init=_normal,
                dtype=self.dtype,
                precision=self.precision,
                name=name,
            )
            return instance_norm(layer(_reflect(y, 1)))

        return x + conv(nn.relu(conv(x, "conv1")), "conv2")


class Generator(nn.Module):
    """Translates images ``[b, H, W, 3]`` in [−1, 1] into images of the same size, float32 in [−1, 1].

    ``H`` and ``W`` are multiples of :data:`STRIDE`. In the notation of the paper: c7s1-64, d128, d256, R256 × blocks,
    u128, u64, c7s1-3.

    Attributes:
      width: channels of the first layer; 64 in the paper.
      blocks: residual blocks; 9 in the paper.
      remat: whether the backward pass recomputes the residual blocks.
    """

    width: int = 64
    blocks: int = 9
    dtype: Any = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        common: dict[str, Any] = {"kernel_init": _normal, "dtype": self.dtype, "precision": self.precision}
        inner: dict[str, Any] = {"use_bias": False, **common}
        x = _reflect(images.astype(self.dtype), 3)
        x = nn.relu(instance_norm(nn.Conv(self.width, (7, 7), padding="VALID", name="first", **inner)(x)))
        for i in (1, 2):
            conv = nn.Conv(self.width * 2**i, (3, 3), (2, 2), padding=1, name=f"down{i}", **inner)
            x = nn.relu(instance_norm(conv(x)))
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        for i in range(self.blocks):
            x = block(self.dtype, self.precision, name=f"block{i + 1}")(x)
        for i in (1, 2):
            # PyTorch's ConvTranspose2d(3, stride=2, padding=1, output_padding=1).
            channels, padding = self.width * 4 // 2**i, ((1, 2), (1, 2))
            conv = nn.ConvTranspose(
                channels, (3, 3), (2, 2), padding=padding, transpose_kernel=True, name=f"up{i}", **inner
            )
            x = nn.relu(instance_norm(conv(x)))
        x = nn.Conv(3, (7, 7), padding="VALID", name="last", **common)(_reflect(x, 3))
        return jnp.tanh(x.astype(jnp.float32))


class PatchDiscriminator(nn.Module):
    """Judges 70×70 patches: images ``[b, H, W, 3]`` in [−1, 1] → ``[b, h, w, 1]`` float32, near 1 for real ones.

    Attributes:
      width: channels of the first layer; 64 in the paper.
    """

    width: int = 64
    dtype: Any = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.astype(self.dtype)
        for i, stride in enumerate((2, 2, 2, 1)):
            x = self._conv(self.width * 2**i, stride, f"conv{i + 1}", use_bias=i == 0)(x)
            x = nn.leaky_relu(instance_norm(x) if i else x, 0.2)
        return self._conv(1, 1, "conv5")(x).astype(jnp.float32)

    def _conv(self, channels: int, stride: int, name: str, use_bias: bool = True) -> nn.Conv:
        return nn.Conv(
            channels,
            (4, 4),
            (stride, stride),
            padding=1,
            use_bias=use_bias,
            kernel_init=_normal,
            dtype=self.dtype,
            precision=self.precision,
            name=name,
        )
