"""The Python interface: load a trained network and apply it to images.

>>> network = load("runs/quick")
>>> classes, maps = network(image)  # uint8 [H, W, 3] → class indices [H, W], {"attention": [H, W]}
>>> network.label_space.classes
"""

import os

from sean_jax.run.trained import open_network
from sean_jax.scoring.predictor import Predictor

__all__ = ["Predictor", "load"]


def load(path: str | os.PathLike[str], network: str | None = None, *, native_size: bool = False) -> Predictor:
    """Loads a trained network.

    Args:
      path: a run directory, or a weights file that ``port_weights`` wrote (or the authors' checkpoint).
      network: which of the run's networks; None for the one that counts.
      native_size: whether the network sees each image at its own size, and not at the size it was trained at.

    Returns:
      A function from an image to its :class:`~sean_jax.scoring.predictor.Segmentation`.

    Raises:
      sean_jax.errors.UserError: there is no network, or it cannot be read.
    """
    where = {"workdir": os.fspath(path)} if os.path.isdir(path) else {"weights_file": os.fspath(path)}
    trained = open_network(network=network, **where)
    return Predictor(trained.experiment, trained.params, native_size=native_size)
