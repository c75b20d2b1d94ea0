"""Shape counts, periodic paths, variation and well errors: closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.signal import find_peaks

from sfumato.metrics.curves import (
    StationaryPoints,
    excess_variation,
    full_turn,
    peaks,
    spurious_points,
    stationary_points,
    well_and_wall,
)

NAN = float("nan")


# --- shape counts --------------------------------------------------------------------------------------


def morse(b, depth=4.0, a=2.0, b0=1.5):
    return depth * (1 - np.exp(-a * (b - b0))) ** 2


def uneven(seed: int, low: float, high: float, frames: int) -> np.ndarray:
    steps = np.random.default_rng(seed).uniform(0.3, 1.7, frames - 1)
    return low + (high - low) * np.concatenate([[0], np.cumsum(steps)]) / steps.sum()


@settings(deadline=None)  # the first call imports scipy.signal
@given(seed=st.integers(0, 200), shift=st.floats(-1e5, 1e5))
def test_counts_of_known_curves_on_uneven_grids(seed, shift):
    b = uneven(seed, 0.76, 3.04, 120)
    assert stationary_points(b, morse(b) + shift) == StationaryPoints(1, 0, 1)
    z = b - 1.9
    double = 3 * z**4 - 3 * z**2 + 0.2 * z  # minima near ±0.7, maximum near 0, slope extrema at ±1/√6
    assert stationary_points(b, double + shift) == StationaryPoints(2, 1, 2)
    assert stationary_points(b, 5 * (3.2 - b) + shift) == StationaryPoints(0, 0, 0)


def test_the_ends_of_a_scan_do_not_count():
    b = np.linspace(1, 2, 50)
    assert stationary_points(b, (b - 1) ** 2) == StationaryPoints(0, 0, 0)
    assert stationary_points(b, -((b - 2) ** 2)) == StationaryPoints(0, 0, 0)
    assert stationary_points([1.0], [2.0]) == stationary_points([1.0, 2.0], [2.0, 1.0]) == (0, 0, 0)


def test_a_plateau_is_one_point_and_a_level_tail_is_none():
    assert stationary_points(np.arange(6.0), [0, 2, 2, 2, 0, 0.0])[:2] == (0, 1)
    b = np.linspace(0.8, 3, 100)
    cut = np.where(b < 2.2, morse(b) - morse(np.array(2.2)), 0.0)  # joins without a jump, level after
    assert stationary_points(b, cut)[:2] == (1, 0)


@pytest.mark.parametrize(("height", "counted"), [(0.8e-3, 0), (1.2e-3, 1)])
def test_a_bump_counts_from_the_energy_tolerance_up(height, counted):
    b = np.linspace(0, 1, 51)
    bump = -0.5 * np.abs(b - 0.2) + np.where(b > 0.2, 0.5 * (b - 0.2), 0)  # up, then level
    bump = bump + height * np.exp(-(((b - 0.7) / 0.05) ** 2))
    assert stationary_points(b, bump, slope_tolerance=10).maxima == counted


def test_a_kink_of_one_energy_tolerance_is_just_below_the_slope_tolerance_on_the_released_grid():
    b = np.linspace(0.76, 3.04, 100)
    out = np.zeros(100)
    out[70] = 1e-3  # one frame displaced by the energy tolerance in the level tail
    assert stationary_points(b, morse(b) + 0.9 * out).inflections == 1
    assert stationary_points(b, morse(b) + 20 * out).inflections > 1


def test_spurious_points_are_those_beyond_the_reference():
    b = np.linspace(0.76, 3.04, 100)
    bump = 0.5 * np.exp(-(((b - 2.4) / 0.1) ** 2))
    assert spurious_points(b, morse(b), morse(b) - 1e4) == StationaryPoints(0, 0, 0)
    # On a concave tail a bump is convex at both feet: the curvature changes sign four times.
    assert spurious_points(b, morse(b), morse(b) + bump) == StationaryPoints(1, 1, 4)
    # What the prediction lacks is not a negative count.
    assert spurious_points(b, morse(b) + bump, morse(b)) == StationaryPoints(0, 0, 0)
    assert spurious_points(b, morse(b), morse(b) + bump, energy_tolerance=2, slope_tolerance=50).maxima == 0


def test_spurious_points_skip_unlabeled_frames_and_refuse_bad_predictions():
    b = np.linspace(0.76, 3.04, 100)
    reference, predicted = morse(b), morse(b)
    reference[[9, 10]], predicted[9] = NAN, 1e6
    assert spurious_points(b, reference, predicted) == StationaryPoints(0, 0, 0)
    predicted[50] = NAN
    with pytest.raises(ValueError, match=r"predicted energy: not finite in 1 of 98 frames \(50\)"):
        spurious_points(b, reference, predicted)
    with pytest.raises(ValueError, match="energy: not finite"):
        stationary_points(b, predicted)
    with pytest.raises(ValueError, match="must not be negative"):
        stationary_points(b, morse(b), slope_tolerance=-1)
    with pytest.raises(ValueError, match="increase"):
        stationary_points(b[::-1], morse(b))


# --- well and wall -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    seed=st.integers(0, 500),
    k=st.floats(1, 100),
    center=st.floats(1.3, 1.7),
    shift=st.floats(-1e3, 1e3),
)
def test_well_is_exact_for_quadratics_on_any_grid(seed, k, center, shift):
    b = uneven(seed, 1.0, 2.0, 25)
    errors = well_and_wall(b, 20 * (b - 1.5) ** 2, k * (b - center) ** 2 + shift)
    expected = (center - 1.5, k * (2 - center) ** 2 - 5, k * (1 - center) ** 2 - 5)
    np.testing.assert_allclose(errors, expected, atol=1e-7)


def test_a_minimum_at_an_end_has_no_position_and_no_depth_or_wall_of_its_own():
    b = np.linspace(1, 2, 11)
    well = 20 * (b - 1.5) ** 2  # depth 5, wall 5
    right = well_and_wall(b, well, 4 * (2 - b))  # repulsive only: depth 0, wall 4
    left = well_and_wall(b, well, 3 * (b - 1))  # attractive only: depth 3, wall 0
    assert np.isnan([right.position, left.position]).all()
    np.testing.assert_allclose([right.depth, right.wall, left.depth, left.wall], [-5, -1, -2, -5])
    assert np.isnan(well_and_wall(b, 4 * (2 - b), well).position)
    np.testing.assert_allclose(well_and_wall(b, 4 * (2 - b), well)[1:], [5, 1])


def test_well_of_one_labeled_frame_is_not_applicable_and_nan_frames_are_skipped():
    b = np.linspace(1, 2, 11)
    reference, predicted = 20 * (b - 1.5) ** 2, 20 * (b - 1.52) ** 2
    assert np.isnan(well_and_wall(b, np.where(b == 1, 1.0, NAN), predicted)).all()
    reference[[2, 8]], predicted[2] = NAN, NAN
    np.testing.assert_allclose(well_and_wall(b, reference, predicted).position, 0.02)
    predicted[3] = np.inf
    with pytest.raises(ValueError, match=r"not finite in 1 of 9 frames \(3\)"):
        well_and_wall(b, reference, predicted)


@given(
    hnp.arrays(
        np.float64, st.integers(0, 30), elements=st.integers(-5, 5).map(float) | st.floats(-5, 5, width=16)
    )
)
def test_peaks_are_those_of_scipy(curve):
    places, heights = peaks(curve)
    expected, found = find_peaks(curve, prominence=0)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(heights, found["prominences"])


# --- paths that close --------------------------------------------------------------------------------------


def turn(frames: int, start: float, closed: bool = False) -> np.ndarray:
    return np.radians(start) + np.linspace(0, 2 * np.pi, frames, endpoint=closed)


@pytest.mark.parametrize("start", [0.0, 4.0, 20.0, 59.0, 60.0, 61.0, 300.0])
@pytest.mark.parametrize("closed", [False, True])
def test_a_full_turn_has_its_extrema_wherever_it_starts(start, closed):
    phi = turn(73, start, closed)
    assert stationary_points(phi, np.cos(3 * phi), period=2 * np.pi) == StationaryPoints(3, 3, 6)


def test_a_turned_torsion_is_no_spurious_minimum():
    phi = turn(72, 0.0)
    true, turned = np.cos(3 * phi), np.cos(3 * (phi - np.radians(4)))
    # Of an open path the first frame is an end: turned by 4° its maximum moves inside.
    assert spurious_points(phi, true, turned) != StationaryPoints(0, 0, 0)
    assert spurious_points(phi, true, turned, period=2 * np.pi) == StationaryPoints(0, 0, 0)


def test_which_paths_close():
    arm = 0.9
    assert full_turn(arm * turn(24, 10.0), arm) == pytest.approx(2 * np.pi * arm)
    assert full_turn(arm * turn(25, 10.0, closed=True), arm) == pytest.approx(2 * np.pi * arm)
    assert full_turn(arm * turn(24, 10.0)[:20], arm) is None
    assert full_turn([0.0, 1.0], 1.0) is None
    with pytest.raises(ValueError, match=r"period: 1\.0 Å is shorter than the path, 2\.0 Å"):
        stationary_points([0.0, 1.0, 2.0], [0.0, 1.0, 0.0], period=1.0)


# --- variation -----------------------------------------------------------------------------------------


def test_excess_variation_is_twice_the_false_climbs_and_nothing_else():
    b = np.linspace(0.76, 3.04, 400)
    for smooth in (morse(b), morse(b, depth=2.0), morse(b, b0=1.7), 5 * (3.2 - b), morse(b) + 1e4):
        assert excess_variation(b, morse(b), smooth) == pytest.approx(0, abs=1e-9)
    level = np.where(b < 2.2, morse(b), morse(np.array(2.2)))
    assert excess_variation(b, morse(b), level) == pytest.approx(0, abs=1e-9)
    bump = level + 0.25 * np.exp(-(((b - 2.6) / 0.08) ** 2))
    assert excess_variation(b, morse(b), bump) == pytest.approx(0.5, abs=1e-3)
    assert excess_variation(b, bump, morse(b)) == pytest.approx(-0.5, abs=1e-3)
    phi = turn(72, 10.0)
    assert excess_variation(phi, np.cos(phi), 3 * np.cos(phi - 1), period=2 * np.pi) == pytest.approx(0)
    assert excess_variation(phi, np.cos(phi), np.cos(3 * phi), period=2 * np.pi) == pytest.approx(8, abs=0.05)
