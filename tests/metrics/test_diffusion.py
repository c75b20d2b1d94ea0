"""Diffusivity: straight motion and random walks whose diffusivity is known; activation energies by hand."""

import numpy as np
import pytest

from sfumato.metrics.diffusion import arrhenius, block_diffusivities, mean_of_blocks, squared_displacement
from sfumato.units import KELVIN


def test_squared_displacement_by_hand():
    positions = np.zeros((3, 2, 3))
    positions[:, 0, 0] = [0, 2, 4]
    positions[:, 1, 0] = [0, -2, -4]
    assert squared_displacement(positions, 1) == pytest.approx(8)
    assert squared_displacement(positions, 2) == pytest.approx(32)
    positions += np.arange(3)[:, None, None] * 7.0  # the whole drifts
    assert squared_displacement(positions, 1) == pytest.approx(8)


def test_a_random_walk_has_its_diffusivity():
    """Steps of variance 6D·dt/3 along each axis; one walker among atoms that vibrate."""
    rng = np.random.default_rng(0)
    true, spacing = 0.5, 0.1
    positions = rng.normal(0, 0.1, size=(20000, 8, 3))
    positions[:, 0] += np.cumsum(rng.normal(0, np.sqrt(2 * true * spacing), size=(20000, 3)), axis=0)
    values = block_diffusivities(positions, spacing, 20)
    found = mean_of_blocks(values)
    assert found.low < true * 7 / 8 < found.high  # an eighth goes with the mean that is taken off
    assert found.mean == pytest.approx(true * 7 / 8, rel=0.2)


def test_nothing_moves():
    rng = np.random.default_rng(0)
    found = mean_of_blocks(block_diffusivities(rng.normal(0, 0.1, size=(1000, 4, 3)), 0.1, 5))
    assert found.low < 0 < found.high


def test_trajectories_that_are_too_short():
    with pytest.raises(ValueError, match="30 frames are too few for 2 blocks of twenty"):
        block_diffusivities(np.zeros((30, 1, 3)), 0.1, 2)
    with pytest.raises(ValueError, match="spacing: must be positive"):
        block_diffusivities(np.zeros((60, 1, 3)), 0.0, 2)


def test_the_interval_of_blocks_by_hand():
    found = mean_of_blocks(np.array([1.0, 3.0]))
    assert (found.mean, found.low) == pytest.approx(
        (2.0, 2 - 12.706 * 1.0), abs=1e-3
    )  # t(1) = 12.706, s/√2 = 1
    assert np.isnan(mean_of_blocks(np.array([1.0])).low)


def test_an_activation_energy_by_hand():
    def diffusivity(kelvin):
        return 3.0 * np.exp(-0.4 / (KELVIN * kelvin))

    rng = np.random.default_rng(0)
    blocks = {k: diffusivity(k) * rng.normal(1, 0.05, size=20) for k in (900.0, 1100.0, 1300.0)}
    found = arrhenius(blocks)
    assert found.energy.low < 0.4 < found.energy.high
    assert found.energy.mean == pytest.approx(0.4, abs=0.03)
    exact = arrhenius({k: np.array([diffusivity(k)]) for k in (900.0, 1300.0)})
    assert (exact.energy.mean, exact.prefactor) == pytest.approx((0.4, 3.0))
    assert np.isnan(exact.energy.low)
    assert arrhenius({900.0: np.array([-1.0]), 1000.0: np.array([1.0])}) is None
