"""The whole network: backbone, attention, classifier."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sean_jax.models.aspp import ASPP
from sean_jax.models.attention import Attention
from sean_jax.models.initializers import make_initializers
from sean_jax.models.inputs import INPUT_RMS, apply_convention
from sean_jax.models.vgg import Backbone, thin

MIN_SIZE = 16  # pixels on either side; a smaller image would leave the attention module less than 2×2 features

_SMALLEST_IMAGE = np.zeros((1, MIN_SIZE, MIN_SIZE, 3), np.float32)

# Precision setting → (type of activations and convolutions, precision of float32 products). Parameters, the
# attention map, softmax, losses and everything after them are float32 under all three.
PRECISIONS: dict[str, tuple[Any, lax.Precision]] = {
    "float32": (jnp.float32, lax.Precision.HIGHEST),
    "tf32": (jnp.float32, lax.Precision.DEFAULT),  # TF32 on NVIDIA GPUs; plain float32 on a CPU
    "bfloat16": (jnp.bfloat16, lax.Precision.DEFAULT),
}


class Prediction(NamedTuple):
    """What the network says of a batch, at output stride 8 (h = ⌊⌊⌊H/2⌋/2⌋/2⌋)."""

    logits: jax.Array  # [b, h, w, num_classes] float32, before softmax
    attention: jax.Array  # [b, h, w] float32 in (0, 1); 1 everywhere without the attention module


class Segmenter(nn.Module):
    """VGG-16 DeepLab-v2 with the attention module; student and teacher are two sets of its parameters.

    Takes RGB images ``[b, H, W, 3]`` on the 0–255 scale (any real type), at least 16×16, odd sizes too.
    """

    num_classes: int
    width_multiplier: float = 1.0
    fc_channels: int = 1024
    fc_dilation: int = 4
    classifier_branches: int = 4
    attention: bool = True
    attention_pooling: str = "average_2x2"
    attention_upsampling: str = "bilinear"
    attention_transform: str = "after_upsampling"
    input_convention: str = "bgr_mean"
    initialization: str = "scratch"
    precision: str = "float32"
    remat: bool = False  # see Backbone; predictions do not depend on it

    @nn.compact
    def __call__(self, images: jax.Array) -> Prediction:
        dtype, precision = PRECISIONS[self.precision]
        common: dict[str, Any] = {"dtype": dtype, "precision": precision}
        init_fns = make_initializers(
            self.initialization,
            channels=thin(self.fc_channels, self.width_multiplier),
            branches=self.classifier_branches,
            input_rms=INPUT_RMS[self.input_convention],
        )
        inputs = apply_convention(images.astype(jnp.float32), self.input_convention)
        features = Backbone(
            self.fc_channels,
            self.fc_dilation,
            self.width_multiplier,
            init_fns,
            remat=self.remat,
            name="backbone",
            **common,
        )(inputs.astype(dtype))
        if self.attention:
            attention = Attention(
                self.attention_pooling,
                self.attention_upsampling,
                self.attention_transform,
                init_fns.attention,
                name="attention",
                **common,
            )(features)
            attended = (1 + attention).astype(dtype) * features  # equation 2
        else:  # an ablation: features as they are, and no position is masked out
            attention, attended = jnp.ones((*features.shape[:3], 1), jnp.float32), features
        logits = ASPP(self.num_classes, self.classifier_branches, init_fns, name="classifier", **common)(attended)
        return Prediction(logits.astype(jnp.float32), attention[..., 0])

    def init_params(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters; their shapes do not depend on the image size."""
        # Run once: on a CPU, optimising the compiled program would take seconds and save microseconds.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        return jax.jit(self.init, compiler_options=options)(key, _SMALLEST_IMAGE)["params"]

    def abstract_params(self) -> dict[str, Any]:
        """Shapes and types of the parameters; nothing is computed."""
        return jax.eval_shape(self.init, jax.random.key(0), _SMALLEST_IMAGE)["params"]

    def predict(self, params: dict[str, Any], images: jax.Array) -> Prediction:
        """Applies the network with ``params`` to ``images``."""
        return self.apply({"params": params}, images)  # pyright: ignore[reportReturnType]


def classifier_is_read(params: dict[str, Any], summed_branches: int) -> dict[str, Any]:
    """Tree of bools shaped like ``params``: False for the classifier branches that the network never sums.

    PyTorch's optimisers pass over parameters without a gradient, weight decay included; so must ours.
    """
    unread = {f"branch_{i}" for i in range(summed_branches, len(params["classifier"]))}
    return jax.tree_util.tree_map_with_path(lambda path, _: not (len(path) > 1 and path[1].key in unread), params)
