"""Potentials with known dynamics: atoms on springs, free atoms, a rigid wall of numbers that end."""

import numpy as np

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
