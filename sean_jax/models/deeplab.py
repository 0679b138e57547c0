"""VGG-16 DeepLab-v2 with the attention module: the network of the paper and of its authors' code."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.models.aspp import ASPP, DILATIONS
from sean_jax.models.attention import Attention
from sean_jax.models.initializers import Initializers
from sean_jax.models.network import PRECISIONS, Network, Params, Prediction
from sean_jax.models.vgg import CONVOLUTIONS, VGG16, conv_block, scaled
from sean_jax.settings import setting, settings


@settings
class DeepLabSettings:
    """Where the paper and the authors' code differ, and the size of the network."""

    width_multiplier: float = setting(1.0, "factor of every hidden layer's channels", least=1 / 64, most=16)
    fc_channels: int = setting(1024, "channels of fc6 and fc7, before the width multiplier", least=1)
    fc_dilation: int = setting(4, "dilation of fc6 and fc7", least=1)
    classifier_branches: int = setting(
        4, "ASPP branches that are summed; the authors' code sums 2 of 4", least=1, most=len(DILATIONS)
    )
    attention: bool = setting(True, "use the attention branch; without it nothing is masked")
    attention_pooling: Literal["average_2x2", "average_3x3"] = setting(
        "average_2x2", "pooling before the attention map (D of equation 1)"
    )
    attention_upsampling: Literal["bilinear", "bilinear_align_corners"] = setting(
        "bilinear", "upsampling of the attention map (U of equation 1)"
    )
    attention_transform: Literal["after_upsampling", "before_upsampling"] = setting(
        "after_upsampling",
        "whether the sigmoid (of T in equation 1) follows or precedes the upsampling",
    )


class Head(nn.Module):
    """fc6, fc7, attention and classifier: features ``[b, h, w, 512]`` → :class:`Prediction`."""

    settings: DeepLabSettings
    num_classes: int
    init_fns: Initializers
    dtype: Any
    precision: lax.Precision
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, dropout: jax.Array | None = None) -> Prediction:
        del dropout  # the authors' network has none
        s = self.settings
        common: dict[str, Any] = {"dtype": self.dtype, "precision": self.precision}
        width = scaled(s.fc_channels, s.width_multiplier)
        features = conv_block(self, x, ("fc6", "fc7"), width, s.fc_dilation, init=self.init_fns, remat=self.remat)
        maps, attended = {}, features
        if s.attention:
            attention = Attention(
                s.attention_pooling,
                s.attention_upsampling,
                s.attention_transform,
                self.init_fns.attention,
                name="attention",
                **common,
            )(features)
            maps["attention"] = attention[..., 0]
            attended = (1 + attention).astype(self.dtype) * features  # equation 2
        logits = ASPP(self.num_classes, s.classifier_branches, self.init_fns, name="classifier", **common)(attended)
        return Prediction(logits.astype(jnp.float32), features, maps)


class DeepLab(Network):
    """Output stride 8; student and teacher are two sets of its parameters."""

    Settings: ClassVar[type] = DeepLabSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {
            "attention_pooling": "average_3x3",
            "attention_upsampling": "bilinear_align_corners",
            "classifier_branches": 2,
        },
        "quick": {"width_multiplier": 0.25},
    }
    # The authors' ``features`` has three poolings, so its indices differ from torchvision's after conv4_3.
    TORCH_MODULES: ClassVar[Mapping[tuple[str, ...], str]] = {
        **{
            ("trunk", layer): f"features.{index}"
            for layer, index in zip(CONVOLUTIONS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 23, 25, 27), strict=True)
        },
        ("head", "fc6"): "features.29",
        ("head", "fc7"): "features.31",
        ("head", "attention", "conv"): "aconv",
        **{("head", "classifier", f"branch_{i}"): f"classifier.conv2d_list.{i}" for i in range(len(DILATIONS))},
    }

    settings: DeepLabSettings

    def trunk_module(self) -> VGG16:
        dtype, precision = PRECISIONS[self.precision]
        width = self.settings.width_multiplier
        return VGG16(width, self.input_convention, self._init_fns(), dtype, precision, self.remat)

    def head_module(self) -> Head:
        dtype, precision = PRECISIONS[self.precision]
        return Head(self.settings, self.num_classes, self._init_fns(), dtype, precision, self.remat)

    def _init_fns(self) -> Initializers:
        channels = scaled(self.settings.fc_channels, self.settings.width_multiplier)
        return self.initializers(channels, self.settings.classifier_branches)

    def used(self, params: Params) -> Params:
        """False for the classifier branches that are not summed."""
        unused = {f"branch_{i}" for i in range(self.settings.classifier_branches, len(DILATIONS))}
        return jax.tree_util.tree_map_with_path(lambda path, _: not unused & {key.key for key in path}, params)
