"""Models of street furniture: lamp posts, traffic lights, signs, bins.

The foot of each model is at its origin, and the model faces the camera.
"""

import numpy as np

from .mesh import Label, Material, Mesh, disc, upright

M = Material


def _pole(mesh: Mesh, height: float, thickness: float, hue: float = 0.5) -> None:
    half = thickness / 2
    mesh.add(upright((-half, half), (0.0, height)), Label.POLE, M.POST, hue)


def lamp_post(rng: np.random.Generator, side: int) -> Mesh:
    """Builds a street lamp with an arm over the road (`side` as in `frontage`); all of it has the class pole."""
    mesh, height, reach = Mesh(), rng.uniform(6.0, 9.0), rng.uniform(1.0, 2.2)
    hue = rng.random()
    _pole(mesh, height, rng.uniform(0.15, 0.22), hue)
    tip = -side * reach
    arm = [(0, height - 0.1, 0), (0, height + 0.08, 0), (tip, height + 0.45, 0), (tip, height + 0.3, 0)]
    mesh.add(arm, Label.POLE, M.POST, hue)
    head = [(tip, height + 0.28, 0), (tip, height + 0.5, 0), (tip * 1.5, height + 0.5, 0), (tip * 1.5, height + 0.3, 0)]
    mesh.add(head, Label.POLE, M.POST, (hue + 0.3) % 1)
    return mesh


def _signal(mesh: Mesh, x: float, y: float, phase: int) -> None:
    """Adds a housing of about 0.4 m by 1 m with three lamps, one of them lit: `phase` is 0 red, 1 amber, 2 green."""
    mesh.add(upright((x - 0.2, x + 0.2), (y, y + 1.05)), Label.TRAFFIC_LIGHT, M.LIGHT_BOX)
    for index in range(3):
        lens = [(a + x, b, 0.0) for a, b in disc(0.135, (0.0, y + 0.85 - 0.32 * index), 8)]
        # Lamp colours: red, amber, green, and unlit in the last quarter of the hues.
        mesh.add(lens, Label.TRAFFIC_LIGHT, M.LAMP, 0.25 * (phase if index == phase else 3) + 0.1)


def traffic_light(rng: np.random.Generator, side: int, phase: int) -> Mesh:
    """Builds a signal on a post, sometimes with a second one on an arm over the road."""
    mesh = Mesh()
    overhead = rng.random() < 0.4
    height = 5.6 if overhead else 3.4
    _pole(mesh, height, 0.16, 0.3)
    if overhead:
        tip = -side * rng.uniform(2.0, 3.5)
        mesh.add(upright((min(0, tip), max(0, tip)), (height - 0.14, height)), Label.POLE, M.POST, 0.3)
        _signal(mesh, tip, height - 0.75, phase)
    _signal(mesh, 0.0, 2.35, phase)
    return mesh


def sign(rng: np.random.Generator) -> Mesh:
    """Builds a round, triangular or square traffic sign, or a name board, with a symbol on it."""
    mesh, label = Mesh(), Label.TRAFFIC_SIGN
    kind, hue, size = rng.integers(4), rng.random(), rng.uniform(0.36, 0.5)
    y = rng.uniform(2.1, 2.6)
    _pole(mesh, y + size, 0.09, 0.7)
    if kind == 3:
        mesh.add(upright((-size * 2, size * 2), (y, y + size * 1.5)), label, M.SIGN, hue)
        mesh.add(upright((-size * 1.5, size * 1.5), (y + size * 0.55, y + size * 0.9)), label, M.SIGN_INK, hue)
        return mesh
    corners = (12, 3, 4)[kind]
    turn = np.pi / corners if kind == 2 else np.pi / 2
    for radius, material in ((size, M.SIGN), (size * 0.6, M.SIGN_INK)):
        angles = turn + np.arange(corners) * (2 * np.pi / corners)
        plate = np.stack([radius * np.cos(angles), y + radius * np.sin(angles), np.zeros(corners)], -1)
        mesh.add(plate, label, material, hue)
    return mesh


def clutter(rng: np.random.Generator) -> Mesh:
    """Builds a bin, a bollard or a switch box, with the ignored class static."""
    mesh, hue = Mesh(), rng.random()
    width, height = ((0.5, 1.0), (0.18, 0.9), (0.9, 1.3))[rng.integers(3)]
    mesh.add(upright((-width / 2, width / 2), (0, height)), Label.STATIC, M.BIN, hue)
    mesh.add(upright((-width / 2, width / 2), (height * 0.8, height)), Label.STATIC, M.BIN, (hue + 0.4) % 1)
    return mesh
