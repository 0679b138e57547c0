"""The Python interface: load a trained network and apply it to images.

>>> from sean_jax import api
>>> network = api.load("runs/quick")
>>> classes, maps = network(image)  # uint8 [H, W, 3] → class indices [H, W], {"attention": [H, W]}
>>> network.label_space.classes[classes[0, 0]]
'sky'
"""

import os

from sean_jax.errors import UserError
from sean_jax.run.trained import open_network
from sean_jax.scoring.predictor import Predictor, Segmentation

__all__ = ["Predictor", "Segmentation", "UserError", "load"]


def load(
    path: str | os.PathLike[str],
    network: str | None = None,
    *,
    native_size: bool = False,
    input_convention: str | None = None,
) -> Predictor:
    """Loads a trained network.

    Args:
      path: a run directory, or a weights file: one that ``port_weights`` wrote, or the authors' checkpoint.
      network: which of the run's networks, such as "student"; None for the main one.
      native_size: whether the network sees each image at the image's own size. If not, images are resized to the
        size that the network was trained at. The result has the image's own size either way.
      input_convention: what the weights in a file need, "bgr_mean" or "rgb_normalized"; None to find out.

    Returns:
      A function from an image to its :class:`~sean_jax.scoring.predictor.Segmentation`, which keeps its compiled
      program: load once, and call it for each image.

    Raises:
      UserError: there is no network, or it cannot be read.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist; expected a run directory or a weights file")
    where = {"workdir": path} if os.path.isdir(path) else {"weights_file": path}
    trained = open_network(network=network, input_convention=input_convention, **where)
    return Predictor(trained.experiment, trained.params, native_size=native_size)
