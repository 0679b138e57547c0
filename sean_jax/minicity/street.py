"""Samples the layout of a street, in metres, and builds its ground.

The layout does not depend on the size of the picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .frontage import along
from .mesh import Label, Material, Mesh, strip

M = Material
Span = tuple[float, float]

PAVEMENT = 0.12  # height of a kerb, metres
NEAR, FAR = -14.0, 420.0  # extent of the ground, from behind the camera to a distance that looks like the horizon


@dataclass(frozen=True)
class Side:
    """One side of the street, as distances from x = 0. An empty strip has equal ends.

    Attributes:
        sign: -1 left, +1 right.
        lanes: centres of the lanes, without the camera's own lane at 0.
        parking: share of parking spaces along the kerb that are occupied; 0 if there are none.
        kerb: edge of the road.
        rails, verge, walk, yard: strips of ballast, grass, paving and grass, from the kerb outwards.
        front: distance of houses, walls and fences.
        urban: share of houses among them.
    """

    sign: int
    lanes: tuple[float, ...]
    parking: float
    kerb: float
    rails: Span
    verge: Span
    walk: Span
    yard: Span
    front: float
    urban: float


@dataclass(frozen=True)
class Street:
    """A street.

    Attributes:
        lane: width of a lane.
        left, right: the two sides.
        crossing: near and far edge of the crossing street along z, or None.
        end: z at which the street ends.
    """

    lane: float
    left: Side
    right: Side
    crossing: Span | None
    end: float

    def spans(self, near: float = NEAR, far: float | None = None) -> Iterator[Span]:
        """Yields the ranges of z outside the crossing."""
        far = self.end if far is None else far
        if self.crossing is None:
            yield near, far
        else:
            yield near, self.crossing[0]
            yield self.crossing[1], far


def _side(rng: np.random.Generator, sign: int, lane: float, tram: bool) -> Side:
    lanes = int(rng.random() < 0.3) + (1 if sign < 0 else 0)
    parking = rng.uniform(0.35, 0.9) if rng.random() < 0.45 else 0.0
    kerb = lane * (0.5 + lanes) + (2.3 if parking else rng.uniform(0.2, 0.7))
    edge = kerb
    spans = []
    for width in (
        rng.uniform(3.6, 4.4) if tram else 0.0,
        rng.uniform(1.2, 3.2) if rng.random() < 0.5 else 0.0,
        rng.uniform(2.6, 5.5),
        rng.uniform(2.0, 6.0) if rng.random() < 0.3 else 0.0,
    ):
        spans.append((edge, edge + width))
        edge += width
    centres = tuple(lane * (i + 1) for i in range(lanes))
    rails, verge, walk, yard = spans
    urban = rng.choice([0.2, 0.6, 0.92])
    return Side(sign, centres, parking, kerb, rails, verge, walk, yard, edge, urban)


def sample(rng: np.random.Generator) -> Street:
    """Samples a street."""
    lane = rng.uniform(3.0, 3.6)
    tram_side = rng.choice([-1, 0, 1], p=[0.14, 0.74, 0.12])
    crossing = None
    if rng.random() < 0.5:
        start = rng.uniform(14, 45)
        crossing = (start, start + rng.uniform(8, 13))
    left, right = (_side(rng, sign, lane, tram_side == sign) for sign in (-1, 1))
    return Street(lane, left, right, crossing, end=rng.uniform(80, 140))


def _stripe(x: float, width: float, z: Span) -> list[tuple[float, float, float]]:
    return strip((x - width / 2, x + width / 2), z)


def _dashes(mesh: Mesh, x: float, z: Span, period: float, share: float, hue: float) -> None:
    """Adds a dashed line along the street."""
    starts = np.arange(max(z[0], 0.0), z[1] - period * share, period)
    if len(starts):
        quads = [_stripe(x, 0.14, (start, start + period * share)) for start in starts]
        mesh.add(np.array(quads), Label.ROAD, M.MARKING, hue)


def _strips(mesh: Mesh, side: Side, z: Span) -> None:
    """Adds the raised strips of one side and the kerb, over a range of z."""
    for span, label, material in (
        (side.yard, Label.TERRAIN, M.GRASS),
        (side.walk, Label.SIDEWALK, M.PAVING),
        (side.verge, Label.TERRAIN, M.GRASS),
        (side.rails, Label.RAIL_TRACK, M.BALLAST),
    ):
        if span[1] > span[0]:
            mesh.add(strip((side.sign * span[0], side.sign * span[1]), z, PAVEMENT), label, material)
    if side.rails[1] > side.rails[0]:
        middle = side.sign * sum(side.rails) / 2
        for offset in (-0.75, 0.75):
            rail = strip((middle + offset - 0.07, middle + offset + 0.07), z, PAVEMENT + 0.01)
            mesh.add(rail, Label.RAIL_TRACK, M.STEEL)
    for edge in {side.walk[0], side.walk[1] if side.front > side.walk[1] else side.walk[0]}:
        stone = strip((side.sign * edge, side.sign * (edge + 0.18)), z, PAVEMENT + 0.005)
        mesh.add(stone, Label.SIDEWALK, M.KERB)
    mesh.add(along(side.sign, side.kerb, z, (0.0, PAVEMENT)), Label.SIDEWALK, M.KERB, 0.2)


def _markings(mesh: Mesh, street: Street, z: Span, yellow: float, solid: bool) -> None:
    """Adds lines between the lanes and along the kerbs; the middle line separates the directions."""
    half = street.lane / 2
    if solid:
        mesh.add(_stripe(-half, 0.16, z), Label.ROAD, M.MARKING, yellow)
    else:
        _dashes(mesh, -half, z, 6.0, 0.5, yellow)
    for side in (street.left, street.right):
        # On the left the outer edge of each lane but the last, on the right the inner edge of each lane.
        edges = [c + half for c in side.lanes[:-1]] if side.sign < 0 else [c - half for c in side.lanes]
        for edge in edges:
            _dashes(mesh, side.sign * edge, z, 9.0, 0.35, 0.2)
        edge = side.kerb - (2.25 if side.parking else 0.18)
        mesh.add(_stripe(side.sign * edge, 0.12, z), Label.ROAD, M.MARKING, 0.2)


def ground(rng: np.random.Generator, street: Street) -> Mesh:
    """Builds the terrain, strips, road and markings, in painting order."""
    mesh = Mesh()
    yellow, solid, zebra = (0.8 if rng.random() < 0.4 else 0.2), rng.random() < 0.5, rng.random() < 0.7
    mesh.add(strip((-300, 300), (0.3, FAR)), Label.TERRAIN, M.GRASS)
    left, right = street.left, street.right
    mesh.add(strip((-left.kerb, right.kerb), (0.3, FAR)), Label.ROAD, M.ASPHALT)
    for z in street.spans(0.3, FAR):
        for side in (left, right):
            _strips(mesh, side, z)
    if street.crossing:
        mesh.add(strip((-150, 150), street.crossing), Label.ROAD, M.ASPHALT)
        if zebra:
            _zebras(mesh, street, street.crossing)
    for near, far in street.spans(0.3, street.end):
        stop = 4.5 if zebra and street.crossing and far == street.crossing[0] else 0.0
        _markings(mesh, street, (near, far - stop), yellow, solid)
    return mesh


def _zebras(mesh: Mesh, street: Street, crossing: Span) -> None:
    """Adds pedestrian crossings before and after the crossing street, and the stop line."""
    centres = np.arange(-street.left.kerb + 0.6, street.right.kerb - 0.4, 1.0)
    for z in ((crossing[0] - 3.6, crossing[0] - 0.6), (crossing[1] + 0.6, crossing[1] + 3.6)):
        mesh.add(np.array([_stripe(x, 0.5, z) for x in centres]), Label.ROAD, M.MARKING, 0.2)
    stop = strip((-street.lane / 2, street.right.kerb - 0.3), (crossing[0] - 4.8, crossing[0] - 4.4))
    mesh.add(stop, Label.ROAD, M.MARKING, 0.2)
