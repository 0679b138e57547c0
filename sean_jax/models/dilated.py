"""The dilated VGG-16 of FCNs in the Wild and CCA: fc6 and fc7 of the full VGG-16, and a learned upsampling."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sean_jax.models.initializers import Initializers
from sean_jax.models.layers import dropout, relu
from sean_jax.models.network import PRECISIONS, Network, Params, Prediction
from sean_jax.models.vgg import CONVOLUTIONS, VGG16, scaled
from sean_jax.settings import setting, settings

FC_CHANNELS = 4096
STRIDE = 8  # of the features, and of the upsampling
DROPOUT_RATE = 0.5


@settings
class DilatedSettings:
    """The size of the network."""

    width_multiplier: float = setting(1.0, "factor of every hidden layer's channels", least=1 / 64, most=16)


def bilinear_kernel(size: int) -> np.ndarray:
    """The ``[size, size]`` kernel with which a transposed convolution of stride ``size / 2`` interpolates; float32."""
    tap = 1 - np.abs(np.arange(size) - (size - 1) / 2) / (size / 2)
    return np.outer(tap, tap).astype(np.float32)


def bilinear_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial ``[size, size, classes, classes]`` kernel that interpolates each class by itself."""
    del key
    size, _, classes, _ = shape
    return jnp.asarray(bilinear_kernel(size)[..., None, None] * np.eye(classes, dtype=np.float32), dtype)


class Head(nn.Module):
    """fc6, fc7, score and upsampling: features ``[b, h, w, 512]`` → :class:`Prediction` with logits ``[b, 8h, 8w, c]``.

    The features of the prediction are those of fc7, after dropout.
    """

    width_multiplier: float
    num_classes: int
    init_fns: Initializers
    dtype: Any
    precision: lax.Precision

    @nn.compact
    def __call__(self, x: jax.Array, dropout_keys: jax.Array | None = None) -> Prediction:
        channels = scaled(FC_CHANNELS, self.width_multiplier)
        common: dict[str, Any] = {"dtype": self.dtype, "precision": self.precision}
        for layer, (name, size, dilation) in enumerate((("fc6", 7, 4), ("fc7", 1, 1))):
            convolution = nn.Conv(
                channels,
                (size, size),
                kernel_dilation=dilation,
                kernel_init=self.init_fns.kernel,
                bias_init=self.init_fns.bias(size * size * x.shape[-1]),
                name=name,
                **common,
            )
            x = dropout(relu(convolution(x)), DROPOUT_RATE, dropout_keys, layer)
        score = nn.Conv(self.num_classes, (1, 1), kernel_init=self.init_fns.classifier, name="score", **common)(x)
        upsample = nn.ConvTranspose(
            self.num_classes,
            (2 * STRIDE, 2 * STRIDE),
            (STRIDE, STRIDE),
            use_bias=False,
            transpose_kernel=True,  # the layout and meaning of TensorFlow's and PyTorch's transposed convolutions
            kernel_init=bilinear_init,
            precision=self.precision,
            name="upsample",
        )
        return Prediction(upsample(score.astype(jnp.float32)), x, {})


class Dilated(Network):
    """Features at output stride 8, logits at that of the input, if its sides are multiples of 8."""

    Settings: ClassVar[type] = DilatedSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"width_multiplier": 0.25}}
    # There is no PyTorch code; these are the layers' names in the public TensorFlow code.
    TORCH_MODULES: ClassVar[Mapping[tuple[str, ...], str]] = {
        **{("trunk", layer): layer for layer in CONVOLUTIONS},
        ("head", "fc6"): "fc6",
        ("head", "fc7"): "fc7",
        ("head", "score"): "final",
        ("head", "upsample"): "upsample",
    }

    settings: DilatedSettings

    def trunk_module(self) -> VGG16:
        dtype, precision = PRECISIONS[self.precision]
        width = self.settings.width_multiplier
        return VGG16(width, self.input_convention, self._init_fns(), dtype, precision, self.remat)

    def head_module(self) -> Head:
        dtype, precision = PRECISIONS[self.precision]
        return Head(self.settings.width_multiplier, self.num_classes, self._init_fns(), dtype, precision)

    def _init_fns(self) -> Initializers:
        return self.initializers(scaled(FC_CHANNELS, self.settings.width_multiplier))

    def decayed(self, params: Params) -> Params:
        """True for the 3×3 kernels, fc6's and the upsampling, as in the public code: not for biases, fc7 and score."""

        def decays(path: Any, _: Any) -> bool:
            *_, layer, leaf = (key.key for key in path)
            return leaf == "kernel" and layer not in ("fc7", "score")

        return jax.tree_util.tree_map_with_path(decays, params)
