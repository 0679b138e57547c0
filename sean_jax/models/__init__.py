"""Networks as Flax Linen modules; images and maps are ``[batch, height, width, channels]``."""

from sean_jax.models.deeplab import DeepLab
from sean_jax.models.fcn8s import FCN8s
from sean_jax.models.network import Network, Params, Prediction

NETWORKS: dict[str, type[Network]] = {"deeplab": DeepLab, "fcn8s": FCN8s}  # by the value of --architecture

__all__ = ["NETWORKS", "Network", "Params", "Prediction"]
