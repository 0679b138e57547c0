"""Minicity: synthetic street scenes with exact labels, in two looks of one world.

>>> image, label = draw("minicity_camera", seed=1, height=128, width=256)

`minicity_game` is the labelled source; `minicity_camera` is the target, whose labels are for scoring only. Neither is
a photograph. A scene is a list of polygons in metres (`mesh`, `scene` and the models they place), a raster says which
polygon covers which pixel (`raster`), and a look makes that a picture (`looks`, `palettes`); `picture` joins the three
and `write` puts many on disk.
"""

from .picture import LOOKS, draw
from .write import DEFAULT_COUNTS, DRAWING, generate

__all__ = ["DEFAULT_COUNTS", "DRAWING", "LOOKS", "draw", "generate"]
