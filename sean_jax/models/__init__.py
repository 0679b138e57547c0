"""Networks as Flax Linen modules; images and maps are ``[batch, height, width, channels]``."""

from sean_jax.models.deeplab import DeepLab
from sean_jax.models.dilated import Dilated
from sean_jax.models.network import Network, Params, Prediction

NETWORKS: dict[str, type[Network]] = {"deeplab": DeepLab, "dilated": Dilated}  # by the value of --architecture

__all__ = ["NETWORKS", "Network", "Params", "Prediction"]
