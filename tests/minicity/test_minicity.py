"""Tests of minicity's pictures, labels and files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sean_jax import minicity
from sean_jax.errors import UserError
from sean_jax.minicity import people, scene, write
from sean_jax.minicity.mesh import Label, Material, Mesh, upright
from sean_jax.minicity.palettes import PALETTES
from sean_jax.minicity.raster import Lens, rasterise

GAME, CAMERA = minicity.LOOKS
COLORS = {7: (128, 64, 128), 26: (0, 0, 142)}
IGNORED = {Label.EGO, Label.STATIC, Label.RAIL_TRACK}
SHARES = {  # range of each class's share of all pixels, around that of real streets
    Label.ROAD: (0.20, 0.42), Label.BUILDING: (0.12, 0.32), Label.VEGETATION: (0.06, 0.22), Label.SKY: (0.08, 0.25),
    Label.CAR: (0.04, 0.14), Label.SIDEWALK: (0.02, 0.12), Label.TERRAIN: (0.01, 0.08), Label.POLE: (0.004, 0.03),
    Label.PERSON: (0.002, 0.02), Label.TRAFFIC_LIGHT: (2e-4, 0.004), Label.TRAFFIC_SIGN: (5e-4, 0.01),
    Label.RIDER: (2e-4, 0.01), Label.TRAIN: (1e-3, 0.02),
}  # fmt: skip


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Labels [120, 64, 128] of 120 scenes."""
    return np.stack([rasterise(scene.sample(np.random.default_rng(seed)), 64, 128).label for seed in range(120)])


def _stage(*things: Mesh, above: float = 1.5) -> scene.Scene:
    """A scene that contains only these objects, seen by a level camera."""
    mesh = Mesh()
    for thing in things:
        mesh.extend(thing)
    return scene.Scene(scene.Camera(1.0, 0.5, 0.5, above), mesh.polygons(), np.zeros((0, 6), np.float32))


@pytest.mark.parametrize("look", minicity.LOOKS)
def test_the_same_seed_draws_the_same_bits(look: str) -> None:
    image, label = minicity.draw(look, 7, 64, 128)
    again, label_again = minicity.draw(look, 7, 64, 128)
    other, label_other = minicity.draw(look, 8, 64, 128)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    assert (image != other).any()
    assert (label != label_other).any()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (37, 53), (90, 21), (16, 200)])
@pytest.mark.parametrize("look", minicity.LOOKS)
def test_any_size(look: str, height: int, width: int) -> None:
    for seed in range(3):
        image, label = minicity.draw(look, seed, height, width)
        assert image.shape == (height, width, 3)
        assert label.shape == (height, width)
        assert image.dtype == label.dtype == np.uint8
        assert len(np.unique(label)) >= 3


def test_looks_show_the_same_scene() -> None:
    np.testing.assert_array_equal(minicity.draw(GAME, 3, 64, 128)[1], minicity.draw(CAMERA, 3, 64, 128)[1])


def test_all_sizes_show_the_same_view() -> None:
    # The centre of a pixel is the centre of the middle pixel of a 3 x 3 block at three times the size.
    small, large = (minicity.draw(GAME, 5, 48 * k, 96 * k)[1] for k in (1, 3))
    assert (small == large[1::3, 1::3]).mean() > 0.97


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UserError, match="minicity_game, minicity_camera"):
        minicity.draw("minicity_photo", 0, 64, 64)
    with pytest.raises(UserError, match="at least 16x16"):
        minicity.draw(GAME, 0, 64, 15)


def test_labels_are_known_and_all_classes_occur(labels: np.ndarray) -> None:
    assert set(np.unique(labels).tolist()) == set(Label)
    assert len(set(Label) - IGNORED) == 19


def test_every_class_occurs_in_many_scenes(labels: np.ndarray) -> None:
    for label in set(Label) - IGNORED:
        scenes = (labels == label).any((1, 2)).mean()
        assert scenes >= 0.08, f"{label.name} is in {scenes:.0%} of the scenes"


@pytest.mark.parametrize("label", SHARES)
def test_class_shares_are_typical_of_streets(labels: np.ndarray, label: Label) -> None:
    low, high = SHARES[label]
    assert low <= (labels == label).mean() <= high


def test_ground_is_below_and_sky_above(labels: np.ndarray) -> None:
    rows = np.arange(64)[:, None]
    mean_row = {k: (rows * (labels == k)).sum() / (labels == k).sum() for k in (Label.SKY, Label.BUILDING, Label.ROAD)}
    assert mean_row[Label.SKY] < mean_row[Label.BUILDING] < mean_row[Label.ROAD]
    assert (labels[:, 0] != Label.ROAD).all()


def test_size_is_inversely_proportional_to_distance() -> None:
    heights, feet = [], []
    for z in (8.0, 16.0, 32.0):
        person = people.person(np.random.default_rng(0)).pressed(0.0, z, 0.3)
        rows = np.flatnonzero((rasterise(_stage(person), 256, 512).label == Label.PERSON).any(1))
        heights.append(rows[-1] - rows[0] + 1)
        feet.append(rows[-1])
    assert feet[0] > feet[1] > feet[2] > 128
    np.testing.assert_allclose(np.array(heights) * (8, 16, 32), 1.74 * 256, rtol=0.1)


def test_label_is_the_class_at_the_pixels_centre() -> None:
    """A rectangle 10 m away labels exactly the pixels whose centres it covers (up to a third of a pixel)."""
    box = Mesh()
    box.add(upright((-1.0, 2.0), (1.0, 3.0), 10.0), Label.BUS, Material.COACH)
    world = _stage(box)
    label = rasterise(world, 100, 200).label
    x, y = Lens.of(world.camera, 100, 200).project(np.array([[-1.0, 3.0, 10.0], [2.0, 1.0, 10.0]], np.float32)).T
    inside = (np.arange(100)[:, None] + 0.5 > y[0]) & (np.arange(100)[:, None] + 0.5 < y[1])
    inside = inside & (np.arange(200) + 0.5 > x[0]) & (np.arange(200) + 0.5 < x[1])
    np.testing.assert_array_equal(label == Label.BUS, inside)


def test_depth_of_the_ground_is_exact() -> None:
    """The depth of the ground at a row is focal length * camera height / rows below the horizon."""
    ground = Mesh()
    ground.add([(-50, 0, 0.5), (-50, 0, 400), (50, 0, 400), (50, 0, 0.5)], Label.ROAD, Material.ASPHALT)
    buffers = rasterise(_stage(ground, above=2.0), 64, 128)
    expected = (np.arange(40, 64) + 0.5 - 32) / (64 * 2.0)
    np.testing.assert_allclose(buffers.inverse_depth[40:, 64], expected, rtol=1e-4)


def test_nearer_objects_hide_farther_ones_in_a_strip() -> None:
    stage = scene.Stage(crossing=(20.0, 30.0))
    for strip, z in ((5.0, 10.0), (0.0, 25.0), (0.0, 40.0), (2.0, 10.0), (2.0, 8.0)):
        stage.put(Mesh(), strip, z)
    order = [-key[2] for key, _ in sorted(stage.things, key=lambda pair: pair[0])]
    assert order == [40.0, 25.0, 10.0, 10.0, 8.0]


def test_every_material_has_colours_in_both_looks() -> None:
    assert set(PALETTES) == set(Material)
    assert all(len(colours) > 0 for row in PALETTES.values() for colours in row)


def test_looks_differ() -> None:
    """In the same scenes, the camera look is greyer and has more pixel noise."""
    game, camera = (np.stack([minicity.draw(k, s, 64, 128)[0] for s in range(8)]).astype(float) for k in (GAME, CAMERA))
    saturation = [np.ptp(images, axis=-1).mean() for images in (game, camera)]
    assert saturation[0] > 2 * saturation[1]
    assert np.abs(game.mean((0, 1, 2)) - camera.mean((0, 1, 2))).max() > 20


def test_looks_splits_and_seeds_share_no_scene() -> None:
    seeds = [
        write.scene_seed(look, split, index, seed)
        for look in minicity.LOOKS for split in ("train", "test") for index in range(50) for seed in (0, 1)
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)


def test_game_files_have_the_layout_of_gta5(tmp_path: Path) -> None:
    root = tmp_path / "game"
    minicity.generate(GAME, root, height=37, width=53, splits={"train": 2, "test": 1}, palette=COLORS)
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    names = ("test/images/00001", "test/labels/00001", "train/images/00001", "train/images/00002")
    assert files == [f"{name}.png" for name in (*names, "train/labels/00001", "train/labels/00002")]
    image, label = minicity.draw(GAME, write.scene_seed(GAME, "train", 1, 0), 37, 53)
    stored = Image.open(root / "train/labels/00002.png")
    assert stored.mode == "P"
    np.testing.assert_array_equal(np.asarray(stored), label)
    np.testing.assert_array_equal(np.asarray(Image.open(root / "train/images/00002.png")), image)
    palette = np.array(stored.getpalette()).reshape(256, 3)
    assert palette[[Label.ROAD, Label.CAR, Label.SKY]].tolist() == [[128, 64, 128], [0, 0, 142], [0, 0, 0]]


def test_camera_files_have_the_layout_of_cityscapes(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "camera"
    minicity.generate(CAMERA, root, height=16, width=32, splits={"train": 1}, seed=4)
    image, label = minicity.draw(CAMERA, write.scene_seed(CAMERA, "train", 0, 4), 16, 32)
    name = "train/minicity/minicity_000000_000019"
    np.testing.assert_array_equal(np.asarray(Image.open(root / f"leftImg8bit/{name}_leftImg8bit.png")), image)
    np.testing.assert_array_equal(np.asarray(Image.open(root / f"gtFine/{name}_gtFine_labelIds.png")), label)
    assert len(list(root.rglob("*.png"))) == 2


def test_a_failure_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path, plan: write.Plan, palette: None, task: tuple[str, int]) -> None:
        if task[1] == 2:
            raise OSError("disk full")
        original(folder, plan, palette, task)

    original = write.write_pair
    monkeypatch.setattr(write, "write_pair", fails)
    with pytest.raises(OSError, match="disk full"):
        minicity.generate(GAME, tmp_path / "game", height=16, width=16, splits={"train": 4})
    assert list(tmp_path.iterdir()) == []


def test_the_process_that_finishes_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process finishes the same data set first, its files stay and no others are left."""

    def overtaken(folder: Path, plan: write.Plan, palette: None, task: tuple[str, int]) -> None:
        monkeypatch.setattr(write, "write_pair", original)
        minicity.generate(GAME, tmp_path / "game", height=16, width=16, splits={"train": 1})
        (tmp_path / "game" / "mark").touch()
        original(folder, plan, palette, task)

    original = write.write_pair
    monkeypatch.setattr(write, "write_pair", overtaken)
    minicity.generate(GAME, tmp_path / "game", height=16, width=16, splits={"train": 1})
    assert (tmp_path / "game" / "mark").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["game"]


def test_a_different_data_set_is_refused(tmp_path: Path) -> None:
    minicity.generate(GAME, tmp_path, height=16, width=16, splits={"train": 1})
    minicity.generate(GAME, tmp_path, height=16, width=16, splits={"train": 1})
    with pytest.raises(UserError, match="contains a different minicity data set"):
        minicity.generate(GAME, tmp_path, height=16, width=16, splits={"train": 1}, seed=1)
    with pytest.raises(UserError, match="splits"):
        minicity.generate(GAME, tmp_path / "none", height=16, width=16, splits={"train": 0})
