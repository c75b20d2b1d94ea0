"""Numbers of curves of two atoms, on curves where they are known, and against an independent reading."""

from itertools import pairwise

import numpy as np
import pytest

from sfumato.metrics.diatomics import (
    energy_flips,
    energy_jump,
    force_flips,
    tortuosity,
    well,
    window,
)

R = np.linspace(0.8, 5.0, 43)


def morse(r, depth=2.0, at=1.3):
    x = np.exp(-2 * (r - at))
    return depth * (x * x - 2 * x), 4 * depth * (x * x - x)


def test_one_well_turns_once():
    energy, force = morse(R)
    assert tortuosity(energy) == pytest.approx(1)
    assert energy_flips(energy) == force_flips(force) == 1
    k = int(np.argmin(energy))
    assert energy_jump(energy) == pytest.approx(energy[k - 1] + energy[k + 1] - 2 * energy[k])


def test_a_bump_counts_in_every_number():
    bump = 0.5 * np.exp(-(((R - 3) / 0.2) ** 2))
    energy = morse(R)[0] + bump
    force = morse(R)[1] + bump * 2 * (R - 3) / 0.2**2
    assert energy_flips(energy) == 3
    assert force_flips(force) == 3
    assert tortuosity(energy) > 1.1
    assert energy_jump(energy) > energy_jump(morse(R)[0])


def test_flips_below_the_threshold_are_none():
    energy = 3 - R + 4e-4 * (-1) ** np.arange(len(R))
    assert energy_flips(energy[:1]) == 0
    assert energy_flips(4e-4 * (-1.0) ** np.arange(9)) == 0
    assert force_flips(5e-3 * (-1.0) ** np.arange(9)) == 0


def test_a_flat_curve_has_no_tortuosity():
    assert np.isnan(tortuosity(np.ones(5)))


def test_the_numbers_are_those_of_a_plain_reading_of_their_definitions():
    energy = np.cumsum(np.random.default_rng(3).normal(size=50))
    steps = [b - a for a, b in pairwise(energy) if abs(b - a) >= 1e-3]
    turns = [(a, b) for a, b in pairwise(steps) if a * b < 0]
    assert energy_flips(energy) == len(turns)
    assert energy_jump(energy) == pytest.approx(sum(abs(a) + abs(b) for a, b in turns))


def test_the_well_is_found_between_the_samples():
    found = well(R, morse(R)[0])
    assert found.place == pytest.approx(1.3, abs=0.02)  # 0.1 Å apart
    assert found.depth == pytest.approx(2.0 + morse(5.0)[0], abs=1e-2)
    assert np.isnan(well(R, 1 / R).place)


def test_the_window_is_element_by_element():
    assert window(1, 6.0) == pytest.approx((0.279, 3.72))
    assert window(55, 6.0)[1] == 6.0
