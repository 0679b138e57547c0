"""FCN-8s of MCD and CyCADA: seeded weights, and how the names of their code map onto our parameters."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax.models import Params
from sean_jax.models.fcn8s import FC_CHANNELS, FCN8s, FCN8sSettings
from sean_jax.models.inputs import apply_convention
from sean_jax.models.vgg import CONVOLUTIONS
from sean_jax.parity.cases import Case
from sean_jax.parity.seeded import VGG_BLOCKS, Spec, conv

Modules = Mapping[tuple[str, ...], str]  # path in our parameters → module of the code

INPUT_CONVENTION = "rgb_normalized"
MCD_FORM: dict[str, Any] = {"upsampling": "learned", "pool4_scale": 1.0, "pool3_scale": 1.0, "zero_skips": False}

# MCD's generator and two heads.
MCD_MODULES: Modules = {
    **{path: f"G.{module}" for path, module in FCN8s.TORCH_MODULES.items() if path[0] == "trunk"},
    **{
        (head, *path[1:]): f"{prefix}.{module}"
        for head, prefix in (("head_1", "F1"), ("head_2", "F2"))
        for path, module in FCN8s.TORCH_MODULES.items()
        if path[0] == "head"
    },
}
CYCADA_MODULES: Modules = {
    **{
        ("trunk", layer): f"vgg.{index}"
        for layer, index in zip(CONVOLUTIONS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True)
    },
    **{("head", "fc6"): "vgg_head.0", ("head", "fc7"): "vgg_head.3", ("head", "score_fr"): "vgg_head.6"},
    **{("head", layer): layer for layer in ("score_pool4", "score_pool3")},
}


def network(num_classes: int, **form: Any) -> FCN8s:
    """The network without dropout, at the highest precision, for torchvision's input normalisation."""
    settings = FCN8sSettings(dropout_rate=0.0, **form)
    return FCN8s(settings=settings, num_classes=num_classes, input_convention=INPUT_CONVENTION)


def mcd_spec(num_classes: int) -> Spec:
    """The tensors of MCD's generator and both heads."""
    yield from (tensor for layer, out, fan_in in _vgg() for tensor in conv(f"G.{layer}", out, fan_in, 3))
    for head in ("F1", "F2"):
        yield from conv(f"{head}.fc6", FC_CHANNELS, 512, 7)
        yield from conv(f"{head}.fc7", FC_CHANNELS, FC_CHANNELS, 1)
        yield from _scores(f"{head}.", num_classes, score_fr="score_fr", scales=(0.1, 0.1))
        for name, size in (("upscore2", 4), ("upscore8", 16), ("upscore_pool4", 4)):
            yield f"{head}.{name}.weight", (num_classes, num_classes, size, size), (1.0 / (4 * num_classes)) ** 0.5


def cycada_spec(num_classes: int) -> Spec:
    """The tensors of CyCADA's network. The skip scores are large, since it scales their inputs by 0.01 and 0.0001."""
    for layer, out, fan_in in _vgg():
        yield from conv(CYCADA_MODULES["trunk", layer], out, fan_in, 3)
    yield from conv("vgg_head.0", FC_CHANNELS, 512, 7)
    yield from conv("vgg_head.3", FC_CHANNELS, FC_CHANNELS, 1)
    yield from _scores("", num_classes, score_fr="vgg_head.6", scales=(10.0, 1000.0))


def _vgg() -> Iterator[tuple[str, int, int]]:
    fan_in = 3
    for layer, out in zip(CONVOLUTIONS, (channels for block in VGG_BLOCKS for channels in block), strict=True):
        yield layer, out, fan_in
        fan_in = out


def _scores(prefix: str, num_classes: int, *, score_fr: str, scales: tuple[float, float]) -> Spec:
    for name, fan_in, scale in (
        (score_fr, FC_CHANNELS, 0.3),
        ("score_pool4", 512, scales[0]),
        ("score_pool3", 256, scales[1]),
    ):
        yield from conv(f"{prefix}{name}", num_classes, fan_in, 1, gain=1.0, scale=scale)


def to_params(tensors: Mapping[str, np.ndarray], modules: Modules) -> Params:
    """Tensors in PyTorch's layout as a parameter tree; the inverse of :func:`sean_jax.weights.from_params`."""
    tree: Params = {}
    for path, module in modules.items():
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node["kernel"] = np.ascontiguousarray(tensors[f"{module}.weight"].transpose(2, 3, 1, 0))
        if f"{module}.bias" in tensors:
            node["bias"] = tensors[f"{module}.bias"]
    return tree


def normalized(images: Any) -> jax.Array:
    """What the network makes of images ``[b, h, w, 3]``, 0–255; a case knows the sum of it."""
    return apply_convention(jnp.asarray(images), INPUT_CONVENTION)


def input_shape(case: Case) -> tuple[int, int, int]:
    """Batch size, height and width of a case's images."""
    batch, height, width = (case.integer(name) for name in ("batch_size", "height", "width"))
    return batch, height, width
