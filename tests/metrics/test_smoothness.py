"""FSD, work-energy residual, shape counts and well errors: closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.signal import find_peaks

from sfumato.metrics import smoothness
from sfumato.metrics.smoothness import (
    FSDSettings,
    Sides,
    StationaryPoints,
    fsd,
    fsd_log_ratio,
    fsd_profile,
    spurious_points,
    stationary_points,
    well_and_wall,
    work_energy_residual,
)

NAN = float("nan")


def along_x(force) -> np.ndarray:
    """One atom pushed, or moved, along x: (F,) → (F, 1, 3)."""
    vectors = np.zeros((len(force), 1, 3))
    vectors[:, 0, 0] = force
    return vectors


# --- FSD by hand ---------------------------------------------------------------------------------------

BOND = np.array([1.0, 1.1, 1.3, 1.6])
ENERGY = np.array([1.0, 0.0, 2.0, 3.0])
TRUE = along_x([4, 0, -3, -5])
# A = 36, 1, 9, 25e²; R = 16, 0 → 1, 9, 25; L = ln 9/4, 0, 0, 2.
FOUND = along_x([6, 1, -3, -5 * np.e])
BY_HAND = np.array([np.log(2.25) / 0.1, 0.0, 2 / 0.3])


def test_fsd_of_four_frames_by_hand():
    midpoints, values = fsd_profile(BOND, ENERGY, TRUE, FOUND)
    np.testing.assert_allclose(midpoints, [1.05, 1.2, 1.45])
    np.testing.assert_allclose(values, BY_HAND, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fsd(BOND, ENERGY, TRUE, FOUND), [BY_HAND[0], BY_HAND[0], BY_HAND[2]])


def test_log_ratio_of_four_frames_by_hand():
    length, values = fsd_log_ratio(BOND, ENERGY, TRUE, FOUND)
    np.testing.assert_array_equal(length, BOND)
    np.testing.assert_allclose(values, [np.log(2.25), 0.0, 0.0, 2.0], rtol=1e-12, atol=1e-12)
    # ε² = 25 leaves A = 36, 25, 25, 25e² and R = 25 throughout.
    values = fsd_log_ratio(BOND, ENERGY, TRUE, FOUND, settings=FSDSettings(floor=5.0))[1]
    np.testing.assert_allclose(values, [np.log(1.44), 0.0, 0.0, 2.0], rtol=1e-12, atol=1e-12)


def test_forces_are_compared_as_vectors_of_all_atoms():
    # ‖(3, 0, 0), (0, 4, 0)‖² = 25 against 5² on one atom: the same profile for two atoms.
    two = np.zeros((4, 2, 3))
    two[:, 0, 0], two[:, 1, 1] = 0.6 * FOUND[:, 0, 0], 0.8 * FOUND[:, 0, 0]
    true = np.zeros((4, 2, 3))
    true[:, 0, 2] = TRUE[:, 0, 0]
    np.testing.assert_allclose(fsd_profile(BOND, ENERGY, true, two)[1], BY_HAND, atol=1e-12)


def test_a_constant_force_offset_of_the_reference_cancels():
    shift = np.array([5.0, -2.0, 1.0])
    np.testing.assert_allclose(
        fsd(BOND, ENERGY, TRUE + shift, FOUND + shift), fsd(BOND, ENERGY, TRUE, FOUND), rtol=1e-12
    )


def test_fsd_of_the_reference_itself_is_zero():
    assert fsd(BOND, ENERGY, TRUE, TRUE) == Sides(0.0, 0.0, 0.0)


def test_alpha_doubles():
    alpha = fsd(BOND, ENERGY, TRUE, FOUND, settings=FSDSettings(coordinate="alpha"))
    np.testing.assert_allclose(alpha, 2 * np.array(fsd(BOND, ENERGY, TRUE, FOUND)), rtol=1e-14)


def test_scaling_forces_and_floor_together_changes_nothing_and_stretching_the_grid_divides():
    wide = fsd(3 * BOND, ENERGY, 7 * TRUE, 7 * FOUND, settings=FSDSettings(floor=7.0))
    np.testing.assert_allclose(wide, np.array(fsd(BOND, ENERGY, TRUE, FOUND)) / 3, rtol=1e-12)


def test_own_minimum_measures_from_the_predicted_force_there():
    own = FSDSettings(minimum="own")
    # Own minimum is frame 2, where F = −3: A = 81, 16, 0 → 1, (5e − 3)²; R stays relative to frame 1.
    L = np.log([81 / 16, 16.0, 1 / 9, (5 * np.e - 3) ** 2 / 25])
    expected = np.abs(np.diff(L)) / np.diff(BOND)
    energy = np.array([5.0, 4.0, 3.0, 6.0])
    np.testing.assert_allclose(
        fsd_profile(BOND, ENERGY, TRUE, FOUND, settings=own, energy=energy)[1], expected
    )
    # The sides are still those of the reference minimum, frame 1.
    np.testing.assert_allclose(
        fsd(BOND, ENERGY, TRUE, FOUND, settings=own, energy=energy),
        [expected.max(), expected[0], expected[1:].max()],
    )
    with pytest.raises(ValueError, match="needs the predicted energies"):
        fsd(BOND, ENERGY, TRUE, FOUND, settings=own)


def test_own_minimum_forgives_a_constant_force_error_that_the_reference_minimum_does_not():
    shifted = TRUE + np.array([3.0, 0.0, 0.0])
    assert fsd(BOND, ENERGY, TRUE, shifted).full > 1
    same = fsd(BOND, ENERGY, TRUE, shifted, settings=FSDSettings(minimum="own"), energy=ENERGY)
    np.testing.assert_allclose(same, 0, atol=1e-12)


@pytest.mark.parametrize(("energy", "side"), [([0, 1, 2, 3], "compress"), ([3, 2, 1, 0], "stretch")])
def test_a_minimum_at_a_scan_end_leaves_that_side_not_applicable(energy, side):
    sides = fsd(BOND, np.array(energy, float), TRUE, FOUND)
    other = {"compress": "stretch", "stretch": "compress"}[side]
    assert np.isnan(getattr(sides, side))
    assert getattr(sides, other) == sides.full > 0


def test_frames_without_reference_are_dropped_and_the_difference_spans_the_gap():
    b = np.array([1.0, 1.05, 1.1, 1.3, 1.4, 1.6])
    E = np.insert(ENERGY, [1, 3], [NAN, 7.0])
    true = np.insert(TRUE, [1, 3], along_x([1, NAN]), axis=0)  # energy missing once, forces once
    found = np.insert(FOUND, [1, 3], along_x([NAN, 9]), axis=0)  # not looked at there
    np.testing.assert_allclose(fsd(b, E, true, found), fsd(BOND, ENERGY, TRUE, FOUND), rtol=1e-12)


def test_stride_counts_labeled_frames():
    b = np.array([1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.6])
    E = np.array([1.0, NAN, 0.5, 0.0, 1.0, 2.0, 2.5, 3.0])
    keep = [0, 3, 5, 7]  # every second of the labeled 0 2 3 4 5 6 7
    true, found = along_x(np.full(8, 8.0)), along_x(np.full(8, 8.0))
    true[keep], found[keep] = TRUE, FOUND
    expected = fsd(b[keep], E[keep], TRUE, FOUND)
    assert fsd(b, E, true, found, settings=FSDSettings(stride=2)) == expected
    assert fsd(b, E, true, found) != expected


def test_one_labeled_frame_is_not_applicable_and_none_is_an_error():
    one = np.where(np.arange(4) == 2, ENERGY, NAN)
    assert np.isnan(fsd(BOND, one, TRUE, FOUND)).all()
    with pytest.raises(ValueError, match="no frame has a finite reference"):
        fsd(BOND, np.full(4, NAN), TRUE, FOUND)


def test_predictions_that_are_not_finite_are_named():
    bad = FOUND.copy()
    bad[[1, 3], 0, 2] = NAN, np.inf
    with pytest.raises(ValueError, match=r"predicted forces: not finite in 2 of 4 frames \(1, 3\)"):
        fsd(BOND, ENERGY, TRUE, bad)
    with pytest.raises(ValueError, match=r"predicted energy: not finite in 1 of 4 frames \(0\)"):
        fsd(BOND, ENERGY, TRUE, FOUND, settings=FSDSettings(minimum="own"), energy=[NAN, 0, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((BOND[:3], ENERGY, TRUE, FOUND), r"reference energy: expected shape \(3\), got \(4,\)"),
        ((BOND, ENERGY, TRUE, FOUND[:, :, :2]), r"predicted forces: expected shape \(4, 1, 3\)"),
        ((BOND[::-1], ENERGY, TRUE, FOUND), "coordinate: must be finite and increase"),
        ((BOND * NAN, ENERGY, TRUE, FOUND), "coordinate: must be finite and increase"),
    ],
)
def test_wrong_arrays_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fsd(*arguments)


# --- FSD in closed form: what grid and floor do --------------------------------------------------------


def harmonic(frames: int, k: float = 50.0):
    """A bond of stiffness k with its minimum on the grid, b from 1 to 2 Å."""
    d = np.linspace(-0.5, 0.5, frames)
    return 1.5 + d, 0.5 * k * d**2, -k * d


@pytest.mark.parametrize("frames", [51, 101, 401, 1601])
def test_ripple_reads_lower_on_a_coarser_grid_by_the_sinc_of_its_wavelength(frames):
    # F = F_ref exp(g/2) with g = c sin ωd gives L = g, and |Δg|/h = (2c/h) |sin(ωh/2) cos(ω d_mid)|.
    c, w = 0.4, 60.0
    b, E, F = harmonic(frames)
    d, h = b - 1.5, 1 / (frames - 1)
    value = fsd(
        b, E, along_x(F), along_x(F * np.exp(c / 2 * np.sin(w * d))), settings=FSDSettings(floor=1e-6)
    )
    middle = (d[1:] + d[:-1]) / 2
    expected = 2 * c / h * abs(np.sin(w * h / 2)) * np.abs(np.cos(w * middle)).max()
    assert value.full == pytest.approx(expected, rel=1e-9)
    assert value.full < c * w


def test_a_ripple_grows_with_the_grid_and_converges():
    c, w = 0.4, 60.0
    values = []
    for frames in (51, 101, 201, 1601):
        b, E, F = harmonic(frames)
        rippled = F * np.exp(c / 2 * np.sin(w * (b - 1.5)))
        values.append(fsd(b, E, along_x(F), along_x(rippled), settings=FSDSettings(floor=1e-6)).full)
    assert values == sorted(values)
    assert values[-1] == pytest.approx(c * w, rel=1e-3)


@pytest.mark.parametrize("floor", [1.0, 0.1])
def test_a_merely_stiffer_bond_reads_as_two_stiffnesses_over_the_floor(floor):
    # L rises from 0 where the stiffer force passes ε to 2 ln s where the softer does; its slope is 2/d
    # in between, at most 2 s k/ε: the floor, not the potential, sets the scale.
    s, k = 1.1, 50.0
    b, E, F = harmonic(2_000_001 if floor == 1 else 8_000_001, k)
    near = np.abs(b - 1.5) < 1.5 * floor / k
    b, E, F = b[near], E[near], F[near]
    value = fsd(b, E, along_x(F), along_x(s * F), settings=FSDSettings(floor=floor)).full
    assert value == pytest.approx(2 * s * k / floor, rel=1e-3)


def test_a_stiffer_bond_on_a_coarse_grid_reads_the_jump_over_one_interval():
    s = 1.1
    b, E, F = harmonic(21)  # h = 0.05, first force 2.5 eV/Å above the floor
    value = fsd(b, E, along_x(F), along_x(s * F)).full
    assert value == pytest.approx(2 * np.log(s) / 0.05, rel=1e-9)


# --- settings ------------------------------------------------------------------------------------------


def test_the_name_shows_every_changed_setting_and_only_those():
    assert FSDSettings().name == FSDSettings(floor=1).name == "fsd"
    assert FSDSettings(floor=0.1, coordinate="alpha").name == "fsd[floor=0.1,coordinate=alpha]"
    assert FSDSettings(stride=2, minimum="own").name == "fsd[stride=2,minimum=own]"
    assert FSDSettings(floor=0.1000000001).name != FSDSettings(floor=0.1).name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"floor": 0.0}, "floor: must be a positive"),
        ({"floor": np.inf}, "floor: must be a positive"),
        ({"stride": 0}, "stride: must be a whole number"),
        ({"stride": 1.5}, "stride: must be a whole number"),
        ({"stride": True}, "stride: must be a whole number"),
        ({"coordinate": "lenght"}, "'lenght' is not one of length, alpha; did you mean 'length'"),
        ({"minimum": "owm"}, "'owm' is not one of reference, own; did you mean 'own'"),
    ],
)
def test_impossible_settings_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        FSDSettings(**changed)


# --- work and energy -----------------------------------------------------------------------------------


def test_work_energy_by_hand_and_by_side():
    # Residuals |ΔE + ½ΣF·Δx|: |−1 + 1.5·1|, |2 − 1|, |4 − 1·2|.
    sides = work_energy_residual([1, 0, 2, 6], along_x([3, 0, -2, 0]), along_x([0, 1, 2, 4]), 1)
    assert sides == Sides(2.0, 0.5, 2.0)
    assert np.isnan(work_energy_residual([1, 0], along_x([1, 1]), along_x([0, 1]), 0).compress)


def test_work_energy_is_exact_for_linear_forces_of_many_atoms():
    rng = np.random.default_rng(0)
    H = rng.normal(size=(9, 9))
    H += H.T
    x = rng.normal(size=(20, 9))
    E = 0.5 * np.einsum("fi,ij,fj->f", x, H, x) + 3.0
    F = -(x @ H)
    sides = work_energy_residual(E, F.reshape(20, 3, 3), x.reshape(20, 3, 3), 7)
    assert sides.full < 1e-12 * np.abs(E).max()
    bent = F + 0.1
    assert work_energy_residual(E, bent.reshape(20, 3, 3), x.reshape(20, 3, 3), 7).full > 0.01


def residual_of(energy, force, frames: int) -> float:
    x = np.linspace(0.9, 2.1, frames)
    return work_energy_residual(energy(x), along_x(force(x)), along_x(x), frames // 2).full


def test_work_energy_falls_as_the_cube_of_the_step_for_a_smooth_potential_and_not_at_all_for_a_step():
    def energy(x):
        return (1 - np.exp(-2 * (x - 1.2))) ** 2

    def force(x):
        return -4 * np.exp(-2 * (x - 1.2)) * (1 - np.exp(-2 * (x - 1.2)))

    smooth = [residual_of(energy, force, n) for n in (101, 201, 401)]
    assert smooth[0] / smooth[1] == pytest.approx(8, rel=0.1)
    assert smooth[1] / smooth[2] == pytest.approx(8, rel=0.1)

    jump = [residual_of(lambda x: energy(x) + 0.01 * (x > 1.5003), force, n) for n in (101, 201, 401)]
    assert jump == pytest.approx([0.01] * 3, rel=0.01)


def test_work_energy_of_forces_that_are_no_gradient_falls_only_as_the_step():
    noisy = [residual_of(lambda x: 0 * x, lambda x: 0.02 * np.sin(1e4 * x) ** 2 + 0.1, n) for n in (101, 401)]
    assert noisy[0] / noisy[1] == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, NAN], along_x([1, 1]), along_x([0, 1]), 0), r"energy: not finite in 1 of 2 frames \(1\)"),
        (([0, 1], along_x([1, NAN]), along_x([0, 1]), 0), "forces: not finite"),
        (([0, 1], along_x([1, 1]), along_x([0, np.inf]), 0), "positions: not finite"),
        (([0, 1], along_x([1, 1]), along_x([0, 1, 2]), 0), "positions: expected shape"),
        (([0, 1], along_x([1, 1]), along_x([0, 1]), 2), "minimum: frame 2 is not one of 0…1"),
    ],
)
def test_work_energy_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        work_energy_residual(*arguments)


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
    ),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_peaks_are_counted_as_scipy_counts_them(curve, tolerance):
    assert smoothness._peaks(curve, tolerance) == len(find_peaks(curve, prominence=tolerance)[0])
