"""Translation of single images of any size, and pictures of it."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sean_jax.data.prepared import PreparedSet
from sean_jax.methods import Method, Translators
from sean_jax.scoring import visualize

_MULTIPLE = 4  # what height and width must be multiples of; see Method.translate
_LEAST = 16
_PICTURES = 4  # pairs in a panel


class Translator:
    """Applies translators to images of any size, which it pads by reflection and crops again."""

    def __init__(self, method: Method):
        self._translate = jax.jit(lambda params, images: _to_bytes(method.translate(params, images)))

    def __call__(self, params: Any, image: np.ndarray) -> np.ndarray:
        """The translated image.

        Args:
          params: one of the networks of :class:`sean_jax.methods.Translators`.
          image: RGB uint8 ``[H, W, 3]``; so is the result. Each size is compiled once.
        """
        height, width = image.shape[:2]
        down, right = (max(_LEAST, -(-side // _MULTIPLE) * _MULTIPLE) - side for side in (height, width))
        padded = np.pad(image, ((0, down), (0, right), (0, 0)), mode="reflect")
        return np.asarray(self._translate(params, padded[None]))[0, :height, :width]

    def panel(self, networks: Translators, source: PreparedSet, target: PreparedSet) -> np.ndarray:
        """RGB picture: in each row a source image, its translation and back-translation, and the same of a target."""
        count, rows = min(_PICTURES, len(source), len(target)), []
        for places in zip(*(visualize.evenly_spaced(len(found), count) for found in (source, target)), strict=True):
            row = []
            for prepared, place, (there, back) in zip(
                (source, target), places, (networks, networks[::-1]), strict=True
            ):
                image = np.asarray(Image.open(io.BytesIO(prepared.read(place)["image"])))
                translated = self(there, image)
                row += [image, translated, self(back, translated)]
            rows.append(row)
        return visualize.panel(rows)


def _to_bytes(images: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)
