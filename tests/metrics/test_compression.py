"""Walls that rise, walls with holes, and the three checks of a compression."""

import numpy as np
import pytest

from sfumato.metrics.compression import CORE, Checks, checks, deepest_hole, repulsion, wall_start
from sfumato.protocols.probes.data import reference_curves
from sfumato.testing.structures import bond

R = np.linspace(1.0, 0.03, 60)


def test_a_wall_passes_all_three_checks_and_has_no_hole():
    found = checks(1 / CORE, 1 / CORE**2)
    assert found == Checks(True, True, True)
    assert found.passed
    assert deepest_hole(R, 1 / R, 1e-3) is None


def test_each_check_fails_alone():
    energy, push = 1 / CORE, 1 / CORE**2
    assert checks(np.where(CORE < 0.1, 5.0, energy), push) == Checks(False, True, True)
    assert checks(energy, np.minimum(push, 20.0)) == Checks(True, False, True)
    assert checks(energy, push - 2 * push[-1]) == Checks(True, True, False)


def test_a_compression_with_a_gap_is_not_judged():
    with pytest.raises(ValueError, match="finite energy and force at every distance"):
        checks(np.where(CORE < 0.1, np.nan, 1 / CORE), 1 / CORE**2)


def test_the_deepest_hole_has_depth_place_and_barrier():
    energy = 10 / R - 60 * np.exp(-(((R - 0.5) / 0.05) ** 2))
    hole = deepest_hole(R, energy, 1e-3)
    assert hole.place == pytest.approx(0.5, abs=0.03)
    assert hole.depth == pytest.approx(57, abs=3)
    assert hole.barrier_place > hole.place
    assert hole.barrier == pytest.approx(10 / hole.barrier_place - 10, abs=1.0)
    assert not hole.open


def test_an_energy_that_falls_to_the_end_is_an_open_hole():
    hole = deepest_hole(R, -1 / R, 1e-3)
    assert hole.open
    assert (hole.place, hole.barrier) == (0.03, 0.0)


def test_a_bond_that_is_shorter_than_was_thought_is_no_hole():
    energy = (0.9 / R) ** 12 - 2 * (0.9 / R) ** 6  # the scan begins at 1 Å
    assert deepest_hole(R, energy, 1e-3) is None
    far = (0.6 / R) ** 12 - 2 * (0.6 / R) ** 6
    assert deepest_hole(R, far, 1e-3).place == pytest.approx(0.6, abs=0.02)


def test_gaps_noise_and_rounding_are_no_holes():
    energy = 1 / R
    energy[20:30] = np.nan
    assert deepest_hole(R, energy, 1e-3) is None
    assert deepest_hole(R, 1 / R + 1e-4 * (-1) ** np.arange(60), 1e-1) is None
    huge = (1e6 / R).astype(np.float32).astype(float)
    huge[-1] = huge[-2] - np.spacing(np.float32(huge[-2]))
    assert deepest_hole(R, huge, 1e-9) is None
    assert deepest_hole(R[:1], R[:1], 1e-3) is None


def test_repulsion_is_half_of_what_drives_two_atoms_apart():
    forces = np.array([[[3.0, 1, 0], [-1.0, 1, 0]], [[-3.0, 0, 0], [3.0, 0, 0]]])
    np.testing.assert_allclose(repulsion(forces, np.array([1.0, 0, 0])), [2.0, -3.0])


@pytest.mark.parametrize(
    ("pair", "length"),
    [((1, 1), 0.741), ((6, 8), 1.128), ((1, 9), 0.917), ((7, 7), 1.098), ((16, 8), 1.481), ((5, 9), 1.263)],
)
def test_the_wall_begins_inside_known_bonds(pair, length):
    curves = reference_curves()
    scales = [curves[z].distances[np.argmin(curves[z].energy)] / bond(z, z) for z in pair]
    start = wall_start(bond(*pair), min(scales), pair[0] == pair[1])
    assert 0.6 * length < start < 0.985 * length
    assert wall_start(1.5, None, True) == pytest.approx(1.05)
