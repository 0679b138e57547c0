"""What every network offers: initial parameters, features, and a head that predicts from them."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from sean_jax import compiler
from sean_jax.models.initializers import Initializers, make_initializers
from sean_jax.models.inputs import INPUT_RMS

Params = dict[str, Any]

MIN_SIZE = 16  # pixels on either side; a smaller image would leave the attention module less than 2×2 features

_SMALLEST_IMAGE = np.zeros((1, MIN_SIZE, MIN_SIZE, 3), np.float32)

# Precision setting → (type of activations and convolutions, precision of float32 products). Parameters, logits, maps,
# softmax, losses and everything after them are float32 under all three.
PRECISIONS: dict[str, tuple[Any, lax.Precision]] = {
    "float32": (jnp.float32, lax.Precision.HIGHEST),
    "tf32": (jnp.float32, lax.Precision.DEFAULT),  # TF32 on NVIDIA GPUs; plain float32 on a CPU
    "bfloat16": (jnp.bfloat16, lax.Precision.DEFAULT),
}


class Prediction(NamedTuple):
    """A network's output for a batch, at the network's output stride.

    Attributes:
      logits: ``[b, h, w, classes]`` float32, before softmax.
      features: ``[b, h', w', c]``, the feature map that the classifier reads (a domain discriminator may read it too).
      maps: further maps ``[b, h, w]`` float32 in [0, 1], by name, such as ``attention``.
    """

    logits: jax.Array
    features: jax.Array
    maps: dict[str, jax.Array]

    @property
    def attention(self) -> jax.Array:
        """The attention map ``[b, h, w]``, or 1 everywhere for a network without attention: nothing is masked then."""
        return self.maps.get("attention", jnp.ones(self.logits.shape[:-1], jnp.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(abc.ABC):
    """A segmentation network as pure functions of its parameters ``{"trunk": …, "head": …}``.

    The trunk and the head are Flax modules. A method may train several heads on one trunk, or two networks.

    Attributes:
      settings: what the architecture leaves open; an instance of ``Settings``.
      input_convention: see :mod:`sean_jax.models.inputs`.
      initialization: see :mod:`sean_jax.models.initializers`.
      precision: a key of :data:`PRECISIONS`.
      remat: whether the backward pass recomputes activations block by block instead of storing them.
    """

    Settings: ClassVar[type]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # Module path in the parameters → module name in the PyTorch code that this network follows; used to exchange
    # weights. In the order of that network's ``state_dict()``.
    TORCH_MODULES: ClassVar[Mapping[tuple[str, ...], str]]

    settings: Any
    num_classes: int
    input_convention: str = "bgr_mean"
    initialization: str = "scratch"
    precision: str = "float32"
    remat: bool = False

    @abc.abstractmethod
    def trunk_module(self) -> nn.Module:
        """The module that maps images ``[b, H, W, 3]`` (RGB, 0–255) to features."""

    @abc.abstractmethod
    def head_module(self) -> nn.Module:
        """The module that maps the trunk's features, and keys for dropout or None, to a :class:`Prediction`."""

    def features(self, params: Params, images: jax.Array) -> Any:
        """Applies the trunk to RGB images ``[b, H, W, 3]`` on the 0–255 scale (any real type), at least 16×16.

        Args:
          params: a mapping with the parameters of the ``trunk``.
        """
        return self.trunk_module().apply({"params": params["trunk"]}, images)

    def head(self, params: Params, features: Any, dropout: jax.Array | None = None) -> Prediction:
        """Applies the head to the trunk's features.

        Args:
          params: a mapping with the parameters of the ``head``.
          dropout: one key for each example in training, see :func:`sean_jax.models.layers.dropout`; None in
            prediction. Heads without dropout ignore it.
        """
        return self.head_module().apply({"params": params["head"]}, features, dropout)  # pyright: ignore[reportReturnType]

    def predict(self, params: Params, images: jax.Array, dropout: jax.Array | None = None) -> Prediction:
        """Applies the whole network; see :meth:`features` for the images and :meth:`head` for ``dropout``."""
        return self.head(params, self.features(params, images), dropout)

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters; their shapes do not depend on the image size."""
        if isinstance(key, jax.core.Tracer):  # in a function that is compiled as a whole
            return self._init(key)
        return _compiled_init(self)(key)

    def abstract_params(self) -> Params:
        """Shapes and types of the parameters; nothing is computed."""
        return _abstract_params(self)

    def _init(self, key: jax.Array) -> Params:
        trunk_key, head_key = jax.random.split(key)
        features, trunk = self.trunk_module().init_with_output(trunk_key, _SMALLEST_IMAGE)
        return {"trunk": trunk["params"], "head": self.head_module().init(head_key, features)["params"]}

    def initializers(self, channels: int, branches: int = 1) -> Initializers:
        """The initialisers of a network whose last feature map has ``channels``; see :func:`make_initializers`."""
        return make_initializers(
            self.initialization,
            channels=channels,
            branches=branches,
            input_rms=INPUT_RMS[self.input_convention],
        )

    def used(self, params: Params) -> Params:
        """Tree of bools shaped like ``params``: False for parameters that predictions do not depend on.

        PyTorch's optimisers skip parameters without a gradient, weight decay included, and so must ours.
        """
        return jax.tree.map(lambda _: True, params)

    def decayed(self, params: Params) -> Params:
        """Tree of bools shaped like ``params``: whether weight decay acts on a parameter; default: if it is used."""
        return self.used(params)


@functools.cache
def _abstract_params(network: Network) -> Params:
    return jax.eval_shape(network._init, jax.random.key(0))


@functools.cache  # so that runs of equal networks, in one process, share the compiled program
def _compiled_init(network: Network) -> Any:
    return jax.jit(network._init, compiler_options=compiler.options(jax.default_backend()))
