"""Models of vehicles: cars, trucks, buses, trams. Each faces +z at its own origin on the road."""

import numpy as np

from .mesh import Label, Material, Mesh, box, disc, on_end, on_sides, prism

M = Material


def _wheels(mesh: Mesh, axles: list[float], radius: float, width: float, label: Label) -> None:
    """Adds tyres and rims on both flanks; call it after the body is painted."""
    for z in axles:
        on_sides(mesh, disc(radius, (z, radius)), width, label, M.RUBBER)
        on_sides(mesh, disc(radius * 0.55, (z, radius), 8), width + 0.02, label, M.CHROME)


def _underbody(mesh: Mesh, length: float, width: float, clearance: float, radius: float, label: Label) -> None:
    """Adds the parts below the body: a dark floor, and the treads of the wheels for the rear and front views."""
    half, side = length / 2 - 0.4, width / 2
    box(mesh, (-half, half), (clearance * 0.45, clearance), width * 0.8, label, M.RUBBER, 0.5)
    for x in ((-side, -side + 0.24), (side - 0.24, side)):
        on_end(mesh, -half, x, (0.0, radius * 1.7), label, M.RUBBER)
        on_end(mesh, half, x, (0.0, radius * 1.7), label, M.RUBBER, front=True)


def _lamps(mesh: Mesh, length: float, width: float, y: tuple[float, float], label: Label) -> None:
    """Adds head lights, tail lights and number plates."""
    half, side = length / 2 + 0.02, width / 2
    for a, b in ((-side * 0.95, -side * 0.55), (side * 0.55, side * 0.95)):
        on_end(mesh, -half, (a, b), y, label, M.TAIL_LIGHT)
        on_end(mesh, half, (a, b), y, label, M.HEAD_LIGHT, front=True)
    on_end(mesh, -half, (-0.26, 0.26), (y[0] - 0.14, y[0]), label, M.HEAD_LIGHT)
    on_end(mesh, half, (-0.45, 0.45), (y[0] - 0.1, y[0] + 0.08), label, M.RUBBER, front=True)


def car(rng: np.random.Generator) -> tuple[Mesh, tuple[float, float, float]]:
    """Builds a saloon, hatchback or van; returns it with its (length, width, height) in metres."""
    mesh, label, hue = Mesh(), Label.CAR, rng.random()
    kind = int(np.searchsorted((0.4, 0.8), rng.random()))
    length, width = (4.6, 4.0, 4.8)[kind] + rng.uniform(-0.2, 0.2), rng.uniform(1.72, 1.92)
    height, waist, half = (1.45, 1.52, 1.95)[kind] + rng.uniform(-0.05, 0.1), (0.88, 0.92, 1.05)[kind], length / 2
    boot = (0.7, 0.08, 0.03)[kind]
    rear, front = -half + boot, half - (1.25, 1.1, 0.7)[kind]
    slope = (0.5, 0.25, 0.08)[kind]
    _underbody(mesh, length, width, 0.32, 0.33, label)
    body = [
        (-half, 0.3),
        (-half, waist - 0.08),
        (-half + 0.1, waist),
        (front + 0.15, waist),
        (half - 0.05, waist - 0.2),
    ]
    prism(mesh, [*body, (half, 0.3)], width, label, M.PAINT, hue)
    cabin = [(rear, waist), (rear + slope, height), (front - 0.75, height), (front, waist)]
    prism(mesh, cabin, width * 0.86, label, M.PAINT, hue)
    _car_windows(mesh, (rear, rear + slope, front - 0.75, front), (waist, height), width * 0.86)
    _lamps(mesh, length, width, (waist - 0.3, waist - 0.12), label)
    _wheels(mesh, [-half * 0.6, half * 0.62], 0.33, width, label)
    return mesh, (length, width, height)


def _car_windows(mesh: Mesh, z: tuple[float, float, float, float], y: tuple[float, float], width: float) -> None:
    """Adds windows on the four sides of a cabin; `z`: corners (rear bottom, rear top, front top, front bottom)."""
    low, high = y[0] + 0.03, y[1] - 0.08
    middle = (z[1] + z[2]) / 2
    on_sides(
        mesh,
        [(z[0] + 0.15, low), (z[1] + 0.06, high), (middle - 0.05, high), (middle - 0.05, low)],
        width,
        Label.CAR,
        M.GLASS,
    )
    on_sides(
        mesh,
        [(middle + 0.05, low), (middle + 0.05, high), (z[2] - 0.02, high), (z[3] - 0.2, low)],
        width,
        Label.CAR,
        M.GLASS,
    )
    half = width / 2 - 0.08
    back, fore = z[0] - 0.02, z[3] + 0.02
    mesh.add(
        [(half, low, back), (-half, low, back), (-half + 0.08, high, z[1] - 0.02), (half - 0.08, high, z[1] - 0.02)],
        Label.CAR, M.GLASS, closed=True,
    )  # fmt: skip
    mesh.add(
        [(half - 0.08, high, z[2] + 0.02), (-half + 0.08, high, z[2] + 0.02), (-half, low, fore), (half, low, fore)],
        Label.CAR, M.GLASS, closed=True,
    )  # fmt: skip


def truck(rng: np.random.Generator, towards: bool) -> tuple[Mesh, tuple[float, float, float]]:
    """Builds a truck and returns it with its size; the cab is painted last if it drives `towards` the camera."""
    label, length, width = Label.TRUCK, rng.uniform(7.0, 10.5), 2.45
    height, half = rng.uniform(3.1, 3.9), length / 2
    cab, cargo = Mesh(), Mesh()
    hue = rng.random()
    _underbody(cab, length, width, 0.9, 0.48, label)
    nose = half - 1.9
    prism(cab, [(nose, 0.6), (nose, 2.7), (half - 0.35, 2.7), (half, 1.5), (half, 0.6)], width, label, M.PAINT, hue)
    on_sides(cab, [(nose + 0.5, 1.6), (nose + 0.5, 2.4), (half - 0.45, 2.4), (half - 0.2, 1.6)], width, label, M.GLASS)
    glass = [(1.1, 2.5, half - 0.26), (-1.1, 2.5, half - 0.26), (-1.1, 1.6, half), (1.1, 1.6, half)]
    cab.add(glass, label, M.GLASS, closed=True)
    box(cargo, (-half, nose - 0.15), (0.95, height), width, label, M.CARGO, rng.random())
    stripe = rng.uniform(1.3, height - 0.6)
    on_sides(
        cargo,
        [(-half + 0.3, stripe), (-half + 0.3, stripe + 0.5), (nose - 0.5, stripe + 0.5), (nose - 0.5, stripe)],
        width, label, M.PAINT, hue,
    )  # fmt: skip
    on_end(cargo, -half - 0.02, (-0.04, 0.04), (1.0, height - 0.1), label, M.RUBBER)
    _lamps(cargo, length, width, (0.7, 0.9), label)
    _wheels(cargo, [-half * 0.72, -half * 0.4, half * 0.7], 0.48, width, label)
    return (cargo.extend(cab) if towards else cab.extend(cargo)), (length, width, height)


def _coach(
    length: float, width: float, height: float, label: Label, material: Material, hue: float, pitch: float
) -> Mesh:
    """Builds the common part of buses and trams: a long box with a band of windows, doors and lamps."""
    mesh, half = Mesh(), length / 2
    _underbody(mesh, length, width, 0.4, 0.48, label)
    box(mesh, (-half, half), (0.35, height), width, label, material, hue)
    low, high = 1.25, height - 0.6
    for z in np.arange(-half + 0.35, half - pitch + 0.1, pitch):
        on_sides(mesh, [(z, low), (z, high), (z + pitch * 0.86, high), (z + pitch * 0.86, low)], width, label, M.GLASS)
    for z in (-half * 0.5, half * 0.55):
        on_sides(mesh, [(z, 0.45), (z, high), (z + 1.1, high), (z + 1.1, 0.45)], width + 0.02, label, M.DOOR)
    side = width / 2 - 0.15
    on_end(mesh, -half - 0.02, (-side, side), (low + 0.1, high), label, M.GLASS)
    on_end(mesh, half + 0.02, (-side, side), (low - 0.15, high), label, M.GLASS, front=True)
    for z, front in ((-half - 0.02, False), (half + 0.02, True)):
        on_end(mesh, z, (-side * 0.8, side * 0.8), (height - 0.45, height - 0.15), label, M.LAMP, 0.3, front=front)
    _lamps(mesh, length, width, (0.65, 0.9), label)
    return mesh


def bus(rng: np.random.Generator) -> tuple[Mesh, tuple[float, float, float]]:
    """Builds a city bus; returns it with its (length, width, height) in metres."""
    length, width, height = rng.uniform(9.5, 12.5), 2.5, rng.uniform(2.9, 3.3)
    mesh = _coach(length, width, height, Label.BUS, M.COACH, rng.random(), 1.5)
    _wheels(mesh, [-length * 0.28, length * 0.3], 0.48, width, Label.BUS)
    return mesh, (length, width, height)


def tram(rng: np.random.Generator) -> tuple[Mesh, tuple[float, float, float]]:
    """Builds a tram (class train) with a stripe and a pantograph; returns it with its size."""
    length, width, height = rng.uniform(18.0, 28.0), 2.6, rng.uniform(3.4, 3.8)
    mesh = _coach(length, width, height, Label.TRAIN, M.TRAM, rng.random(), 2.0)
    half = length / 2
    on_sides(mesh, [(-half, 0.75), (-half, 1.05), (half, 1.05), (half, 0.75)], width, Label.TRAIN, M.HEAD_LIGHT)
    arm = [(-0.5, height, 0.0), (0.5, height + 1.1, 0.6), (0.5, height + 1.18, 0.6), (-0.4, height, 0.0)]
    mesh.add(arm, Label.TRAIN, M.RUBBER)
    return mesh, (length, width, height)
