"""Potentials with known dynamics: atoms on springs, free atoms, a rigid wall of numbers that end."""

from functools import lru_cache

import numpy as np
from ase.cluster import Icosahedron

from sfumato.dynamics.relax import relax
from sfumato.io import from_ase
from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, Prediction, System


class Springs(Potential):
    """Every atom on a spring to the origin: E = ½ k Σ x²; exact dynamics are sines.

    Args:
        constant: k in eV/Å²; 0 for free atoms.
    """

    abilities = Abilities(batch=64, periodic=True, dtype="float64")

    def __init__(self, constant: float = 5.0):
        self.constant = constant
        self.name = self.identity = f"springs {constant:g}"

    def compute(self, batch):
        energy = 0.5 * self.constant * (batch.positions**2).sum(axis=1)
        return Prediction(
            np.bincount(batch.index, energy, minlength=len(batch)), -self.constant * batch.positions
        )


def lone(count=1, number=6, x=1.0):
    """`count` replicas of one atom on the x axis."""
    return Batch.of([System([number], [[x, 0.0, 0.0]])] * count)


@lru_cache
def at_rest(potential, first=18, size=13):
    """Argon atoms at the minimum of a potential, the first another element; 2 fs resolve their motion."""
    atoms = Icosahedron("Ar", 2)[:size]
    atoms.positions *= 2.12 / 3.62
    atoms.numbers[0] = first
    found = relax(potential, Batch.of([from_ase(atoms)]), force=1e-3, steps=2000)
    assert found.force[0] <= 1e-3
    return next(iter(found.batch))
