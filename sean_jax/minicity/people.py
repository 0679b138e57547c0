"""Models of people, bicycles and motorcycles. Each faces +z at its own origin and is placed with `Mesh.pressed`."""

import math

import numpy as np

from .mesh import Label, Material, Mesh, Points, disc

M = Material


def _limb(
    mesh: Mesh,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    thickness: float,
    label: Label,
    material: Material,
    hue: float = 0.5,
) -> None:
    """Adds a bar between two points (x, y, z) whose thickness is visible from all sides."""
    (ax, ay, az), (bx, by, bz), half = start, end, thickness / 2
    # The thickness extends along x and z equally, so that one of them shows at any heading; along y for a level bar.
    if abs(by - ay) < 0.5 * math.hypot(bx - ax, bz - az):
        dx, dy = 0.0, half
    else:
        dx, dy = half * 0.75, 0.0
    corners = [
        (ax - dx, ay - dy, az - dx),
        (ax + dx, ay + dy, az + dx),
        (bx + dx, by + dy, bz + dx),
        (bx - dx, by - dy, bz - dx),
    ]
    mesh.add(corners, label, material, hue)


def _head(mesh: Mesh, y: float, z: float, label: Label, helmet: bool, hue: float) -> None:
    """Adds a head, with hair or a helmet over its upper half."""
    face = [(x * 0.8, up, z + x * 0.8) for x, up in disc(0.13, (0.0, y), 8)]
    mesh.add(face, label, M.SKIN, hue)
    cap = [(x * 0.85, up, z + x * 0.85) for x, up in disc(0.14, (0.0, y + 0.02), 8) if up > y - 0.02]
    mesh.add(cap, label, M.PAINT if helmet else M.HAIR, hue)


def person(rng: np.random.Generator) -> Mesh:
    """Builds a walking pedestrian of 1.74 m."""
    mesh, label = Mesh(), Label.PERSON
    stride = rng.uniform(0.05, 0.32)
    shirt, legs, skin = rng.random(3)
    for side in (-1, 1):
        _limb(mesh, (0.09 * side, 0.9, 0.0), (0.1 * side, 0.04, stride * side), 0.16, label, M.TROUSERS, legs)
        foot = (0.1 * side, 0.04, stride * side)
        _limb(mesh, foot, (foot[0], 0.04, foot[2] + 0.2), 0.09, label, M.RUBBER)
    _limb(mesh, (-0.22, 1.38, 0.0), (-0.26, 0.85, stride), 0.11, label, M.CLOTH, shirt)
    torso = [(-0.2, 1.45, -0.12), (0.2, 1.45, 0.12), (0.17, 0.82, 0.12), (-0.17, 0.82, -0.12)]
    if rng.random() < 0.3:  # a coat or a skirt
        torso[2:] = [(0.22, 0.5, 0.15), (-0.22, 0.5, -0.15)]
    mesh.add(torso, label, M.CLOTH, shirt)
    _limb(mesh, (0.22, 1.38, 0.0), (0.26, 0.85, -stride), 0.11, label, M.CLOTH, shirt)
    _head(mesh, 1.6, 0.0, label, helmet=False, hue=skin)
    if rng.random() < 0.3:  # a bag
        mesh.add([(0.2, 1.0, -0.1), (0.36, 1.0, 0.1), (0.36, 0.7, 0.1), (0.2, 0.7, -0.1)], label, M.PAINT, legs)
    return mesh


def _wheel(mesh: Mesh, z: float, radius: float, width: float, label: Label, hub: Material) -> None:
    """Adds a wheel: a disc for the side view and a bar of `width` for the front view."""
    tyre: Points = [(0.0, y, depth) for depth, y in disc(radius, (z, radius), 12)]
    mesh.add(tyre, label, M.RUBBER)
    mesh.add([(0.0, y, depth) for depth, y in disc(radius * 0.78, (z, radius), 10)], label, hub)
    mesh.add(
        [(-width / 2, 0, z), (-width / 2, 2 * radius, z), (width / 2, 2 * radius, z), (width / 2, 0, z)],
        label,
        M.RUBBER,
    )


def bicycle(rng: np.random.Generator) -> Mesh:
    """Builds a bicycle, 1.75 m long."""
    mesh, label, hue = Mesh(), Label.BICYCLE, rng.random()
    _wheel(mesh, -0.52, 0.35, 0.07, label, M.CHROME)
    _wheel(mesh, 0.54, 0.35, 0.07, label, M.CHROME)
    bars = [
        ((0, 0.35, -0.52), (0, 0.3, -0.05)),
        ((0, 0.3, -0.05), (0, 0.95, -0.22)),
        ((0, 0.82, -0.18), (0, 0.85, 0.4)),
        ((0, 0.3, -0.05), (0, 0.8, 0.4)),
        ((0, 1.02, 0.38), (0, 0.35, 0.54)),
    ]
    for start, end in bars:
        _limb(mesh, start, end, 0.07, label, M.FRAME, hue)
    mesh.add([(-0.08, 0.93, -0.36), (0.08, 1.0, -0.36), (0.08, 1.0, -0.1), (-0.08, 0.93, -0.1)], label, M.RUBBER)
    _limb(mesh, (-0.3, 1.02, 0.36), (0.3, 1.02, 0.36), 0.06, label, M.RUBBER)
    return mesh


def motorcycle(rng: np.random.Generator) -> Mesh:
    """Builds a motorcycle, 2.1 m long."""
    mesh, label, hue = Mesh(), Label.MOTORCYCLE, rng.random()
    _wheel(mesh, -0.68, 0.32, 0.16, label, M.CHROME)
    _wheel(mesh, 0.7, 0.32, 0.14, label, M.CHROME)
    engine = [(-0.16, 0.25, -0.35), (-0.16, 0.62, -0.4), (0.16, 0.62, 0.38), (0.16, 0.25, 0.35)]
    mesh.add(engine, label, M.CHROME, 0.2)
    seat = [(-0.15, 0.62, -0.85), (-0.15, 0.86, -0.9), (0.15, 0.8, 0.0), (0.15, 0.55, 0.0)]
    mesh.add(seat, label, M.RUBBER)
    tank = [(-0.17, 0.6, -0.1), (-0.17, 0.85, -0.05), (0.17, 1.02, 0.4), (0.17, 0.7, 0.55)]
    mesh.add(tank, label, M.PAINT, hue)
    _limb(mesh, (0, 1.05, 0.42), (0, 0.32, 0.7), 0.1, label, M.CHROME)
    shield = [(-0.2, 0.85, 0.55), (-0.16, 1.2, 0.42), (0.16, 1.2, 0.48), (0.2, 0.85, 0.62)]
    mesh.add(shield, label, M.PAINT, hue)
    _limb(mesh, (-0.4, 1.06, 0.36), (0.4, 1.06, 0.36), 0.07, label, M.RUBBER)
    mesh.add([(-0.1, 0.66, -0.9), (-0.1, 0.8, -0.9), (0.1, 0.8, -0.86), (0.1, 0.66, -0.86)], label, M.TAIL_LIGHT)
    return mesh


def rider(rng: np.random.Generator, seat: float, helmet: bool) -> Mesh:
    """Builds a rider (without the vehicle) seated `seat` metres above the road, hands on the handlebar."""
    mesh, label = Mesh(), Label.RIDER
    shirt, legs, skin = rng.random(3)
    lean = rng.uniform(0.1, 0.3)
    shoulder, hip = seat + 0.52, seat + 0.02
    for side, knee in ((-1, 0.12), (1, 0.3)):
        _limb(mesh, (0.1 * side, hip, -0.2), (0.16 * side, hip - 0.35, knee), 0.17, label, M.TROUSERS, legs)
        _limb(
            mesh, (0.16 * side, hip - 0.33, knee), (0.14 * side, hip - 0.72, knee - 0.2), 0.14, label, M.TROUSERS, legs
        )
    torso = [
        (-0.22, shoulder, lean - 0.2),
        (0.22, shoulder, lean + 0.1),
        (0.18, hip - 0.06, -0.06),
        (-0.18, hip - 0.06, -0.36),
    ]
    mesh.add(torso, label, M.CLOTH, shirt)
    for side in (-1, 1):
        _limb(mesh, (0.22 * side, shoulder - 0.05, lean), (0.28 * side, 1.06, 0.36), 0.11, label, M.CLOTH, shirt)
    _head(mesh, shoulder + 0.17, lean + 0.02, label, helmet, skin)
    return mesh


def cyclist(rng: np.random.Generator) -> Mesh:
    """Builds a bicycle with its rider."""
    return bicycle(rng).extend(rider(rng, 0.98, helmet=rng.random() < 0.5))


def motorcyclist(rng: np.random.Generator) -> Mesh:
    """Builds a motorcycle with its rider."""
    return motorcycle(rng).extend(rider(rng, 0.86, helmet=True))
