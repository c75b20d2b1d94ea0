"""FSD and work-energy residual: closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.metrics.smoothness import (
    FSDSettings,
    Sides,
    fsd,
    fsd_log_ratio,
    fsd_outside,
    fsd_position,
    fsd_profile,
    work_energy_order,
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


def test_outside_and_position_by_hand():
    # The minimum is the frame at 1.1: both of its intervals touch the margin of 0.1 Å, the last does not.
    assert fsd_outside(BOND, ENERGY, TRUE, FOUND) == pytest.approx((20 / 3, np.nan, 20 / 3), nan_ok=True)
    near = fsd_outside(BOND, ENERGY, TRUE, FOUND, margin=0.0)
    np.testing.assert_allclose(near, fsd(BOND, ENERGY, TRUE, FOUND))
    assert fsd_position(BOND, ENERGY, TRUE, FOUND) == pytest.approx(1.05 - 1.1)
    assert np.isnan(fsd_outside(BOND, ENERGY, TRUE, FOUND, margin=2.0)).all()
    assert np.isnan(fsd_position(BOND, ENERGY, TRUE, TRUE))
    one = np.where(np.arange(4) == 2, ENERGY, NAN)
    assert np.isnan(fsd_position(BOND, one, TRUE, FOUND))


def test_outside_and_position_take_the_settings_of_the_fsd():
    alpha = FSDSettings(coordinate="alpha")
    assert fsd_outside(BOND, ENERGY, TRUE, FOUND, settings=alpha).full == pytest.approx(40 / 3)
    b, E, F = harmonic(101)
    bent = F * (1 + 0.3 * (b > 1.8))  # a force off by a factor from 0.3 Å beyond the minimum on
    assert fsd_position(b, E, along_x(F), along_x(bent)) == pytest.approx(0.305)
    assert fsd_outside(b, E, along_x(F), along_x(bent)) == fsd(b, E, along_x(F), along_x(bent))
    softer = F * (1 - 0.5 * (np.abs(b - 1.5) < 0.085))
    assert abs(fsd_position(b, E, along_x(F), along_x(softer))) < 0.1
    assert (
        fsd_outside(b, E, along_x(F), along_x(softer)).full
        == 0.0
        < fsd(b, E, along_x(F), along_x(softer)).full
    )


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


def order_of(energy, force, least: float = 1e-8):
    x = np.linspace(0.9, 2.1, 201)
    return work_energy_order(energy(x), along_x(force(x)), along_x(x), 50, least=least)


def test_the_order_is_that_of_the_worst_interval():
    def energy(x):
        return np.exp(-3 * (x - 1.2))

    def force(x):
        return 3 * energy(x)

    smooth = order_of(energy, force)
    assert smooth.order.full == pytest.approx(3.0, abs=0.06)
    assert smooth.order.stretch == pytest.approx(3.0, abs=0.06)
    x = np.linspace(0.9, 2.1, 201)
    assert smooth.fine == work_energy_residual(energy(x), along_x(force(x)), along_x(x), 100)
    assert smooth.coarse == work_energy_residual(energy(x[::2]), along_x(force(x[::2])), along_x(x[::2]), 50)

    step = order_of(lambda x: energy(x) + 6e-6 * (x > 1.803), force)
    assert smooth.coarse.full > 6e-6  # the wall leaves more than the step, and does not hide it
    assert step.order.full == step.order.stretch == pytest.approx(0.0, abs=0.3)
    assert step.order.compress == pytest.approx(3.0, abs=0.06)
    assert 0.9 + 0.012 * step.position < 1.803 < 0.9 + 0.012 * (step.position + 1)


def test_the_order_of_a_kink_and_of_a_force_that_is_no_gradient_is_below_two():
    kink = order_of(lambda x: 0.2 * np.maximum(x - 1.8013, 0), lambda x: -0.2 * (x > 1.8013))
    assert kink.order.full < 2
    wrong = order_of(lambda x: 0 * x, lambda x: 0.02 + 0.01 * x)
    assert wrong.order.full == pytest.approx(1.0, abs=0.05)


def test_an_order_needs_something_to_measure_and_halved_steps():
    exact = order_of(lambda x: x**2, lambda x: -2 * x)
    assert np.isnan(exact.order).all()
    assert exact.position == -1
    with pytest.raises(ValueError, match="4 frames are not those of a path with every step halved"):
        work_energy_order(np.zeros(4), np.zeros((4, 1, 3)), np.zeros((4, 1, 3)), 0)
    with pytest.raises(ValueError, match=r"energy: not finite in 1 of 3 frames \(1\)"):
        work_energy_order([0, NAN, 0], np.zeros((3, 1, 3)), np.zeros((3, 1, 3)), 0)
