"""Rasterises scenes: finds the polygon that covers each pixel, and its depth."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .mesh import Label
from .scene import Camera, Scene

OVERSAMPLING = 3  # odd: the middle sample of a pixel is its centre
NEAR = 0.3  # metres; corners nearer than this are moved to this distance
LEAST = (0.5, 0.12)  # smallest bounding box of a visible polygon: longer side in pixels, area in square pixels

Floats = npt.NDArray[np.floating]  # always float32, which NumPy's stubs cannot express for arithmetic


@dataclass(frozen=True)
class Lens:
    """A camera for one picture size, which maps a point to the pixel centre + focal * offset / depth."""

    focal: float
    centre: tuple[float, float]
    above: float

    @classmethod
    def of(cls, camera: Camera, height: int, width: int) -> "Lens":
        """Returns the lens for a picture size; all sizes show the same view."""
        focal = camera.focal * float(np.sqrt(height * width / 2))
        return cls(focal, (camera.centre * width, camera.horizon * height), camera.above)

    def project(self, points: Floats) -> Floats:
        """Projects world points [..., 3] (metres) to pixel coordinates [..., 2] (x, y); a pixel's centre is at .5."""
        depth = np.maximum(points[..., 2], NEAR)
        u = self.centre[0] + self.focal * points[..., 0] / depth
        v = self.centre[1] + self.focal * (self.above - points[..., 1]) / depth
        return np.stack([u, v], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Buffers:
    """A rasterised scene.

    Attributes:
        ids: int32 [3h, 3w], index + 1 of the polygon that covers each sample; 0 is the sky.
        centre: int32 [h, w], `ids` at the pixels' centres.
        label: uint8 [h, w], Cityscapes labelIds at the pixels' centres.
        inverse_depth: float32 [h, w], 1 / metres; 0 is the sky.
        normal: float32 [polygons + 1, 3], unit normals that point towards the camera; row 0 is the sky's.
    """

    ids: npt.NDArray[np.int32]
    centre: npt.NDArray[np.int32]
    label: npt.NDArray[np.uint8]
    inverse_depth: Floats
    normal: Floats


def _planes(scene: Scene) -> tuple[Floats, Floats]:
    """Returns unit normals [n, 3] and distances from the camera along them [n]; negative ones face the camera."""
    points, starts = scene.polygons.points, scene.polygons.starts
    a, b, c = points[starts], points[starts + 1], points[starts + 2]
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    eye = np.array([0, scene.camera.above, 0], np.float32)
    return normal, np.einsum("ij,ij->i", normal, a - eye)


def rasterise(scene: Scene, height: int, width: int) -> Buffers:
    """Paints the scene's polygons in order."""
    lens, polygons = Lens.of(scene.camera, height, width), scene.polygons
    normal, distance = _planes(scene)
    corners = lens.project(polygons.points)
    # In Pillow's coordinates the centres of samples are whole numbers.
    canvas = corners * OVERSAMPLING - 0.5
    low, high = np.minimum.reduceat(corners, polygons.starts), np.maximum.reduceat(corners, polygons.starts)
    seen = (high > 0).all(-1) & (low < (width, height)).all(-1) & ((high - low).max(-1) > LEAST[0])
    seen &= (high - low).prod(-1) > LEAST[1]
    seen &= ~polygons.closed | (distance < 0)
    stops = np.append(polygons.starts[1:], len(corners))

    image = Image.new("I", (width * OVERSAMPLING, height * OVERSAMPLING))
    draw = ImageDraw.Draw(image)
    flat = canvas.ravel().tolist()
    for index in np.flatnonzero(seen).tolist():
        draw.polygon(flat[2 * polygons.starts[index] : 2 * stops[index]], fill=index + 1)
    ids = np.asarray(image)

    middle = OVERSAMPLING // 2
    centre = np.ascontiguousarray(ids[middle::OVERSAMPLING, middle::OVERSAMPLING])
    label = np.append(np.uint8(Label.SKY), polygons.label)[centre]
    towards = np.where(distance[:, None] > 0, -normal, normal)
    inverse_depth = _inverse_depth(lens, normal, distance, centre)
    return Buffers(ids, centre, label, inverse_depth, np.concatenate([np.zeros((1, 3), np.float32), towards]))


def _inverse_depth(lens: Lens, normal: Floats, distance: Floats, centre: npt.NDArray[np.int32]) -> Floats:
    """Returns 1 / depth [h, w] of the covering planes, linear in pixel coordinates since n · (ray * depth) = d."""
    height, width = centre.shape
    safe = np.where(np.abs(distance) < 1e-6, 1e-6, distance)[:, None]
    slopes = np.concatenate([np.zeros((1, 3), np.float32), normal / safe]).astype(np.float32)
    x = (np.arange(width, dtype=np.float32) + 0.5 - lens.centre[0]) / lens.focal
    y = (lens.centre[1] - np.arange(height, dtype=np.float32) - 0.5) / lens.focal
    planes = slopes[centre]
    value = planes[..., 0] * x + planes[..., 1] * y[:, None] + planes[..., 2]
    # Pillow widens polygons by half a sample, so a pixel's centre can lie just beyond the horizon of the plane.
    return np.clip(value, 0, 1 / NEAR, dtype=np.float32)
