"""Two looks of one world: light, surfaces and lens, applied to a rasterised scene.

The looks share all polygons and no colours. `GAME` imitates a game engine: even colours, hard shadows, clear air.
`CAMERA` imitates a camera: worn surfaces, haze, a low or hidden sun, lens blur, noise. The numbers were chosen by eye;
they were not tuned with a network.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from .mesh import Material
from .palettes import colours
from .raster import Buffers, Floats, Lens
from .scene import Scene

Range = tuple[float, float]
TILE = 256  # side of the noise tile in texels, a power of two
CLOUD_SLOPE = 1.7  # clouds are smoother than worn ground


@dataclass(frozen=True)
class Look:
    """The parameters of a look. Each picture draws its own value from every range.

    Attributes:
        palette: column of `palettes.PALETTES`.
        sun_height: elevation of the sun, radians.
        sun_power: light that the sun adds to the ambient light, 0 (hidden) to 1.
        ambient: light in the shade; 1 gives the palette's colour.
        shadow_blur: blur radius of shadows, as a share of the picture's size (`_extent`).
        surface: strength of the textures.
        coarse: size of the textures, metres.
        fog: distance at which haze replaces 63 % of the colour, metres.
        air: colour of the haze and of the lower sky.
        zenith, cloud: colours of the upper sky and of the clouds.
        cloud_cover: (share of the sky, softness of the edges).
        tint: largest relative error of the white balance.
        exposure: gain.
        falloff: loss of light across the picture.
        vignette: loss of light in the corners.
        blur: blur radius of the lens, as a share of the picture's size.
        grain: standard deviation of sensor noise in middle grey, 0–255.
    """

    palette: int
    sun_height: Range
    sun_power: Range
    ambient: float
    shadow_blur: float
    surface: float
    coarse: float
    fog: Range
    air: tuple[int, int, int]
    zenith: tuple[int, int, int]
    cloud: tuple[int, int, int]
    cloud_cover: tuple[float, float]
    tint: float
    exposure: Range
    falloff: float
    vignette: Range
    blur: Range
    grain: Range


GAME = Look(
    palette=0, sun_height=(0.7, 1.15), sun_power=(0.34, 0.46), ambient=0.68, shadow_blur=0.0, surface=0.045, coarse=3.0,
    fog=(500, 900), air=(206, 228, 246), zenith=(64, 136, 226), cloud=(255, 255, 255), cloud_cover=(0.42, 0.35),
    tint=0.01, exposure=(0.97, 1.05), falloff=0.0, vignette=(0, 0), blur=(0, 0), grain=(0, 0),
)  # fmt: skip
CAMERA = Look(
    palette=1, sun_height=(0.16, 0.5), sun_power=(0.0, 0.4), ambient=0.76, shadow_blur=0.008, surface=0.12, coarse=0.9,
    fog=(90, 320), air=(206, 203, 194), zenith=(178, 184, 188), cloud=(226, 222, 212), cloud_cover=(0.6, 0.8),
    tint=0.06, exposure=(0.88, 1.2), falloff=0.28, vignette=(0.15, 0.4), blur=(0.003, 0.0065), grain=(4, 8),
)  # fmt: skip


@lru_cache(maxsize=2)
def noise_tile(slope: float = 1.0) -> Floats:
    """Returns a seamless tile of noise [256, 256], mean 0, standard deviation 1; its amplitude falls as f^-slope."""
    white = np.random.default_rng(2019).normal(size=(TILE, TILE))
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE))
    frequency[0, 0] = np.inf
    tile = np.fft.ifft2(np.fft.fft2(white) / frequency**slope).real
    return ((tile - tile.mean()) / tile.std()).astype(np.float32)


@dataclass(frozen=True)
class View:
    """Position and material at the centre of each pixel; every field is [h, w].

    Attributes:
        x, y, z: world coordinates, metres.
        level: whether the surface is nearly horizontal.
        sky: whether the pixel shows the sky.
        material: a `Material`.
    """

    x: Floats
    y: Floats
    z: Floats
    level: npt.NDArray[np.bool_]
    sky: npt.NDArray[np.bool_]
    material: npt.NDArray[np.uint8]


def _view(scene: Scene, buffers: Buffers) -> View:
    """Computes the position and the material of each pixel."""
    height, width = buffers.centre.shape
    lens = Lens.of(scene.camera, height, width)
    depth = 1 / np.maximum(buffers.inverse_depth, np.float32(1 / 2000))
    columns = (np.arange(width, dtype=np.float32) + 0.5 - lens.centre[0]) / lens.focal
    rows = (lens.centre[1] - np.arange(height, dtype=np.float32) - 0.5) / lens.focal
    level = (np.abs(buffers.normal[:, 1]) > 0.9)[buffers.centre]
    material = np.append(np.uint8(Material.SKY), scene.polygons.material)[buffers.centre]
    return View(columns * depth, lens.above + rows[:, None] * depth, depth, level, buffers.centre == 0, material)


def shade(scene: Scene, buffers: Buffers, look: Look, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Returns the picture [h, w, 3] of a scene. The steps work on [3, h, w], since NumPy is faster on long rows."""
    view = _view(scene, buffers)
    sun, power = _sun(look, rng)
    picture = _lit_colours(scene, buffers, look, sun, power)
    picture *= _texture(view, look, rng)
    picture *= 1 - (power / (look.ambient + power)) * _shadow(scene, view, look, sun)
    picture = _haze_and_sky(picture, view, look, rng)
    return _sensor(_lens(picture, look, sun, rng), look, rng)


def _sun(look: Look, rng: np.random.Generator) -> tuple[Floats, float]:
    """Draws the direction to the sun (a unit vector), which is never straight ahead, and its power."""
    height, turn = rng.uniform(*look.sun_height), rng.uniform(0.25, 2.6) * rng.choice([-1, 1])
    flat = np.cos(height)
    direction = np.array([flat * np.sin(turn), np.sin(height), flat * np.cos(turn)], np.float32)
    return direction, rng.uniform(*look.sun_power)


def _extent(height: int, width: int) -> float:
    """Returns a picture's size, to which blurs are proportional: its height if it is twice as wide as high."""
    return float(np.sqrt(height * width / 2))


def _channels(image: Image.Image) -> Floats:
    """Converts an image to an array [channels, h, w]."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0)).astype(np.float32)


def _pixels(picture: Floats) -> npt.NDArray[np.uint8]:
    """Converts [3, h, w] to an image's uint8 array [h, w, 3]."""
    return np.ascontiguousarray(np.moveaxis(np.clip(picture + 0.5, 0, 255).astype(np.uint8), 0, -1))


def _lit_colours(scene: Scene, buffers: Buffers, look: Look, sun: Floats, power: float) -> Floats:
    """Computes colours under ambient light and the sun by Lambert's law, averaged over the samples of each pixel."""
    polygons = scene.polygons
    base = colours(look.palette, polygons.material, polygons.hue)
    # Surfaces that face up get a little more skylight: otherwise all edges would vanish when the sun is hidden.
    lit = np.maximum(np.einsum("ij,j->i", buffers.normal[1:], sun), 0)
    light = look.ambient * (0.86 + 0.14 * buffers.normal[1:, 1]) + power * (0.25 + 0.75 * lit / max(sun[1], 0.45))
    table = np.zeros((len(base) + 1, 4), np.uint8)
    table[0, :3] = look.air  # the sky's share of edge pixels; `_haze_and_sky` paints the sky itself
    table[1:, :3] = np.clip(base * light[:, None], 0, 255)
    samples = table.view(np.uint32)[:, 0][buffers.ids]
    image = Image.fromarray(samples.view(np.uint8).reshape(*samples.shape, 4), "RGBX")
    factor = buffers.ids.shape[0] // buffers.centre.shape[0]
    return _channels(image.reduce(factor))[:3]


def _sample(tile: Floats, u: Floats, v: Floats) -> Floats:
    return tile[np.int32(v) & (TILE - 1), np.int32(u) & (TILE - 1)]


def _texture(view: View, look: Look, rng: np.random.Generator) -> Floats:
    """Returns a factor around 1 [h, w] that follows the surfaces in the world and weakens with distance."""
    tile, shift = noise_tile(), rng.uniform(0, TILE, 2).astype(np.float32)
    u = np.where(view.level, view.x, view.x + view.z)
    v = np.where(view.level, view.z, view.y)
    # The tile spans `coarse` * 16 metres, and a fifth of that for the finer texture of leaves, bark and paving.
    scale = np.float32(16 / look.coarse)
    wide = _sample(tile, u * scale + shift[0], v * scale + shift[1])
    fine = _sample(tile, u * scale * 5 + shift[1], v * scale * 5 + shift[0])
    rough = _roughness()[view.material]
    near = 1 / (1 + view.z / 45)
    return 1 + look.surface * rough * (0.6 * wide + 0.7 * fine * near)


@lru_cache(maxsize=1)
def _roughness() -> Floats:
    """Returns the strength of the texture of each material: leaves most, paint and glass least."""
    rough = np.ones(len(Material), np.float32)
    for material in (Material.LEAVES, Material.GRASS, Material.BALLAST):
        rough[material] = 1.7
    smooth = (
        Material.PAINT,
        Material.GLASS,
        Material.SIGN,
        Material.LAMP,
        Material.CARGO,
        Material.COACH,
        Material.TRAM,
    )
    for material in (*smooth, Material.BONNET, Material.SKIN):
        rough[material] = 0.35
    rough[Material.SKY] = 0.0
    return rough


def _shadow(scene: Scene, view: View, look: Look, sun: Floats) -> Floats:
    """Returns how much of each pixel of level ground is in shadow, 0 to 1 [h, w].

    Each caster is a box. Its shadow is the box sheared along the sun's direction onto the ground.
    """
    height, width = view.sky.shape
    image = Image.new("L", (width, height))
    if len(scene.casters):
        draw = ImageDraw.Draw(image)
        lens = Lens.of(scene.camera, height, width)
        quads = lens.project(_shadow_quads(scene.casters, sun)).reshape(-1, 8)
        inside = (quads[:, 0::2].max(1) > 0) & (quads[:, 0::2].min(1) < width) & (quads[:, 1::2].max(1) > 0)
        for quad in quads[inside].tolist():
            draw.polygon(quad, fill=255)
    if look.shadow_blur:
        image = image.filter(ImageFilter.GaussianBlur(look.shadow_blur * _extent(height, width)))
    return np.asarray(image).astype(np.float32) * view.level / 255


def _shadow_quads(casters: Floats, sun: Floats) -> Floats:
    """Projects the footprint, top and four sides of each caster onto the ground as quads [n * 6, 4, 3]."""
    x, z, half_width, half_length, heading, height = casters.T
    sides = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], np.float32)
    across, along = sides[:, 0] * half_width[:, None], sides[:, 1] * half_length[:, None]
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    foot = np.stack([x[:, None] + across * cos + along * sin, z[:, None] + along * cos - across * sin], -1)
    # Limits the very long shadows of a sun near the horizon to five times the caster's height.
    reach = height * min(1 / max(float(sun[1]), 0.2), 5.0)
    top = foot - reach[:, None, None] * sun[[0, 2]]
    following = [1, 2, 3, 0]
    walls = np.stack([foot, foot[:, following], top[:, following], top], axis=2)
    flat = np.concatenate([foot[:, None], top[:, None], walls], axis=1).reshape(-1, 4, 2)
    return np.stack([flat[..., 0], np.zeros_like(flat[..., 0]), flat[..., 1]], axis=-1)


def _haze_and_sky(picture: Floats, view: View, look: Look, rng: np.random.Generator) -> Floats:
    """Adds haze that thickens with distance, and the sky."""
    height, width = view.sky.shape
    air, zenith, cloud = (np.array(colour, np.float32)[:, None, None] for colour in (look.air, look.zenith, look.cloud))
    clear = np.exp(-view.z / rng.uniform(*look.fog))
    hazy = picture * clear + air * (1 - clear)
    rise = np.linspace(1.3, 0, height, dtype=np.float32)[:, None]
    sky = air + (zenith - air) * np.clip(rise, 0, 1)
    cover, softness = look.cloud_cover
    # `_clouds` stretches its window, so that clouds are wider than high.
    bank = _clouds(height, width, rng)
    thick = np.clip((bank - (0.9 - 2 * cover * rng.uniform(0.4, 1.1))) / softness, 0, 1)
    sky = sky + (cloud - sky) * thick * np.float32(0.9)
    return np.where(view.sky, sky, hazy)


def _clouds(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Returns a random window of the smooth noise, resized to [h, w]."""
    left, top = rng.integers(0, TILE - 110), rng.integers(0, TILE - 170)
    window = Image.fromarray(noise_tile(CLOUD_SLOPE)[top : top + 170, left : left + 110])
    return np.asarray(window.resize((width, height), Image.Resampling.BICUBIC))


def _lens(picture: Floats, look: Look, sun: Floats, rng: np.random.Generator) -> Floats:
    """Applies exposure, white balance, more light on the sun's side, vignetting and lens blur."""
    height, width = picture.shape[1:]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain = rng.uniform(*look.exposure) * (1 + look.falloff * rng.uniform(0.3, 1) * np.sign(sun[0]) * x / 2)
    gain = gain * (1 - rng.uniform(*look.vignette) * (x**2 + y**2) / 2)
    balance = 1 + rng.uniform(-look.tint, look.tint, 3) * (1, 0.4, 1) + np.array([0.4, 0, -0.7]) * look.tint
    picture = picture * gain * balance.astype(np.float32)[:, None, None]
    radius = rng.uniform(*look.blur) * _extent(height, width)
    if radius > 0:
        picture = _channels(Image.fromarray(_pixels(picture)).filter(ImageFilter.GaussianBlur(radius)))
    return picture


def _sensor(picture: Floats, look: Look, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Adds noise that grows with the square root of the light and is correlated between channels; converts to uint8."""
    grain = rng.uniform(*look.grain)
    if grain > 0:
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        mixed = noise * 0.5 + noise.sum(0) * 0.4
        picture = picture + grain * mixed * np.sqrt(np.maximum(picture, 4) / 128)
    return _pixels(picture)
