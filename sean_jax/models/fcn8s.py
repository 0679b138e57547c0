"""FCN-8s on VGG-16 (Long et al., CVPR 2015), in the forms that MCD and CyCADA published."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers
from jax import lax

from sean_jax.models.initializers import Initializers
from sean_jax.models.inputs import apply_convention
from sean_jax.models.layers import dropout, relu
from sean_jax.models.network import PRECISIONS, Network, Prediction
from sean_jax.models.vgg import BLOCKS, CONVOLUTIONS, conv_block, scaled
from sean_jax.ops.pooling import max_pool_2x2
from sean_jax.settings import setting, settings

FC_CHANNELS = 4096  # of fc6 and fc7, as in VGG-16's classifier
# Left and above the image, in the scores that pool4's are added to, that pool3's are added to, and the output.
_CROPS = {"pool4": 5, "pool3": 9, "output": 31}


@settings
class FCN8sSettings:
    """Where MCD's and CyCADA's FCN-8s differ; the defaults are CyCADA's.

    They suit training from ImageNet weights best. Training starts as that of an FCN-32s, since bilinear upsampling
    passes the coarse scores on unchanged and the scores of pool3 and pool4 are zero. Those features are a hundred
    times as large as the last ones under Caffe's input convention, so unscaled they would dominate the scores after a
    few steps. In MCD's form (``upsampling=learned``, both scales 1, ``zero_skips=False``), random transposed
    convolutions mix all classes at first.
    """

    width_multiplier: float = setting(1.0, "factor of every hidden layer's channels", least=1 / 64, most=16)
    upsampling: Literal["bilinear", "learned"] = setting(
        "bilinear", "upsampling of the scores: fixed (CyCADA), or transposed convolutions without bias (MCD)"
    )
    pool4_scale: float = setting(0.01, "factor of pool4's features before they are scored; MCD: 1", least=0)
    pool3_scale: float = setting(0.0001, "factor of pool3's features before they are scored; MCD: 1", least=0)
    zero_skips: bool = setting(True, "start the scores of pool3 and pool4 at zero; MCD does not")
    dropout_rate: float = setting(
        0.5, "dropout of whole channels after fc6 and fc7; MCD's heads: 0.1", least=0, most=0.99
    )


class Pools(flax.struct.PyTreeNode):
    """What the trunk passes to the head.

    Attributes:
      pool3, pool4, pool5: ``[b, h, w, c]`` after the pooling, at 1/8, 1/16 and 1/32 of the padded image.
      size: height and width of the images, to which the head crops its scores.
    """

    pool3: jax.Array
    pool4: jax.Array
    pool5: jax.Array
    size: tuple[int, int] = flax.struct.field(pytree_node=False)


class Trunk(nn.Module):
    """conv1_1 to pool5: images ``[b, H, W, 3]`` → :class:`Pools`.

    conv1_1 pads by 100, so that fc6 without padding has at least one position for any image. Halvings round up.
    """

    width_multiplier: float
    input_convention: str
    init_fns: Initializers
    dtype: Any
    precision: lax.Precision
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> Pools:
        x = apply_convention(images.astype(jnp.float32), self.input_convention).astype(self.dtype)
        x = jnp.pad(x, ((0, 0), (99, 99), (99, 99), (0, 0)))  # and 1 by the convolution
        pools = {}
        for block, (convolutions, channels, *_) in BLOCKS.items():
            names = tuple(f"conv{block}_{i}" for i in range(1, convolutions + 1))
            width = scaled(channels, self.width_multiplier)
            x = conv_block(self, x, names, width, 1, init=self.init_fns, remat=self.remat)
            pools[f"pool{block}"] = x = max_pool_2x2(x, round_up=True)
        height, width = images.shape[1:3]
        return Pools(pools["pool3"], pools["pool4"], pools["pool5"], (height, width))


class Head(nn.Module):
    """fc6, fc7, scores of three resolutions, and their upsampling: :class:`Pools` → :class:`Prediction`."""

    settings: FCN8sSettings
    num_classes: int
    init_fns: Initializers
    dtype: Any
    precision: lax.Precision

    @nn.compact
    def __call__(self, pools: Pools, keys: jax.Array | None = None) -> Prediction:
        s = self.settings
        x = pools.pool5
        for layer, (name, size) in enumerate((("fc6", 7), ("fc7", 1))):
            conv = nn.Conv(
                scaled(FC_CHANNELS, s.width_multiplier),
                (size, size),
                padding="VALID",
                kernel_init=self.init_fns.kernel,
                bias_init=self.init_fns.bias(size * size * x.shape[-1]),
                dtype=self.dtype,
                precision=self.precision,
                name=name,
            )
            x = dropout(relu(conv(x)), s.dropout_rate, keys, layer, whole_channels=True)
        scores = self._upsampled(self._scores("score_fr", x, self.init_fns.classifier), 2, "upscore2")
        for name, pool, scale, upscore, factor in (
            ("pool4", pools.pool4, s.pool4_scale, "upscore_pool4", 2),
            ("pool3", pools.pool3, s.pool3_scale, "upscore8", 8),
        ):
            init = initializers.zeros_init() if s.zero_skips else self.init_fns.kernel
            skip = self._scores(f"score_{name}", scale * pool, init, zero=s.zero_skips)
            scores = self._upsampled(scores + _crop(skip, _CROPS[name], scores.shape[1:3]), factor, upscore)
        return Prediction(_crop(scores, _CROPS["output"], pools.size), x, {})

    def _scores(self, name: str, x: jax.Array, init: initializers.Initializer, *, zero: bool = False) -> jax.Array:
        """A 1×1 classifier, in float32 whatever the type of the features."""
        return nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=init,
            bias_init=initializers.zeros_init() if zero else self.init_fns.bias(x.shape[-1]),
            precision=self.precision,
            name=name,
        )(x.astype(jnp.float32))

    def _upsampled(self, scores: jax.Array, factor: int, name: str) -> jax.Array:
        """``[b, h, w, classes]`` → ``[b, (h + 1)·factor, (w + 1)·factor, classes]``."""
        if self.settings.upsampling == "bilinear":
            return upsample_bilinear(scores, factor)
        return nn.ConvTranspose(
            self.num_classes,
            (2 * factor, 2 * factor),
            (factor, factor),
            padding="VALID",
            use_bias=False,
            kernel_init=initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # PyTorch's default
            precision=self.precision,
            transpose_kernel=True,  # as in PyTorch: [size, size, out, in], the transpose of a convolution
            name=name,
        )(scores)


def upsample_bilinear(x: jax.Array, factor: int) -> jax.Array:
    """``[b, h, w, c]`` → ``[b, (h + 1)·factor, (w + 1)·factor, c]``, without parameters.

    FCN's transposed convolution with a bilinear kernel of 2·factor, stride ``factor``, each channel by itself. Values
    fade to zero outside the map.
    """
    taps = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor

    def matrix(length: int) -> np.ndarray:
        found = np.zeros(((length + 1) * factor, length), np.float32)
        for i in range(length):
            found[i * factor : (i + 2) * factor, i] = taps
        return found

    rows, columns = matrix(x.shape[1]), matrix(x.shape[2])
    x = jnp.einsum("hi,biwc->bhwc", rows, x, precision="highest")
    return jnp.einsum("wj,bhjc->bhwc", columns, x, precision="highest")


def _crop(x: jax.Array, start: int, size: tuple[int, ...]) -> jax.Array:
    return x[:, start : start + size[0], start : start + size[1]]


class FCN8s(Network):
    """Logits at the size of the image; ``features`` are fc7's at 1/32 of the padded image, after dropout.

    The padding by 100 makes it slow on small images: one of 96×192 pixels costs as much as one of 294×390.
    """

    Settings: ClassVar[type] = FCN8sSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"width_multiplier": 0.25}}
    # MCD's names, which are Caffe's and those of most FCN-8s in PyTorch. Bilinear upsampling has no parameters.
    TORCH_MODULES: ClassVar[Mapping[tuple[str, ...], str]] = {
        **{("trunk", layer): layer for layer in CONVOLUTIONS},
        **{
            ("head", layer): layer
            for layer in (
                *("fc6", "fc7", "score_fr", "score_pool3", "score_pool4"),
                *("upscore2", "upscore8", "upscore_pool4"),
            )
        },
    }

    settings: FCN8sSettings

    def trunk_module(self) -> Trunk:
        dtype, precision = PRECISIONS[self.precision]
        width = self.settings.width_multiplier
        return Trunk(width, self.input_convention, self._init_fns(), dtype, precision, self.remat)

    def head_module(self) -> Head:
        dtype, precision = PRECISIONS[self.precision]
        return Head(self.settings, self.num_classes, self._init_fns(), dtype, precision)

    def _init_fns(self) -> Initializers:
        return self.initializers(scaled(FC_CHANNELS, self.settings.width_multiplier))
