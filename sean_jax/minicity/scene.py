"""A scene: a camera above a street, and the objects of the street in painting order.

This order needs no depth buffer. Planes across the street at the crossing divide the scene into zones, painted from
far to near. Planes along the street divide a zone into strips, painted from the outside in, because an object in an
outer strip cannot hide one nearer to the camera's lane. Within a strip, objects are painted from far to near.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from . import frontage, furniture, people, street, vehicles
from .mesh import Label, Material, Mesh, Polygons, upright
from .street import PAVEMENT, Side, Span, Street

# Moving traffic: cumulative shares of car, truck, bus, motorcyclist, cyclist.
ROAD_USERS = (0.85, 0.89, 0.92, 0.97, 1.0)
SIGHT = 85.0  # metres; beyond, only houses are placed, since a car would be three pixels wide


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above x = 0, z = 0 that looks along the street.

    Attributes:
        focal: focal length divided by sqrt(height * width / 2), so that the field of view suits every aspect ratio.
        centre, horizon: the vanishing point, as shares of the picture's width and height.
        above: height above the road, metres.
    """

    focal: float
    centre: float
    horizon: float
    above: float


@dataclass(frozen=True)
class Scene:
    """A scene to draw.

    Attributes:
        camera: the camera.
        polygons: all polygons in painting order.
        casters: float32 [n, 6], boxes that cast shadows: x, z, half width, half length, heading, height.
    """

    camera: Camera
    polygons: Polygons
    casters: npt.NDArray[np.float32]


@dataclass
class Stage:
    """Collects meshes with their position in the painting order, and the boxes that cast shadows."""

    crossing: Span | None
    things: list[tuple[tuple[float, float, float], Mesh]] = field(default_factory=list)
    casters: list[tuple[float, ...]] = field(default_factory=list)

    def put(self, mesh: Mesh, strip: float, z: float) -> None:
        """Adds an object at `z` in the strip that begins at the distance `strip` from the camera's lane."""
        zone = 0.0
        if self.crossing:
            # The zebra before the crossing belongs to its zone, because people on it walk from strip to strip.
            zone = 1.0 if z < self.crossing[0] - 3.8 else -1.0 if z > self.crossing[1] else 0.0
            strip = 0.0 if zone == 0.0 else strip
        self.things.append(((zone, -strip, -z), mesh))

    def shade(self, x: float, z: float, width: float, length: float, height: float, heading: float = 0.0) -> None:
        """Adds a box on the ground that casts a shadow."""
        self.casters.append((x, z, width / 2, length / 2, heading, height))

    def clear(self, z: Span) -> bool:
        """Returns whether the range of z is clear of the crossing."""
        return self.crossing is None or z[1] < self.crossing[0] - 4 or z[0] > self.crossing[1] + 4


def sample(rng: np.random.Generator) -> Scene:
    """Samples a scene."""
    plan = street.sample(rng)
    stage = Stage(plan.crossing)
    camera = Camera(rng.uniform(0.92, 1.3), rng.uniform(0.34, 0.66), rng.uniform(0.4, 0.54), rng.uniform(1.3, 2.1))
    mesh = _backdrop(rng, plan).extend(street.ground(rng, plan))
    for side in (plan.left, plan.right):
        _frontage(stage, rng, plan, side)
        _pavement(stage, rng, plan, side)
        _parked(stage, rng, plan, side)
        _tram(stage, rng, side)
    _traffic(stage, rng, plan)
    _crossing(stage, rng, plan)
    for _, thing in sorted(stage.things, key=lambda pair: pair[0]):
        mesh.extend(thing)
    if rng.random() < 0.35:
        mesh.extend(_bonnet(rng, camera))
    return Scene(camera, mesh.polygons(), np.array(stage.casters, np.float32))


def _backdrop(rng: np.random.Generator, plan: Street) -> Mesh:
    """Returns the skyline: distant woods and houses that close the street."""
    mesh = Mesh()
    x = np.arange(-320, 321, 20.0)
    for label, material, z, low, high in (
        (Label.VEGETATION, Material.LEAVES, 400.0, 4, 26),
        (Label.BUILDING, Material.FACADE, 330.0, 5, 34),
        (Label.VEGETATION, Material.LEAVES, 280.0, 4, 15),
    ):
        tops = rng.uniform(low, high, len(x))
        keep = rng.random(len(x)) < 0.7
        hue = rng.random()
        quads = [upright((a - 11, a + 11), (0, top), z) for a, top in zip(x[keep], tops[keep], strict=True)]
        mesh.add(np.array(quads), label, material, hue)
    return mesh


def _frontage(stage: Stage, rng: np.random.Generator, plan: Street, side: Side) -> None:
    """Adds houses, walls, fences and hedges, segment by segment from behind the camera to the end of the street."""
    storeys = int(rng.integers(1, 6))
    for near, far in plan.spans():
        start = near
        while start < far - 4:
            stop = min(far, start + rng.uniform(9, 24))
            # The camera sees nothing nearer than z = 0.3, so segments can be cut there.
            _segment(stage, rng, side, (max(start, 0.3), max(stop, 0.31)), max(0, storeys + int(rng.integers(-1, 2))))
            start = stop + (rng.uniform(1.5, 5) if rng.random() < 0.2 else 0.0)


def _segment(stage: Stage, rng: np.random.Generator, side: Side, z: Span, storeys: int) -> None:
    """Adds one segment of the frontage with the objects behind it, as one unit of the painting order."""
    mesh, sign, front = Mesh(), side.sign, side.front
    if rng.random() < side.urban:
        height = frontage.building(mesh, rng, sign, front, z, storeys)
        stage.shade(sign * (front + 5), sum(z) / 2, 10, z[1] - z[0], height)
        stage.put(mesh, 1000, z[0])
        return
    if rng.random() < 0.45:
        frontage.building(mesh, rng, sign, front + rng.uniform(6, 14), z, storeys)
    for depth in np.sort(rng.uniform(z[0], z[1], rng.integers(1, 5)))[::-1]:
        x, height = sign * (front + rng.uniform(2, 5)), rng.uniform(5, 13)
        frontage.tree(mesh, rng, x, depth, height)
        stage.shade(x, depth, height * 0.4, height * 0.4, height * 0.8)
    kind = (frontage.wall, frontage.fence, frontage.hedge)[np.searchsorted((0.4, 0.8), rng.random())]
    height = kind(mesh, rng, sign, front, z)
    stage.shade(sign * (front + 0.3), sum(z) / 2, 0.6, z[1] - z[0], height)
    stage.put(mesh, 1000, z[0])


def _pavement(stage: Stage, rng: np.random.Generator, plan: Street, side: Side) -> None:
    """Adds trees and posts along the kerb, and people and parked bicycles on the pavement."""
    sign, verge = side.sign, side.verge
    if verge[1] > verge[0] and rng.random() < 0.85:
        for z in np.arange(rng.uniform(3, 12), SIGHT, rng.uniform(7, 14)):
            if stage.clear((z, z)):
                mesh, height = Mesh(), rng.uniform(4.5, 9)
                frontage.tree(mesh, rng, sign * sum(verge) / 2, z, height)
                stage.put(mesh, verge[0], z)
                stage.shade(sign * sum(verge) / 2, z, height * 0.4, height * 0.4, height * 0.8)
    kerb = side.walk[0] + 0.45
    for z in np.arange(rng.uniform(5, 25), SIGHT, rng.uniform(18, 32)):
        stage.put(furniture.lamp_post(rng, sign).placed(sign * kerb, z, y=PAVEMENT), side.walk[0], z)
        stage.shade(sign * kerb, z, 0.2, 0.2, 7)
    makers: tuple[tuple[Callable[[np.random.Generator], Mesh], float], ...] = (
        (furniture.sign, 1.6),
        (furniture.clutter, 0.7),
    )
    for make, mean in makers:
        for z in _depths(rng, rng.poisson(mean), 7, 45):
            stage.put(make(rng).placed(sign * (kerb + 0.1), z, y=PAVEMENT), side.walk[0], z)
            stage.shade(sign * kerb, z, 0.5, 0.3, 1.2)
    _walkers(stage, rng, side)
    _parked_cycles(stage, rng, side)


def _depths(rng: np.random.Generator, count: int, near: float, far: float) -> npt.NDArray[np.float64]:
    """Draws distances, denser near the camera, because distant objects are small in a picture."""
    return near + (far - near) * rng.random(count) ** 1.6


def _walkers(stage: Stage, rng: np.random.Generator, side: Side) -> None:
    for z in _depths(rng, rng.poisson(3 + 2.5 * side.urban), 5, 60):
        x = side.sign * rng.uniform(side.walk[0] + 0.8, side.walk[1] - 0.3)
        heading = rng.normal(0, 0.5) if rng.random() < 0.7 else rng.uniform(-1.6, 1.6)
        _stand(
            stage, people.person(rng).pressed(x, z, heading, PAVEMENT, rng.uniform(0.88, 1.1)), x, z, side.walk[0], 1.7
        )


def _stand(stage: Stage, mesh: Mesh, x: float, z: float, strip: float, height: float) -> None:
    """Adds a mesh the size of a person, and its shadow."""
    stage.put(mesh, strip, z)
    stage.shade(x, z, 0.5, 0.5, height)


def _parked_cycles(stage: Stage, rng: np.random.Generator, side: Side) -> None:
    """Adds bicycles and motorcycles parked on the pavement, often several in a row."""
    for make, share in ((people.bicycle, 0.3), (people.motorcycle, 0.2)):
        if rng.random() < share:
            start, heading = rng.uniform(6, 26), rng.uniform(0.35, 1.6) * rng.choice([-1, 1])
            for i in range(rng.integers(1, 4)):
                x, z = side.sign * (side.walk[0] + 1.0), start + 0.9 * i
                _stand(stage, make(rng).pressed(x, z, heading, PAVEMENT), x, z, side.walk[0], 1.0)


def _vehicle(
    stage: Stage, rng: np.random.Generator, kind: int, x: float, z: float, heading: float, strip: float
) -> float:
    """Adds a vehicle (`kind`: index in `ROAD_USERS`) whose near end is at `z`; returns its length along the street."""
    if kind >= 3:
        make = (people.motorcyclist, people.cyclist)[kind - 3]
        _stand(stage, make(rng).pressed(x, z, 0.35 * (1 if x < 0 else -1)), x, z, strip, 1.6)
        return 2.0
    towards = bool(np.cos(heading) < 0)
    mesh, (length, width, height) = (
        vehicles.car(rng) if kind == 0 else vehicles.truck(rng, towards) if kind == 1 else vehicles.bus(rng)
    )
    stage.put(mesh.placed(x, z + length / 2, heading), strip, z)
    stage.shade(x, z + length / 2, width, length, height, heading)
    return length


def _parked(stage: Stage, rng: np.random.Generator, plan: Street, side: Side) -> None:
    """Adds parked cars, and sometimes a truck, along the kerb."""
    if not side.parking:
        return
    z, x = rng.uniform(2.5, 7), side.sign * (side.kerb - 1.1)
    heading = 0.0 if side.sign > 0 else np.pi
    while z < SIGHT:
        if rng.random() < side.parking and stage.clear((z, z + 5)):
            kind = 1 if rng.random() < 0.04 and stage.clear((z, z + 11)) else 0
            z += _vehicle(stage, rng, kind, x, z, heading + rng.normal(0, 0.03), side.kerb - 2.2)
            z += rng.uniform(0.7, 1.6)
        else:
            z += rng.uniform(4, 7)


def _tram(stage: Stage, rng: np.random.Generator, side: Side) -> None:
    if side.rails[1] > side.rails[0] and rng.random() < 0.85:
        z = rng.uniform(9, 38)
        mesh, (length, width, height) = vehicles.tram(rng)
        x = side.sign * sum(side.rails) / 2
        stage.put(mesh.placed(x, z + length / 2, 0.0 if side.sign > 0 else np.pi), side.rails[0], z)
        stage.shade(x, z + length / 2, width, length, height)


def _traffic(stage: Stage, rng: np.random.Generator, plan: Street) -> None:
    """Adds the vehicles of each lane, with the gaps of city traffic; those on the left drive towards the camera."""
    lanes = [(-1, -c) for c in plan.left.lanes] + [(1, 0.0)] + [(1, c) for c in plan.right.lanes]
    for sign, centre in lanes:
        strip = max(0.0, abs(centre) - plan.lane / 2)
        z = rng.uniform(8, 24) if centre == 0.0 else rng.uniform(5, 24)
        while z < SIGHT:
            kind = int(np.searchsorted(ROAD_USERS, rng.random()))
            x = centre + rng.uniform(-0.25, 0.25) + (0.9 * np.sign(sign) if kind == 4 else 0.0)
            length = _vehicle(stage, rng, kind, x, z, (0.0 if sign > 0 else np.pi) + rng.normal(0, 0.02), strip)
            z += length + rng.uniform(4, 34)
    for side in (plan.left, plan.right):  # cyclists keep to the kerb
        if rng.random() < 0.22:
            z = rng.uniform(7, 24)
            x = side.sign * (side.kerb - (2.6 if side.parking else 0.7))
            _stand(stage, people.cyclist(rng).pressed(x, z, rng.uniform(-0.7, 0.7)), x, z, side.kerb - 2.5, 1.6)


def _crossing(stage: Stage, rng: np.random.Generator, plan: Street) -> None:
    """Adds traffic lights at the crossing, vehicles in the side street, and people on the zebra."""
    if plan.crossing is None:
        return
    near, far = plan.crossing
    phase = int(rng.choice(3, p=[0.45, 0.1, 0.45]))
    if rng.random() < 0.85:
        for side in (plan.left, plan.right):
            for z in (near - 4.2, far + 0.5):
                x = side.sign * (side.walk[0] + 0.4)
                stage.put(furniture.traffic_light(rng, side.sign, phase).placed(x, z, y=PAVEMENT), side.walk[0], z)
                stage.shade(x, z, 0.3, 0.3, 3.4)
    for lane, heading in ((0.3, -np.pi / 2), (0.7, np.pi / 2)):
        if rng.random() < 0.45:
            kind = int(rng.choice(3, p=[0.7, 0.15, 0.15]))
            x, z = rng.uniform(-10, 10), near + lane * (far - near)
            make = (vehicles.car, lambda r: vehicles.truck(r, True), vehicles.bus)[kind]
            mesh, (length, width, height) = make(rng)
            stage.put(mesh.placed(x, z, heading), 0, z)
            stage.shade(x, z, width, length, height, heading)
    for _ in range(rng.poisson(1.5)):
        x, z = rng.uniform(-plan.left.kerb, plan.right.kerb), rng.uniform(near - 3.4, near - 0.8)
        mesh = people.person(rng) if rng.random() < 0.8 else people.cyclist(rng)
        _stand(stage, mesh.pressed(x, z, rng.uniform(0.9, 1.6) * rng.choice([-1, 1])), x, z, 0, 1.7)


def _bonnet(rng: np.random.Generator, camera: Camera) -> Mesh:
    """Returns the bonnet of the camera's own car (ego vehicle, an ignored class), one metre in front of the lens."""
    mesh = Mesh()
    # Distance of the picture's lower edge below the optical axis at one metre, for a picture twice as wide as high.
    bottom = (1 - camera.horizon) / camera.focal
    rise, half = bottom * rng.uniform(0.12, 0.26), rng.uniform(0.6, 0.9)
    x = np.linspace(-half, half, 9)
    top = camera.above - bottom + rise * (1 - (x / half) ** 2 * 0.55)
    outline = [(half, -2.0, 1.0), (-half, -2.0, 1.0), *np.stack([x, top, np.ones(9)], -1).tolist()]
    mesh.add(outline, Label.EGO, Material.BONNET, rng.random())
    return mesh
