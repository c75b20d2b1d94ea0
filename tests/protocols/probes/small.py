"""Probes of a size for quick tests, and potentials with one planted fault each."""

from dataclasses import replace

import numpy as np

from sfumato.io import write_systems
from sfumato.models.pair import PAIRS
from sfumato.protocols.probes import settings as module
from sfumato.protocols.probes.settings import Size
from sfumato.systems import Prediction, System
from sfumato.testing import structures
from tests import broken_potentials as broken
from tests.broken_potentials import Changed

TINY = Size(
    pairs=2,
    triples=1,
    bends=1,
    lumps=1,
    clusters=1,
    centers=1,
    bonds=1,
    walks=1,
    squeezed=3,
    places=3,
    gradients=2,
    diatomics=2,
)

METHANOL = System(
    [6, 8, 1, 1, 1, 1],
    [
        [-0.05, 0.66, 0.01],
        [-0.05, -0.76, 0.00],
        [0.98, 1.02, 0.02],
        [-0.55, 1.05, 0.89],
        [-0.58, 1.02, -0.86],
        [0.87, -1.07, -0.03],
    ],
)


def tiny(monkeypatch):
    """Make `dev` as small as it can be."""
    monkeypatch.setitem(module.SIZES, "dev", TINY)


def two_molecules(path):
    """Write methanol and formamide as a file of the user's."""
    write_systems(path, [METHANOL, structures.molecule((1, 6, 7, 8))])
    return path


def _pairs(batch, at):
    """Return atoms (P,) i and j, unit vectors and distances of the pairs closer than a distance."""
    i, j = np.triu_indices(len(batch.numbers), 1)
    gaps = batch.positions[i] - batch.positions[j]
    r = np.linalg.norm(gaps, axis=1)
    near = (r < at) & (r > 0)
    return i[near], j[near], gaps[near] / r[near, None], r[near]


def pair_term(at, term):
    """Add a pair energy inside a distance: term(r) gives eV and −dE/dr in eV/Å."""

    def change(batch, found):
        i, j, arms, r = _pairs(batch, at)
        energy, push = term(r)
        forces = found.forces.copy()
        np.add.at(forces, i, push[:, None] * arms)
        np.add.at(forces, j, -push[:, None] * arms)
        return Prediction(found.energy + energy.sum(), forces)

    return Changed(change)


def spring(at, stiffness):
    """A spring that begins at a distance: the force is continuous, its slope is not."""
    return pair_term(at, lambda r: (stiffness / 2 * (at - r) ** 2, stiffness * (at - r)))


def hole(at, width=0.06, depth=400.0):
    """A well in the repulsive wall, centered at a distance."""

    def term(r):
        bell = depth * np.exp(-(((r - at) / width) ** 2))
        return -bell, -bell * 2 * (r - at) / width**2

    return pair_term(at + 6 * width, term)


def wrong_component(element, axis):
    """One component of the force on one element has the wrong sign."""

    def change(batch, found):
        forces = found.forces.copy()
        forces[batch.numbers == element, axis] *= -1
        return replace(found, forces=forces)

    return Changed(change)


FAULTS = {
    "hard cutoff": PAIRS["lj-hard-cutoff"],
    "hard neighbor cap": PAIRS["lj-neighbor-cap"],
    "C1 kink": spring(2.6, 5.0),
    "step of 1e-5 eV": broken.pair_step(3.3, 1e-5),
    "hole at 0.5 Å": hole(0.5),
    "force off by 1 %": Changed(lambda batch, found: replace(found, forces=1.01 * found.forces)),
    "direct noise": PAIRS["lj-direct-noise"],
    "wrong component": wrong_component(6, 2),
}
