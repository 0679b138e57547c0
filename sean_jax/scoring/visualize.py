"""Pictures of predictions: class colours, heat maps, panels. NumPy and Pillow only."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

Palette = Sequence[tuple[int, int, int]]

# From attention 0 (blue) to 1 (red), as in the paper's figure 4.
_HEAT = np.array([[0, 0, 128], [0, 64, 255], [0, 224, 224], [128, 224, 64], [255, 176, 0], [255, 32, 0], [128, 0, 0]])
GAP = 4  # pixels between the pictures of a panel


def colorize(classes: np.ndarray, palette: Palette) -> np.ndarray:
    """Class indices ``[H, W]`` → RGB ``[H, W, 3]`` uint8; indices outside the palette (255) are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[classes]


def heat_map(attention: np.ndarray) -> np.ndarray:
    """Attention ``[H, W]`` in [0, 1] → RGB ``[H, W, 3]`` uint8, from blue to red."""
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(attention, stops, channel) for channel in _HEAT.T], -1).round().astype(np.uint8)


def overlay(image: np.ndarray, colors: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blends ``colors`` over ``image``, both RGB ``[H, W, 3]`` uint8."""
    return (image * (1 - opacity) + colors * opacity).round().astype(np.uint8)


def darken(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """``image`` with the positions where ``where`` (``[H, W]`` bool) holds darkened."""
    return np.where(where[..., None], image // 4, image).astype(np.uint8)


def panel(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """A grid of RGB uint8 pictures on white; the pictures of a row have one height."""
    strips = [_join(row, axis=1) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    strips = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return _join(strips, axis=0)


def _join(pictures: Sequence[np.ndarray], axis: int) -> np.ndarray:
    shape = list(pictures[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    return np.concatenate(parts, axis)


def palette_image(classes: np.ndarray, palette: Palette) -> Image.Image:
    """Class indices ``[H, W]`` uint8 as a palette picture: values are indices, viewers show the colours."""
    picture = Image.fromarray(classes.astype(np.uint8), "P")
    picture.putpalette(np.asarray(palette, np.uint8).tobytes())
    return picture


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most ``count`` indices below ``length``, evenly spaced from the first to the last."""
    return np.linspace(0, length - 1, min(count, length), dtype=int).tolist()
