"""Broken and smooth potentials that nobody thought of: drawn at random, to see how many are caught."""

import numpy as np
import pytest

from sfumato.models.pair import LennardJones, Morse, PairPotential
from sfumato.potentials.adopted import adopted
from sfumato.testing import CHECKS, Settings
from sfumato.testing.contract import Contract
from tests import broken_potentials as broken
from tests.broken_potentials import Changed

BROKEN, SMOOTH = 120, 40
ELEMENTS = (1, 6, 7, 8)


def neighbor_dropped(rng):
    """Every k-th neighbor of an element is not felt, beyond a distance: a jump where it is crossed."""
    at, element = rng.uniform(1.8, 5.5), int(rng.choice(ELEMENTS))

    def change(batch, found):
        if batch.pbc.any():
            return found
        vectors = batch.positions[:, None] - batch.positions[None]
        r = np.linalg.norm(vectors, axis=-1) + 1e9 * np.eye(len(vectors))
        lost = (r > at) & (batch.numbers[:, None] == element) & (batch.numbers[None] == element)
        energy, slope = LennardJones()(np.where(lost, r, 1e6).ravel(), *(2 * [np.full(r.size, element)]))
        pull = (slope.reshape(r.shape) * lost / r)[:, :, None] * vectors
        return broken.replace(
            found,
            energy=found.energy - 0.1 * energy[lost.ravel()].sum() / 2,
            forces=found.forces + 0.1 * pull.sum(axis=1),
        )

    return Changed(change), f"neighbors of {element} dropped beyond {at:.2f} Å"


def wrong_sign(rng):
    """One component of the force on one element has the wrong sign."""
    axis, element = int(rng.integers(3)), int(rng.choice(ELEMENTS))

    def change(batch, found):
        forces = found.forces.copy()
        forces[batch.numbers == element, axis] *= -1
        return broken.replace(found, forces=forces)

    return Changed(change), f"sign of component {axis} of {element}"


def pair_step(rng):
    at, height = rng.uniform(1.7, 7.0), 10 ** rng.uniform(-4, 0)
    elements = tuple(int(z) for z in rng.choice(ELEMENTS, 2))
    return broken.pair_step(at, height, elements), f"pair {elements} at {at:.2f} Å by {height:.1e} eV"


def angle_step(rng):
    degrees, height = rng.uniform(65, 172), 10 ** rng.uniform(-4, 0)
    return broken.angle_step(degrees, height), f"angle {degrees:.0f}° by {height:.1e} eV"


def coordination_step(rng):
    count, at, height = int(rng.integers(3, 7)), rng.uniform(1.7, 3.5), 10 ** rng.uniform(-4, 0)
    return broken.coordination_step(
        count, at, height
    ), f"{count} neighbors within {at:.2f} Å by {height:.1e} eV"


KINDS = (pair_step, angle_step, coordination_step, neighbor_dropped, wrong_sign)


def smooth(rng):
    """Return a smooth pair potential of random depth, steepness and cutoff."""
    if rng.random() < 0.5:
        form = LennardJones(10 ** rng.uniform(-1, 1.5))
    else:
        form = Morse(10 ** rng.uniform(-1, 1), rng.uniform(1, 5))
    cutoff = rng.uniform(3.5, 8.0)
    return PairPotential("smooth", form, cutoff=cutoff, switch_from=rng.uniform(0.3, 0.75) * cutoff)


def first_broken(potential, seed):
    """Return the first required check that fails, or nothing."""
    contract = Contract(adopted(potential), Settings(seed=seed))
    return next((row.name for row in CHECKS if contract.result(row).breaks), "")


@pytest.mark.slow
def test_most_of_what_is_broken_at_random_is_caught():
    rng = np.random.default_rng(7)
    missed = []
    for k in range(BROKEN):
        potential, what = KINDS[k % len(KINDS)](rng)
        if not first_broken(potential, seed=k):
            missed.append(what)
    assert len(missed) <= 0.05 * BROKEN, missed


@pytest.mark.slow
def test_nothing_smooth_is_called_broken():
    rng = np.random.default_rng(8)
    assert [name for k in range(SMOOTH) if (name := first_broken(smooth(rng), seed=k))] == []
