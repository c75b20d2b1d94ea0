"""Colors and looks of figures."""

from itertools import combinations

import numpy as np
import pytest

from sfumato.report.figures import (
    COLORS,
    DARK,
    PAPER,
    blank_figure,
    color_of,
    escaped,
    log_axis,
    look_of,
)


def lab(color):
    """CIELAB of a color, D65."""
    rgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def dark(color):
    return DARK.get(color, color)


@pytest.mark.parametrize("theme", [str, dark])
def test_a_dozen_colors_can_be_told_apart_and_seen(theme):
    for one, other in combinations(COLORS, 2):
        assert np.linalg.norm(lab(theme(one)) - lab(theme(other))) > 17, (one, other)
    for color in COLORS:
        assert np.linalg.norm(lab(theme(color)) - lab(theme(PAPER))) > 30, color


def test_no_two_models_share_a_color_or_a_look():
    assert len({color_of(k) for k in range(60)}) == 60
    assert len({look_of(k) for k in range(60)}) == 60
    assert len({look_of(k)[1:] for k in range(14)}) == 14  # also in black and white


def test_names_are_no_markup():
    assert escaped('<b> & "x"') == '&lt;b&gt; &amp; "x"'


@pytest.mark.parametrize("values", [[0.2, 90.0, 4e4], [3.0, 70.0], [633.0], [1.12, 1.35], [90.0, 110.0]])
def test_a_logarithmic_axis_has_ticks_however_narrow_its_range(values):
    figure = blank_figure("t", 300)
    log_axis(figure, "y", "error", values, 1e-3)
    axis = figure.layout.yaxis
    low, high = (10.0**end for end in axis.range)
    assert low < min(values) <= max(values) < high
    assert 2 <= sum(low <= tick <= high for tick in axis.tickvals) <= 12
    assert "≤ 0.001" in axis.ticktext
