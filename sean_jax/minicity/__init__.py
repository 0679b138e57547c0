"""Minicity: synthetic street scenes with exact labels, in two looks of one world.

>>> image, label = draw("minicity_camera", seed=1, height=128, width=256)

`minicity_game` is the labelled source; `minicity_camera` is the target, whose labels are for scoring only. Both are
synthetic. A scene is a list of polygons in metres (`mesh`, `scene` and the models that it places). `raster` finds the
polygon that covers each pixel, and a look (`looks`, `palettes`) turns the result into a picture. `picture` combines
these steps and `write` draws whole data sets to disk.
"""

from .picture import LOOKS, draw
from .write import DEFAULT_COUNTS, DRAWING, generate

__all__ = ["DEFAULT_COUNTS", "DRAWING", "LOOKS", "draw", "generate"]
