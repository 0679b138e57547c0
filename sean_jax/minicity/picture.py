"""Draws one picture and its labels from a look, a seed and a size."""

import zlib

import numpy as np
import numpy.typing as npt

from sean_jax.errors import UserError

from . import looks, scene
from .raster import rasterise

LOOKS = {"minicity_game": looks.GAME, "minicity_camera": looks.CAMERA}
SMALLEST = 16  # pixels


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Returns a random generator that depends only on the seed and the purpose."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]))


def check(look: str, height: int, width: int) -> None:
    """Raises UserError for an unknown look or a size below 16."""
    if look not in LOOKS:
        raise UserError(f"minicity look {look!r} is unknown; choose one of {', '.join(LOOKS)}")
    if min(height, width) < SMALLEST:
        raise UserError(f"minicity pictures of {height}x{width} are too small; ask for at least {SMALLEST}x{SMALLEST}")


def draw(look: str, seed: int, height: int, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draws the scene of a seed in a look.

    The scene depends only on the seed: it is the same in both looks, and every size shows the same view.

    Args:
        look: a key of `LOOKS`.
        seed: non-negative.
        height, width: pixels, at least 16 each; any aspect ratio.

    Returns:
        RGB uint8 [height, width, 3], and Cityscapes labelIds uint8 [height, width]: the class at each pixel's centre.
        The picture averages nine samples per pixel, one of which is the centre.

    Raises:
        UserError: for an unknown look or a size below 16.
    """
    check(look, height, width)
    world = scene.sample(generator(seed, "scene"))
    buffers = rasterise(world, height, width)
    return looks.shade(world, buffers, LOOKS[look], generator(seed, look)), buffers.label
