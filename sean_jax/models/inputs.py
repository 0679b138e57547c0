"""Input normalisation. The convention belongs to the weights, not to the data set."""

import jax
import jax.numpy as jnp

# Mean intensity by channel, RGB, 0–255, of Caffe's VGG-16 (the authors' IMG_MEAN in reverse order).
CAFFE_MEAN_RGB = (122.67891434, 116.66876762, 104.00698793)
# torchvision's ImageNet statistics, RGB, for intensities in [0, 1].
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)

CONVENTIONS = ("bgr_mean", "rgb_normalized")

# Root mean square of a normalised street image; it scales the initial values of heads trained from scratch.
INPUT_RMS = {"bgr_mean": 65.0, "rgb_normalized": 1.1}


def apply_convention(images: jax.Array, convention: str) -> jax.Array:
    """Normalises RGB images for the network.

    Args:
      images: ``[..., 3]``, RGB, float32 on the 0–255 scale (values may lie outside after noise was added).
      convention: ``bgr_mean`` returns BGR minus Caffe's mean on the 0–255 scale; ``rgb_normalized`` returns RGB in
        [0, 1] minus the mean, divided by the standard deviation of torchvision's weights.

    Raises:
      ValueError: the convention is unknown.
    """

    def by_channel(values: tuple[float, ...]) -> jax.Array:
        return jnp.array(values, jnp.float32).reshape((1,) * (images.ndim - 1) + (3,))

    if convention == "bgr_mean":
        return (images - by_channel(CAFFE_MEAN_RGB))[..., ::-1]
    if convention == "rgb_normalized":
        return (images / 255 - by_channel(TORCHVISION_MEAN)) / by_channel(TORCHVISION_STD)
    raise ValueError(f"unknown input convention {convention!r}; expected one of {', '.join(CONVENTIONS)}")
