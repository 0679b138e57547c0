"""Parts of the page: lines and their colours, pictures."""

import numpy as np
from PIL import Image

from sean_jax.reporting import charts, pictures
from sean_jax.reporting.rundata import Series


def test_line_colours_stand_out_from_both_backgrounds():
    def luminance(color):
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for color in charts.COLORS:
        assert 1.05 / (luminance(color) + 0.05) >= 3
        assert (luminance(color) + 0.05) / (luminance("#15181c") + 0.05) >= 3


def test_a_long_series_is_averaged_and_not_cut():
    series = Series(np.arange(1, 2501), np.arange(1.0, 2501))
    thin = charts.thin(series, 1200)
    assert len(thin.values) <= 1200
    assert thin.steps[-1] == 2500
    assert thin.values[0] == 2  # of 1, 2 and 3
    np.testing.assert_allclose(charts.running_mean(np.full(50, 3.0), 7), 3)


def test_negative_values_are_inside_the_chart():
    def drawn(values):
        line = charts.Line(Series(np.array([1, 2]), np.array(values)), "#000000")
        return charts.line_chart("x", [line], last_step=2)

    assert "−1" in drawn([-1.0, 1.0])  # a number on the axis
    assert "−" not in drawn([0.0, 1.0])
    assert "−1" in drawn([-1.0, -0.5])


def test_pictures_are_selected_evenly_and_wide_ones_scaled_down(tmp_path):
    assert pictures.selection([]) == []
    assert pictures.selection([5]) == [5]
    assert pictures.selection(list(range(10, 80, 10))) == [10, 30, 50, 70]
    Image.new("RGB", (4000, 100)).save(tmp_path / "wide.png")
    picture = pictures.embed(1, tmp_path / "wide.png")
    assert (picture.width, picture.height, picture.shrunk) == (1600, 40, True)
    assert picture.address.startswith("data:image/webp;base64,")
