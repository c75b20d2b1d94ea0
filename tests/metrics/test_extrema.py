"""Planted curves: every number reacts to what it is for, and to nothing else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from sfumato.metrics.curves import excess_variation, well_and_wall
from sfumato.metrics.extrema import energy_noise, excess_energy, false_extrema
from sfumato.metrics.smoothness import fsd, fsd_outside, fsd_position, work_energy_order
from sfumato.metrics.work import work_energy_excess

NAN = float("nan")
REST = 1.5
FINE = np.linspace(0.76, 3.04, 199)
"""The released grid with every step halved: 0.023 Å, and 0.0115 Å."""
GRID = FINE[::2]
PLACE = 1.6 * REST


def morse(b):
    return 4.5 * (1 - np.exp(-1.9 * (b - REST))) ** 2


def slope(b):
    return 2 * 4.5 * 1.9 * np.exp(-1.9 * (b - REST)) * (1 - np.exp(-1.9 * (b - REST)))


def bump(b, height, width=0.08, place=PLACE):
    return height * np.exp(-0.5 * ((b - place) / width) ** 2)


def bump_slope(b, height, width=0.08, place=PLACE):
    return -(b - place) / width**2 * bump(b, height, width, place)


def integral(of, b):
    """Return the energy whose slope is given, by a spline on a grid fine enough for edges."""
    every = np.linspace(b[0], b[-1], 100 * (len(b) - 1) + 1)
    values = of(every)
    energy = np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(every))])
    return energy[::100]


def shelf_slope(b):
    return np.where((b > PLACE - 0.15) & (b < PLACE + 0.15), 0.0, slope(b))


def cut_slope(b):
    return np.where(b > 1.4 * REST, 0.0, slope(b))


KINK = PLACE + 0.006
RIPPLE = 2 * np.pi / 0.12

CURVES = {
    "itself": (morse, slope),
    "shift": (lambda b: morse(b - 0.02), lambda b: slope(b - 0.02)),
    "stiffer": (lambda b: 1.2 * morse(b), lambda b: 1.2 * slope(b)),
    "barrier": (lambda b: morse(b) + bump(b, 1.0), lambda b: slope(b) + bump_slope(b, 1.0)),
    "low barrier": (lambda b: morse(b) + bump(b, 0.2), lambda b: slope(b) + bump_slope(b, 0.2)),
    "dip": (lambda b: morse(b) + bump(b, -0.2), lambda b: slope(b) + bump_slope(b, -0.2)),
    "shelf": (lambda b: integral(shelf_slope, b), shelf_slope),
    "ripple": (
        lambda b: morse(b) + 0.005 * np.sin(RIPPLE * b),
        lambda b: slope(b) + 0.005 * RIPPLE * np.cos(RIPPLE * b),
    ),
    "cut force": (lambda b: integral(cut_slope, b), cut_slope),
    "kink": (lambda b: morse(b) + 0.5 * np.maximum(b - KINK, 0), lambda b: slope(b) + 0.5 * (b > KINK)),
    "step": (lambda b: morse(b) + 0.05 * (b > PLACE), slope),
}


class Numbers(NamedTuple):
    """What is measured of one planted curve."""

    barrier: float
    well: float
    fsd: float
    outside: float
    place: float
    variation: float
    order: float
    excess: float
    position: float
    depth: float


def pushed(force):
    """Two atoms pushed apart along x, (F, 2, 3)."""
    vectors = np.zeros((len(force), 2, 3))
    vectors[:, 0, 0], vectors[:, 1, 0] = -np.asarray(force), np.asarray(force)
    return vectors


def numbers(name: str) -> Numbers:
    energy, gradient = CURVES[name]
    E, F = energy(FINE), pushed(-gradient(FINE))
    x = pushed(FINE / 2)
    true, found = morse(GRID), E[::2]
    forces = (GRID, true, pushed(-slope(GRID)), F[::2])
    extrema = false_extrema(GRID, true, found)
    well = well_and_wall(GRID, true, found)
    return Numbers(
        extrema.false_barrier,
        extrema.false_well,
        fsd(*forces).full,
        fsd_outside(*forces).stretch,
        fsd_position(*forces),
        excess_variation(GRID, true, found),
        work_energy_order(E, F, x, int(true.argmin())).order.full,
        work_energy_excess(found, F[::2], x[::2]).height,
        well.position,
        well.depth,
    )


# what is planted: barrier, well, variation (eV), FSD outside (1/Å), order; None: not looked at.
TABLE = {
    "itself": (0, 0, 0, 0, 3),
    "shift": (0, 0, 0, 4, 3),
    "stiffer": (0, 0, 0, 0.1, 3),
    "barrier": (1.0, 0.4, 0.8, 20, 3),
    "low barrier": (0.2, 0, 0, 8, 3),
    "dip": (0, 0.2, 0, 8, 3),
    "shelf": (0, 0, 0, 100, None),
    "ripple": (0.010, 0.010, 0, 8, 2.5),
    "cut force": (0, 0, 0, 100, None),
    "kink": (0, 0, 0, 5, 1),
    "step": (0, 0, 0, 1e-9, 0),
}


@pytest.mark.parametrize("name", CURVES)
def test_each_number_reacts_to_what_it_is_for_and_to_nothing_else(name):
    found = numbers(name)
    barrier, well, variation, outside, order = TABLE[name]
    assert found.barrier == pytest.approx(barrier, rel=0.1, abs=0.004 if name == "ripple" else 1e-9)
    if name == "barrier":  # behind a barrier is a well
        assert 0.2 < found.well < 0.6
        assert found.variation == pytest.approx(2 * found.well, rel=0.05)
    else:
        assert found.well == pytest.approx(well, rel=0.1, abs=0.004 if name == "ripple" else 1e-9)
        assert found.variation == pytest.approx(variation, abs=1e-9)
    if name in ("itself", "shift", "stiffer", "step"):
        assert found.outside <= outside
    else:
        assert found.outside >= outside
    assert found.excess == pytest.approx(0.05 if name == "step" else 0, abs=2e-3 if name == "step" else 0)
    if order in (0, 3):
        assert found.order == pytest.approx(order, abs=0.35)
    elif order == 1:
        assert found.order < 2


def test_the_fsd_of_a_mere_shift_is_large_and_read_at_the_well():
    shift, stiffer = numbers("shift"), numbers("stiffer")
    assert shift.fsd > 15 * shift.outside
    assert stiffer.fsd > 100 * stiffer.outside
    assert abs(shift.place) < 0.1
    assert shift.position == pytest.approx(0.02, abs=1e-3)
    for name in ("shelf", "cut force"):  # forces switched off: far from the well, and the depth is wrong
        edges = (PLACE - 0.15, PLACE + 0.15) if name == "shelf" else (1.4 * REST,)
        assert min(abs(numbers(name).place + REST - edge) for edge in edges) < 0.05
        assert numbers(name).depth < -0.3


@pytest.mark.parametrize("height", [1.0, 0.2, -0.2, -1.0])
@pytest.mark.parametrize("width", [0.03, 0.05, 0.1])
def test_a_planted_bump_is_reported_with_height_and_place(height, width):
    found = false_extrema(GRID, morse(GRID), morse(GRID) + bump(GRID, height, width))
    largest = (found.barriers if height > 0 else found.wells)[0]
    assert largest.height == pytest.approx(abs(height), rel=0.07)
    assert largest.position == pytest.approx(PLACE, abs=0.025)


@pytest.mark.parametrize(("wavelength", "many"), [(0.06, 10), (0.1, 8), (0.15, 4)])
def test_a_ripple_is_many_false_extrema_of_its_height(wavelength, many):
    ripple = 0.005 * np.sin(2 * np.pi / wavelength * GRID)
    found = false_extrema(GRID, morse(GRID), morse(GRID) + ripple)
    for extrema in (found.barriers, found.wells):
        assert len(extrema) >= many
        assert np.median([x.height for x in extrema]) == pytest.approx(0.010, abs=0.004)
        assert all(x.height < 0.03 for x in extrema)


@pytest.mark.parametrize("shift", [-0.05, -0.02, 0.02, 0.05])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
def test_smooth_errors_are_no_extrema(shift, scale):
    smooth = scale * morse(GRID - shift) + 0.3 * np.tanh(2 * (GRID - 1.8)) - 1e4
    found = false_extrema(GRID, morse(GRID), smooth)
    assert (found.barriers, found.wells) == ((), ())


@pytest.mark.parametrize("height", [0.05, -0.05, 1.0])
def test_steps_and_kinks_up_are_no_extrema(height):
    for planted in (height / (1 + np.exp(-(GRID - PLACE) / 0.02)), height * np.maximum(GRID - PLACE, 0)):
        assert false_extrema(GRID, morse(GRID), morse(GRID) + planted)[:2] == ((), ())


def test_real_extrema_of_the_reference_are_not_false():
    crossing = morse(GRID) - 3 * np.maximum(GRID - 2.6, 0)  # falls beyond 2.6 Å, as at a conical crossing
    assert false_extrema(GRID, crossing, crossing)[:2] == ((), ())
    moved = np.interp(GRID - 0.1, GRID, crossing)
    assert false_extrema(GRID, crossing, moved)[:2] == ((), ())
    assert false_extrema(GRID, morse(GRID), crossing).barriers[0].position == pytest.approx(2.6, abs=0.03)
    # A barrier many times as high as a real one nearby is not that one.
    low, high = (morse(GRID) + bump(GRID, h, 0.03) for h in (0.22, 1.0))
    assert false_extrema(GRID, low, high).false_barrier > 0.5


def test_a_wall_that_turns_over_and_a_hole_in_it():
    turned = np.where(GRID < 0.9, morse(np.array(0.9)) - 40 * (0.9 - GRID), morse(GRID))
    found = false_extrema(GRID, morse(GRID), turned)
    assert found.barriers[0] == pytest.approx((0.9, 40 * (0.9 - 0.76)), abs=0.7)
    assert found.wells == ()  # it falls to the end of the scan: there is no bottom
    hole = morse(GRID) - bump(GRID, 25.0, 0.05, 1.0)
    found = false_extrema(GRID, morse(GRID), hole)
    assert found.wells[0].position == pytest.approx(1.0, abs=0.03)
    assert found.false_well > 5
    # What the bond itself cannot bear is no load: a bend on the wall alone is no barrier.
    wall = false_extrema(GRID, morse(GRID), morse(GRID) + bump(GRID, 0.3, 0.05, 0.95))
    assert wall[:2] == ((), ())


def test_only_the_prediction_next_to_the_reference_minimum_is_excused():
    away = morse(GRID + 0.4)
    assert false_extrema(GRID, morse(GRID), away).wells == ()
    second = morse(GRID) - bump(GRID, 3.0, 0.1, 2.5)
    assert false_extrema(GRID, morse(GRID), second).wells[0].position == pytest.approx(2.5, abs=0.05)
    repulsive = 5 * (3.2 - GRID)
    assert false_extrema(GRID, repulsive, morse(GRID)).wells[0].position == pytest.approx(REST, abs=0.03)


def test_noise_is_measured_from_the_curve_and_limits_what_is_reported():
    rng = np.random.default_rng(0)
    for sigma in (1e-4, 1e-3):
        noisy = morse(GRID) + sigma * rng.normal(size=len(GRID))
        assert energy_noise(GRID, noisy) == pytest.approx(sigma, rel=0.35)
    found = false_extrema(GRID, morse(GRID), morse(GRID) + 3e-4 * rng.normal(size=len(GRID)))
    assert found[:2] == ((), ())
    assert found.threshold == 5 * found.noise > 1e-3
    assert energy_noise(GRID, morse(GRID)) < 1e-5
    loud = false_extrema(GRID, morse(GRID), morse(GRID) + 0.02 * rng.normal(size=len(GRID)))
    assert loud.threshold == 5e-3
    assert len(loud.barriers) > 5
    assert energy_noise(GRID[:8], morse(GRID[:8])) == 0.0
    assert energy_noise(np.cumsum(rng.uniform(0.5, 1.5, 40)), np.zeros(40)) == 0.0


def test_a_full_turn_has_no_false_extremum_wherever_it_starts():
    phi = 2 * np.pi * np.arange(72) / 72
    for start in np.radians([0.0, 4.0, 33.0, 60.0]):
        true, turned = 0.1 * np.cos(3 * (phi - start)), 0.12 * np.cos(3 * (phi - start - np.radians(4)))
        assert false_extrema(phi, true, turned, period=2 * np.pi)[:2] == ((), ())
        for place in (0.02, 1.0, 3.0, 6.25):
            away = np.angle(np.exp(1j * (phi - place)))
            found = false_extrema(phi, 0 * phi, 0.05 * np.exp(-((away / 0.2) ** 2)), period=2 * np.pi)
            largest = found.barriers[0]
            assert largest.height == pytest.approx(0.05, rel=0.05)
            assert abs(np.angle(np.exp(1j * (largest.position - place)))) < 0.06
    closed = np.append(phi, 2 * np.pi)
    assert false_extrema(closed, np.cos(closed), np.cos(closed), period=2 * np.pi)[:2] == ((), ())


def test_frames_without_reference_are_left_out_and_bad_input_is_named():
    reference, predicted = morse(GRID), morse(GRID)
    reference[[9, 10]], predicted[9] = NAN, 1e6
    assert false_extrema(GRID, reference, predicted)[:2] == ((), ())
    predicted[50] = NAN
    with pytest.raises(ValueError, match=r"predicted energy: not finite in 1 of 98 frames \(50\)"):
        false_extrema(GRID, reference, predicted)
    with pytest.raises(ValueError, match="floor: must be a positive number"):
        false_extrema(GRID, morse(GRID), morse(GRID), floor=0.0)
    with pytest.raises(ValueError, match="increase"):
        false_extrema(GRID[::-1], morse(GRID), morse(GRID))
    for frames in (1, 2, 3, 8):
        few = GRID[:frames]
        assert false_extrema(few, morse(few), morse(few))[:2] == ((), ())


def test_the_excess_of_a_coarse_grid_is_not_judged():
    coarse = GRID[::10]
    assert not excess_energy(coarse, morse(coarse), morse(coarse) + bump(coarse, 0.2)).any()
    smooth = CubicSpline(GRID, morse(GRID))(GRID - 0.02)
    assert np.abs(excess_energy(GRID, morse(GRID), smooth)[40:]).max() < 0.02
