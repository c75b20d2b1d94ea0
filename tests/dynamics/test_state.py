"""Velocities, temperatures, random streams."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from sfumato.dynamics.state import (
    angular_momentum,
    freedoms,
    kinetic_energy,
    masses,
    maxwell_boltzmann,
    normals,
    stream_of,
    sums,
    temperature,
)
from sfumato.io import from_ase
from sfumato.systems import Batch
from sfumato.units import AMU_A2_PER_FS2, KELVIN

ETHANOL, CARBON_DIOXIDE = from_ase(molecule("CH3CH2OH")), from_ase(molecule("CO2"))
COPPER = from_ase(bulk("Cu", cubic=True))
BATCH = Batch.of([ETHANOL, CARBON_DIOXIDE, COPPER])


def test_units_agree_with_those_of_ase():
    from ase import units

    assert pytest.approx(1 / units.fs**2, rel=1e-6) == AMU_A2_PER_FS2
    assert pytest.approx(units.kB, rel=1e-6) == KELVIN


def test_degrees_of_freedom():
    assert freedoms(BATCH).tolist() == [3 * 9 - 6, 3 * 3 - 5, 3 * 4 - 3]
    assert freedoms(BATCH, thermostat=True).tolist() == [27, 9, 12]


def test_velocities_have_the_temperature_and_neither_momentum_nor_rotation():
    kelvin = np.array([500.0, 300.0, 1700.0])
    v = maxwell_boltzmann(BATCH, kelvin, np.array([stream_of(k) for k in range(3)]))
    assert temperature(kinetic_energy(BATCH, v), freedoms(BATCH)) == pytest.approx(kelvin, rel=1e-12)
    assert np.abs(sums(BATCH, masses(BATCH.numbers) * v)).max() < 1e-13
    assert np.abs(angular_momentum(BATCH, v)[:2]).max() < 1e-12
    assert np.abs(angular_momentum(BATCH, v)[2]).max() > 1e-3  # a crystal may; it cannot turn


def test_velocities_depend_on_their_own_stream_alone():
    stream = np.array([stream_of(0, "a"), stream_of(0, "b")])
    kelvin = np.array([300.0, 300.0])
    two = maxwell_boltzmann(Batch.of([ETHANOL, ETHANOL]), kelvin, stream)
    one = maxwell_boltzmann(Batch.of([ETHANOL]), kelvin[1:], stream[1:])
    assert (two[9:] == one).all()
    assert np.abs(two[:9] - two[9:]).max() > 1e-4


def test_every_component_holds_half_kT():
    """Of light and heavy ions over seeds: ⟨½mv²⟩ = ½kT (1 − m/M): the momentum is held."""
    salt = from_ase(bulk("LiI", "rocksalt", a=6.0, cubic=True))
    n, seeds = len(salt), 500
    v = maxwell_boltzmann(
        Batch.of([salt] * seeds),
        np.full(seeds, 500.0),
        np.array([stream_of("seed", k) for k in range(seeds)]),
    ).reshape(seeds, n, 3)
    mass = masses(salt.numbers)
    each = AMU_A2_PER_FS2 * mass * v**2 / (KELVIN * 500.0)
    for number in (3, 53):
        own = salt.numbers == number
        exact = 1 - mass[own][0, 0] / mass.sum()
        found = each[:, own].mean(axis=(1, 2))
        error = found.std(ddof=1) / np.sqrt(seeds)
        assert error < 0.03
        assert abs(found.mean() - exact) < 4 * error


@pytest.mark.parametrize("kelvin", [0.0, -1.0, np.nan])
def test_without_a_temperature_nothing_moves_and_that_is_said(kelvin):
    with pytest.raises(ValueError, match="temperature: must be more than 0 K"):
        maxwell_boltzmann(Batch.of([ETHANOL]), np.array([kelvin]), np.array([1]))


def test_random_numbers_are_functions_of_stream_and_step():
    a = normals(np.array([7, 8]), 5, np.array([3, 2]))
    assert (a[3:] == normals(np.array([8]), 5, np.array([2]))).all()
    assert not np.isin(a, normals(np.array([7, 8]), 6, np.array([3, 2]))).any()
    many = normals(np.arange(100), 1, np.full(100, 100)).ravel()
    assert abs(many.mean()) < 4 / np.sqrt(many.size)
    assert abs(many.std() - 1) < 4 / np.sqrt(2 * many.size)
