"""Polygons in metres, of which scenes consist.

World axes: x to the right, y up from the road, z along the street away from the camera, which is above the origin.
A model is built around its own origin, facing +z, and then placed. Polygons are stored in painting order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Points = Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]] | npt.NDArray[np.floating]


class Label(IntEnum):
    """The Cityscapes labelIds that minicity uses: the 19 classes of the benchmark and three ignored ones."""

    EGO = 1
    STATIC = 4
    ROAD = 7
    SIDEWALK = 8
    RAIL_TRACK = 10
    BUILDING = 11
    WALL = 12
    FENCE = 13
    POLE = 17
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    TERRAIN = 22
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    TRUCK = 27
    BUS = 28
    TRAIN = 31
    MOTORCYCLE = 32
    BICYCLE = 33


# The materials of surfaces; a look assigns colours and textures to them.
Material = IntEnum(
    "Material",
    "SKY ASPHALT PAVING KERB MARKING GRASS BALLAST STEEL "
    "FACADE TRIM ROOF WINDOW SHOP DOOR AWNING MASONRY RAILING BARS "
    "POST LIGHT_BOX LAMP SIGN SIGN_INK BIN LEAVES BARK "
    "SKIN HAIR CLOTH TROUSERS FRAME PAINT GLASS RUBBER CHROME TAIL_LIGHT HEAD_LIGHT CARGO COACH TRAM BONNET",
    start=0,
)


@dataclass(frozen=True)
class Polygons:
    """`n` polygons as arrays, in painting order (back to front).

    Attributes:
        points: float32 [vertices, 3], metres; the first three corners of a polygon span its plane.
        starts: int [n], index of each polygon's first vertex.
        label, material: uint8 [n].
        hue: float32 [n] in [0, 1), selects one of the material's colours.
        closed: bool [n], whether the polygon is a face of a solid, invisible from behind.
    """

    points: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    label: npt.NDArray[np.uint8]
    material: npt.NDArray[np.uint8]
    hue: npt.NDArray[np.float32]
    closed: npt.NDArray[np.bool_]


class Mesh:
    """A growing list of polygons."""

    def __init__(self) -> None:
        self._points: list[npt.NDArray[np.float32]] = []
        self._counts: list[int] = []
        self._attributes: list[tuple[float, ...]] = []

    def add(
        self,
        points: Points,
        label: Label,
        material: Material,
        hue: float | list[float] = 0.5,
        closed: bool = False,
    ) -> None:
        """Adds one polygon [k, 3] or several [n, k, 3], with one hue for all or a list with one each."""
        array = np.asarray(points, np.float32)
        corners = array.shape[-2]
        count = array.size // (3 * corners)
        self._points.append(array.reshape(-1, 3))
        self._counts += [corners] * count
        if isinstance(hue, list):
            self._attributes += [(label, material, own, closed) for own in hue]
        else:
            self._attributes += [(label, material, hue, closed)] * count

    def extend(self, other: "Mesh") -> "Mesh":
        """Appends the polygons of `other`, which are painted after those of this mesh; returns this mesh."""
        self._points += other._points
        self._counts += other._counts
        self._attributes += other._attributes
        return self

    def placed(self, x: float, z: float, heading: float = 0.0, y: float = 0.0) -> "Mesh":
        """Returns this mesh turned by `heading` (radians, 0 faces away from the camera) and moved to (x, y, z)."""
        points = np.concatenate(self._points)
        cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
        moved = np.empty_like(points)
        moved[:, 0] = x + points[:, 0] * cos + points[:, 2] * sin
        moved[:, 1] = y + points[:, 1]
        moved[:, 2] = z + points[:, 2] * cos - points[:, 0] * sin
        return self._with(moved)

    def pressed(self, x: float, z: float, heading: float, y: float = 0.0, scale: float = 1.0) -> "Mesh":
        """As `placed`, but flattened into the plane at z; for people and bicycles, whose depth would hardly show.

        The projections of width and depth are added (and mirrored for a negative heading), so that parts modelled for
        the front view and the side view keep their thickness at all angles in between.
        """
        points = np.concatenate(self._points) * np.float32(scale)
        cos, sin = np.float32(abs(np.cos(heading))), np.float32(abs(np.sin(heading)))
        moved = np.empty_like(points)
        moved[:, 0] = x + (points[:, 0] * cos + points[:, 2] * sin) * np.sign(heading or 1.0)
        moved[:, 1] = y + points[:, 1]
        moved[:, 2] = z
        return self._with(moved)

    def _with(self, points: npt.NDArray[np.float32]) -> "Mesh":
        mesh = Mesh()
        mesh._points, mesh._counts, mesh._attributes = [points], list(self._counts), list(self._attributes)
        return mesh

    def polygons(self) -> Polygons:
        """Returns the polygons as arrays."""
        counts = np.array(self._counts)
        label, material, hue, closed = np.array(self._attributes, np.float32).T
        return Polygons(
            points=np.concatenate(self._points),
            starts=np.cumsum(counts) - counts,
            label=label.astype(np.uint8),
            material=material.astype(np.uint8),
            hue=hue,
            closed=closed > 0,
        )


def prism(
    mesh: Mesh, profile: Sequence[tuple[float, float]], width: float, label: Label, material: Material, hue: float
) -> None:
    """Adds a solid: a `profile` of (z, y) corners, from rear bottom over the top to the front, extruded along x."""
    half = width / 2
    flanks = [[(half, y, z) for z, y in profile], [(-half, y, z) for z, y in reversed(profile)]]
    mesh.add(flanks, label, material, hue, closed=True)
    edges = zip(profile, [*profile[1:], profile[0]], strict=True)
    quads = [[(half, y0, z0), (-half, y0, z0), (-half, y1, z1), (half, y1, z1)] for (z0, y0), (z1, y1) in edges]
    mesh.add(quads, label, material, hue, closed=True)


def box(
    mesh: Mesh,
    z: tuple[float, float],
    y: tuple[float, float],
    width: float,
    label: Label,
    material: Material,
    hue: float,
) -> None:
    """Adds a cuboid centred on x = 0."""
    prism(mesh, [(z[0], y[0]), (z[0], y[1]), (z[1], y[1]), (z[1], y[0])], width, label, material, hue)


def on_sides(
    mesh: Mesh, outline: Sequence[tuple[float, float]], width: float, label: Label, material: Material, hue: float = 0.5
) -> None:
    """Paints an `outline` of (z, y) corners, ordered as a profile, on both flanks of a solid of this width."""
    half = width / 2 + 0.01
    flanks = [[(half, y, z) for z, y in outline], [(-half, y, z) for z, y in reversed(outline)]]
    mesh.add(flanks, label, material, hue, closed=True)


def on_end(
    mesh: Mesh,
    z: float,
    x: tuple[float, float],
    y: tuple[float, float],
    label: Label,
    material: Material,
    hue: float = 0.5,
    front: bool = False,
) -> None:
    """Paints a rectangle on the rear (or front) end of a solid."""
    corners = [(x[1], y[0], z), (x[0], y[0], z), (x[0], y[1], z), (x[1], y[1], z)]
    mesh.add(corners[::-1] if front else corners, label, material, hue, closed=True)


def disc(radius: float, centre: tuple[float, float], corners: int = 10) -> list[tuple[float, float]]:
    """Returns the corners of a regular polygon, in the order of a profile."""
    angles = [-2 * math.pi * step / corners for step in range(corners)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def strip(x: tuple[float, float], z: tuple[float, float], y: float = 0.0) -> list[tuple[float, float, float]]:
    """Returns a horizontal rectangle."""
    return [(x[0], y, z[0]), (x[0], y, z[1]), (x[1], y, z[1]), (x[1], y, z[0])]


def upright(x: tuple[float, float], y: tuple[float, float], z: float = 0.0) -> list[tuple[float, float, float]]:
    """Returns an upright rectangle that faces the camera."""
    return [(x[1], y[0], z), (x[0], y[0], z), (x[0], y[1], z), (x[1], y[1], z)]
