"""Models of the objects along a street: buildings, walls, fences, hedges and trees.

Every function adds polygons in world coordinates to a mesh. `side` is -1 on the left and +1 on the right of the street,
`front` is the distance of the frontage from x = 0, and a segment extends along the street over `z` = (near, far).
"""

import numpy as np
import numpy.typing as npt

from .mesh import Label, Material, Mesh

M = Material
Span = tuple[float, float]
_ANGLES = np.arange(20) * (2 * np.pi / 20)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)


def along(side: int, x: float, z: Span, y: Span) -> list[tuple[float, float, float]]:
    """Returns an upright rectangle parallel to the street and facing it, at the distance `x` from x = 0."""
    corners = [(side * x, y[0], z[0]), (side * x, y[0], z[1]), (side * x, y[1], z[1]), (side * x, y[1], z[0])]
    return corners if side > 0 else corners[::-1]


def across(side: int, x: Span, z: float, y: Span) -> list[tuple[float, float, float]]:
    """Returns an upright rectangle that faces the camera, from x[0] (nearer the street) to x[1]."""
    a, b = sorted((side * x[0], side * x[1]))
    return [(b, y[0], z), (a, y[0], z), (a, y[1], z), (b, y[1], z)]


def _grid(first: Span, second: Span, columns: int, rows: int, fill: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Returns a regular grid of rectangles [n, 4], columns (u0, u1, v0, v1), each filling a share of its cell."""
    width, height = (first[1] - first[0]) / columns, (second[1] - second[0]) / rows
    u = np.tile(first[0] + width * (np.arange(columns) + 0.5), rows)
    v = np.repeat(second[0] + height * (np.arange(rows) + 0.5), columns)
    du, dv = width * fill[0] / 2, height * fill[1] / 2
    cells = np.empty((columns * rows, 4))
    cells[:, 0], cells[:, 1], cells[:, 2], cells[:, 3] = u - du, u + du, v - dv, v + dv
    return cells


def _facade_quads(cells: npt.NDArray[np.float64], side: int, x: float) -> npt.NDArray[np.float64]:
    """Turns cells (z0, z1, y0, y1) into polygons [n, 4, 3] on a plane parallel to the street."""
    quads = np.empty((len(cells), 4, 3))
    quads[..., 0] = side * x
    quads[..., 1] = cells[:, [2, 2, 3, 3]]
    quads[..., 2] = cells[:, [0, 1, 1, 0]]
    return quads if side > 0 else quads[:, ::-1]


def _front_quads(cells: npt.NDArray[np.float64], side: int, z: float) -> npt.NDArray[np.float64]:
    """Turns cells (u0, u1, y0, y1), u being the distance from x = 0, into polygons [n, 4, 3] that face the camera."""
    quads = np.empty((len(cells), 4, 3))
    quads[..., 0] = side * cells[:, [1, 0, 0, 1] if side > 0 else [0, 1, 1, 0]]
    quads[..., 1] = cells[:, [2, 2, 3, 3]]
    quads[..., 2] = z
    return quads


def building(mesh: Mesh, rng: np.random.Generator, side: int, front: float, z: Span, storeys: int) -> float:
    """Adds a house with windows on both visible sides; returns its height in metres."""
    label, hue, trim = Label.BUILDING, rng.random(), rng.random()
    ground, storey, depth = rng.uniform(3.2, 4.2), rng.uniform(2.9, 3.4), rng.uniform(8, 14)
    height = ground + storeys * storey
    x = (front, front + depth)
    mesh.add(across(side, x, z[0], (0, height)), label, M.FACADE, hue, closed=True)
    mesh.add(along(side, front, z, (0, height)), label, M.FACADE, hue, closed=True)
    fill = (rng.uniform(0.4, 0.7), rng.uniform(0.45, 0.65))
    glass = rng.random()
    columns = max(2, round((z[1] - z[0]) / rng.uniform(2.2, 3.4)))
    if storeys:
        cells = _grid((z[0] + 0.4, z[1] - 0.4), (ground, height - 0.3), columns, storeys, fill)
        sills = cells[:, [0, 1, 2, 2]] + (-0.12, 0.12, -0.25, 0.0)
        mesh.add(_facade_quads(sills, side, front), label, M.TRIM, trim, closed=True)
        mesh.add(_facade_quads(cells, side, front), label, M.WINDOW, glass, closed=True)
        cells = _grid((x[0] + 0.6, x[1] - 0.6), (ground, height - 0.3), max(2, int(depth / 3)), storeys, fill)
        mesh.add(_front_quads(cells, side, z[0]), label, M.WINDOW, glass, closed=True)
    _ground_floor(mesh, rng, side, front, z, ground, columns)
    _roof(mesh, rng, side, x, z, height)
    return height


def _ground_floor(
    mesh: Mesh, rng: np.random.Generator, side: int, front: float, z: Span, ground: float, columns: int
) -> None:
    """Adds shops with awnings, or windows and doors."""
    label, trim = Label.BUILDING, rng.random()
    shops = rng.random() < 0.45
    count = max(1, columns // 2) if shops else columns
    cells = _grid(
        (z[0] + 0.4, z[1] - 0.4), (0.5, ground - 0.5), count, 1, (0.8 if shops else 0.5, 0.95 if shops else 0.6)
    )
    doors = rng.random(count) < 0.3
    tall = np.where(doors, 0.1, cells[:, 2])
    cells[:, 2] = tall
    if doors.any():
        mesh.add(_facade_quads(cells[doors], side, front), label, M.DOOR, rng.random(), closed=True)
    if not doors.all():
        kind = M.SHOP if shops else M.WINDOW
        mesh.add(_facade_quads(cells[~doors], side, front), label, kind, rng.random(), closed=True)
    band = (ground - 0.35, ground - 0.05) if not shops else (ground - 0.55, ground + 0.05)
    mesh.add(along(side, front - 0.02, z, band), label, M.AWNING if shops else M.TRIM, trim, closed=True)
    if shops and rng.random() < 0.6:
        out = front - rng.uniform(0.8, 1.3)
        slope = [
            (side * out, ground - 0.9, z[0] + 0.5), (side * out, ground - 0.9, z[1] - 0.5),
            (side * front, ground - 0.3, z[1] - 0.5), (side * front, ground - 0.3, z[0] + 0.5),
        ]  # fmt: skip
        mesh.add(slope, label, M.AWNING, trim)


def _roof(mesh: Mesh, rng: np.random.Generator, side: int, x: Span, z: Span, height: float) -> None:
    """Adds a cornice and, on some houses, a gabled roof with its ridge along the street."""
    label, hue = Label.BUILDING, rng.random()
    if rng.random() < 0.45:
        ridge, middle = height + rng.uniform(2.0, 4.5), (x[0] + x[1]) / 2
        a, b = sorted((side * x[0], side * x[1]))
        mesh.add(
            [(b, height, z[0]), (a, height, z[0]), (side * middle, ridge, z[0])], label, M.FACADE, hue, closed=True
        )
        low, high = (side * x[0], height), (side * middle, ridge)
        slope = [(*low, z[0]), (*low, z[1]), (*high, z[1]), (*high, z[0])]
        mesh.add(slope if side > 0 else slope[::-1], label, M.ROOF, hue, closed=True)
    mesh.add(along(side, x[0] - 0.05, z, (height - 0.3, height + 0.15)), label, M.TRIM, hue, closed=True)
    mesh.add(across(side, (x[0] - 0.05, x[1]), z[0], (height - 0.3, height + 0.15)), label, M.TRIM, hue, closed=True)


def wall(mesh: Mesh, rng: np.random.Generator, side: int, front: float, z: Span) -> float:
    """Adds a garden or retaining wall with piers and a coping; returns its height."""
    height, hue = rng.uniform(1.6, 3.2), rng.random()
    mesh.add(across(side, (front, front + 0.4), z[0], (0, height)), Label.WALL, M.MASONRY, hue, closed=True)
    mesh.add(along(side, front, z, (0, height)), Label.WALL, M.MASONRY, hue, closed=True)
    for start in np.arange(z[0], z[1] - 0.5, 4.0):
        pier = along(side, front - 0.06, (start, start + 0.5), (0, height))
        mesh.add(pier, Label.WALL, M.MASONRY, (hue + 0.13) % 1, closed=True)
    mesh.add(along(side, front - 0.08, z, (height - 0.18, height)), Label.WALL, M.KERB, hue, closed=True)
    return height


def fence(mesh: Mesh, rng: np.random.Generator, side: int, front: float, z: Span) -> float:
    """Adds a fence, including its gaps as in Cityscapes' labels; returns its height."""
    height, hue = rng.uniform(1.1, 2.0), rng.random()
    mesh.add(along(side, front, z, (0.1, height - 0.08)), Label.FENCE, M.RAILING, hue)
    pitch = rng.choice([0.35, 0.7, 1.4])
    starts = np.arange(z[0], z[1] - 0.08, pitch)
    bars = np.stack(
        [starts, starts + min(0.12, pitch / 3), np.full_like(starts, 0.0), np.full_like(starts, height)], -1
    )
    mesh.add(_facade_quads(bars, side, front - 0.02), Label.FENCE, M.BARS, hue)
    for y in (0.25, height - 0.25):
        mesh.add(along(side, front - 0.03, z, (y, y + 0.1)), Label.FENCE, M.BARS, hue)
    return height


def _blobs(rng: np.random.Generator, boxes: npt.NDArray[np.float64], z: float) -> npt.NDArray[np.float64]:
    """Returns irregular round outlines [n, 20, 3] that face the camera; `boxes` [n, 4]: centre x, y, half size x, y."""
    points = np.full((len(boxes), 20, 3), z)
    outline = _CIRCLE * rng.uniform(0.88, 1.06, (len(boxes), 20, 1))
    points[..., :2] = boxes[:, None, :2] + boxes[:, None, 2:] * outline
    return points


def tree(mesh: Mesh, rng: np.random.Generator, x: float, z: float, height: float) -> None:
    """Adds a tree: a trunk and a crown of overlapping clumps, all with the class vegetation."""
    crown, hue = height * rng.uniform(0.26, 0.36), rng.random() * 0.7
    stem = height * 0.02 + 0.05
    middle = height - 1.1 * crown
    trunk = [(x - stem, 0, z), (x - stem * 0.6, middle, z), (x + stem * 0.6, middle, z), (x + stem, 0, z)]
    mesh.add(trunk, Label.VEGETATION, M.BARK, hue)
    boxes = np.empty((6, 4))
    boxes[0] = (x, middle, crown, crown)
    offsets = rng.uniform(-0.55, 0.55, (5, 2)) * crown
    boxes[1:, :2] = offsets[np.argsort(offsets[:, 1])] + (x, middle)
    boxes[1:, 2:] = (crown * 0.62, crown * 0.55)
    mesh.add(_blobs(rng, boxes, z), Label.VEGETATION, M.LEAVES, [hue + 0.05 * step for step in range(6)])


def hedge(mesh: Mesh, rng: np.random.Generator, side: int, front: float, z: Span) -> float:
    """Adds a row of bushes, painted from far to near; returns its height."""
    height, hue = rng.uniform(1.2, 2.6), rng.random() * 0.8
    mesh.add(along(side, front + 0.5, z, (0, height * 0.8)), Label.VEGETATION, M.LEAVES, hue)
    for start in np.arange(z[1] - 0.6, z[0], -1.7):
        size = height * rng.uniform(0.45, 0.6)
        boxes = np.array([[side * (front + 0.6), size * 0.9, 1.1, size]])
        mesh.add(_blobs(rng, boxes, start), Label.VEGETATION, M.LEAVES, hue + rng.uniform(0, 0.2))
    return height
