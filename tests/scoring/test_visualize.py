"""Small pictures, computed by hand."""

import io

import numpy as np
from PIL import Image

from sean_jax.scoring import visualize

PALETTE = ((255, 0, 0), (0, 255, 0))


def test_colours_and_black_for_what_is_ignored():
    picture = visualize.colorize(np.array([[0, 1, 255, 7]], np.uint8), PALETTE)
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 0], [0, 0, 0]]


def test_heat_goes_from_blue_to_red_and_covers_both_ends():
    row = visualize.heat_map(np.array([[0.0, 0.5, 1.0]]))[0]
    assert row.dtype == np.uint8
    assert row.tolist() == [[0, 0, 128], [128, 224, 64], [128, 0, 0]]
    assert visualize.heat_map(np.array([[1 / 12]]))[0, 0].tolist() == [0, 32, 192]  # 191.5, half-way between two stops
    ramp = visualize.heat_map(np.linspace(0, 1, 200)[None])[0].astype(int)
    assert len({tuple(color) for color in ramp.tolist()}) > 150


def test_overlay_is_the_mean():
    image, colors = np.full((1, 1, 3), 100, np.uint8), np.full((1, 1, 3), 255, np.uint8)
    assert visualize.overlay(image, colors)[0, 0].tolist() == [178] * 3
    np.testing.assert_array_equal(visualize.overlay(image, colors, 0.0), image)


def test_pixels_are_darkened_where_asked():
    image = np.full((1, 3, 3), 200, np.uint8)
    assert visualize.darken(image, np.array([[True, True, False]]))[0, :, 0].tolist() == [50, 50, 200]


def test_panel_places_rows_below_each_other_on_white():
    red, green = np.full((2, 3, 3), (255, 0, 0), np.uint8), np.full((4, 5, 3), (0, 255, 0), np.uint8)
    panel = visualize.panel([[red, red], [green]])
    gap = visualize.GAP
    assert panel.shape == (2 + gap + 4, 3 + gap + 3, 3)
    assert panel[0, 0].tolist() == panel[1, -1].tolist() == [255, 0, 0]
    assert panel[2 + gap, 0].tolist() == [0, 255, 0]
    assert panel[0, 3].tolist() == panel[3, 0].tolist() == panel[-1, -1].tolist() == [255, 255, 255]


def test_palette_picture_keeps_the_classes_and_shows_the_colours():
    classes = np.array([[0, 1], [1, 0]], np.uint8)
    buffer = io.BytesIO()
    visualize.palette_image(classes, PALETTE).save(buffer, "PNG")
    picture = Image.open(buffer)
    np.testing.assert_array_equal(np.asarray(picture), classes)
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), visualize.colorize(classes, PALETTE))


def test_indices_are_evenly_spaced_from_first_to_last():
    assert visualize.evenly_spaced(500, 4) == [0, 166, 332, 499]
    assert visualize.evenly_spaced(5, 4) == [0, 1, 2, 4]
    assert visualize.evenly_spaced(3, 4) == [0, 1, 2]
    assert visualize.evenly_spaced(0, 4) == []
