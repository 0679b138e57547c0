"""How pixels reach the network: a convention that belongs to the weights, not to the data set."""

import jax
import jax.numpy as jnp

# Mean intensity by channel, RGB, 0–255: what Caffe's VGG-16 was trained with (the authors' IMG_MEAN, reversed).
CAFFE_MEAN_RGB = (122.67891434, 116.66876762, 104.00698793)
# torchvision's ImageNet statistics, RGB, for intensities in [0, 1].
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)

CONVENTIONS = ("bgr_mean", "rgb_normalized")

# Root mean square of a street image after the convention is applied; from-scratch heads are scaled by it.
INPUT_RMS = {"bgr_mean": 65.0, "rgb_normalized": 1.1}


def apply_convention(images: jax.Array, convention: str) -> jax.Array:
    """RGB intensities → the network's input.

    Args:
      images: ``[..., 3]``, RGB, float32 on the 0–255 scale (noise may have carried it beyond).
      convention: ``bgr_mean``: BGR minus Caffe's mean, 0–255 scale; ``rgb_normalized``: RGB in [0, 1],
        minus mean, divided by standard deviation, as torchvision's weights want it.
    """

    def by_channel(values: tuple[float, ...]) -> jax.Array:
        return jnp.array(values, jnp.float32).reshape((1,) * (images.ndim - 1) + (3,))

    if convention == "bgr_mean":
        return (images - by_channel(CAFFE_MEAN_RGB))[..., ::-1]
    if convention == "rgb_normalized":
        return (images / 255 - by_channel(TORCHVISION_MEAN)) / by_channel(TORCHVISION_STD)
    raise ValueError(f"unknown input convention {convention!r}; expected one of {', '.join(CONVENTIONS)}")
