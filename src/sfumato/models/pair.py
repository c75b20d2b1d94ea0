"""Pair potentials with analytic forces: smooth ones that must pass every test, broken ones that must not.

A pair potential is a form φ(r), a way to end it, and for the negative controls one defect. Energies are
E = ½ Σ_(i,j) φ(r_ij) over directed pairs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from scipy.special import expit

from sfumato.graph.neighbors import Pairs, neighbor_pairs
from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, Floats, Ints, Prediction, digest
from sfumato.units import BOHR, HARTREE

LAST_ELEMENT = 96
"""Curium, the last one whose covalent radius is known (Cordero et al. 2008)."""

ABILITIES = Abilities(batch=64, elements=frozenset(range(1, LAST_ELEMENT + 1)), periodic=True, stress=True)

SAME_PLACE = 1e-9
"""Å; closer than this, r⁻¹² runs out of numbers."""


class Form(Protocol):
    """A pair energy as a function of distance and elements."""

    def __call__(self, r: Floats, zi: Ints, zj: Ints) -> tuple[Floats, Floats]:
        """Return φ (eV) and dφ/dr (eV/Å) at distances r (Å) between elements zi and zj."""
        ...


def bond_length(zi: Ints, zj: Ints) -> Floats:
    """Return the sum of two covalent radii in Å, where Lennard-Jones and Morse have their minimum."""
    total: Floats = covalent_radii[zi] + covalent_radii[zj]
    return total


@dataclass(frozen=True)
class LennardJones:
    """φ = ε [(r₀/r)¹² − 2 (r₀/r)⁶]: depth ε at r₀, the sum of covalent radii.

    Args:
        depth: ε in eV.
    """

    depth: float = 1.0

    def __call__(self, r: Floats, zi: Ints, zj: Ints) -> tuple[Floats, Floats]:
        """See Form."""
        s = (bond_length(zi, zj) / r) ** 6
        return self.depth * (s * s - 2 * s), -12 * self.depth * (s * s - s) / r


@dataclass(frozen=True)
class Morse:
    """φ = D [(1 − e^{−a(r − r₀)})² − 1]: depth D at r₀, the sum of covalent radii.

    Args:
        depth: D in eV.
        steepness: a in 1/Å.
    """

    depth: float = 4.0
    steepness: float = 2.0

    def __call__(self, r: Floats, zi: Ints, zj: Ints) -> tuple[Floats, Floats]:
        """See Form."""
        x = np.exp(-self.steepness * (r - bond_length(zi, zj)))
        return self.depth * (x * x - 2 * x), -2 * self.depth * self.steepness * (x * x - x)


@dataclass(frozen=True)
class ZBL:
    """φ = (Z_i Z_j e²/4πε₀ r) Σ_k c_k e^{−d_k r/a}: the universal screened repulsion of two nuclei.

    Source: Ziegler, Biersack & Littmark 1985, with a = 0.8854 a₀ / (Z_i^0.23 + Z_j^0.23).
    """

    WEIGHTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
    RATES = np.array([3.19980, 0.94229, 0.40290, 0.20162])

    def __call__(self, r: Floats, zi: Ints, zj: Ints) -> tuple[Floats, Floats]:
        """See Form."""
        length = 0.8854 * BOHR / (zi**0.23 + zj**0.23)
        terms = self.WEIGHTS * np.exp(-self.RATES * (r / length)[:, None])
        coulomb = zi * zj * HARTREE * BOHR / r
        energy = coulomb * terms.sum(axis=1)
        return energy, -energy / r - coulomb * (terms * self.RATES).sum(axis=1) / length


def switch(r: Floats, start: float, end: float) -> tuple[Floats, Floats]:
    """Return a function that goes from 1 to 0 between two distances, and its derivative.

    With t from 0 at `start` to 1 at `end`, S = σ(1/t − 1/(1 − t)): infinitely often differentiable, all
    derivatives vanishing at both ends.

    Args:
        r: (P,) Å.
        start: Å; S is exactly 1 up to here.
        end: Å; S is exactly 0 from here on.
    """
    t = (r - start) / (end - start)
    inside = (t > 0) & (t < 1)  # smooth: both branches meet with all derivatives zero
    u = np.where(inside, t, 0.5)
    s = expit(1 / u - 1 / (1 - u))
    slope = -s * (1 - s) * (1 / u**2 + 1 / (1 - u) ** 2) / (end - start)
    return np.where(inside, s, np.where(t < 0.5, 1.0, 0.0)), np.where(inside, slope, 0.0)


@dataclass(frozen=True)
class PairPotential(Potential):
    """A pair form with a cutoff, on any batch.

    Args:
        name: for tables.
        form: the pair energy.
        cutoff: Å.
        switch_from: Å, where the smooth switch to zero begins; None truncates: a hard cutoff, where the
            energy jumps by φ(cutoff) (negative control).
        neighbors: each atom feels only its nearest so many neighbors: the energy jumps when two of them
            swap (negative control); None for all.
        noise: eV/Å, amplitude of a force field added to the true forces that is not a gradient (negative
            control): A sin(κ Σ_j S r_ij) n_i / √(1 + |n_i|²) with n_i = Σ_j S r̂_ij, κ = 20 /Å and S the
            switch. It is a function of the geometry alone, and turns with it.
    """

    name: str
    form: Form
    cutoff: float = 6.0
    switch_from: float | None = 4.0
    neighbors: int | None = None
    noise: float = 0.0
    abilities: ClassVar[Abilities] = ABILITIES

    @property
    def identity(self) -> str:
        """SHA-256 of form and settings."""
        settings = {key: value for key, value in asdict(self).items() if key != "form"}
        settings["neighbours"] = settings.pop("neighbors")  # as records of version 0.1.0 spell it
        return digest(["pair 1", repr(self.form), repr(sorted(settings.items()))])

    def compute(self, batch: Batch) -> Prediction:
        """Return energies, forces and, where every system is periodic in all directions, stress.

        Raises:
            ValueError: two atoms at the same place, or an element without a covalent radius.
        """
        if (batch.numbers > LAST_ELEMENT).any():
            unknown = chemical_symbols[batch.numbers.max()]
            raise ValueError(f"{self.name} has no parameters for {unknown}; it knows H to Cm")
        pairs = neighbor_pairs(batch, self.cutoff)
        vectors = pairs.vectors(batch)
        r = np.linalg.norm(vectors, axis=1)
        if (r < SAME_PLACE).any():
            k = int(np.argmin(r))
            first = batch.offsets[batch.index[pairs.i[k]]]  # `predict` finds out which structure it is
            raise ValueError(
                f"{self.name}: atoms {pairs.i[k] - first} and {pairs.j[k] - first} are at the same place"
            )
        if self.neighbors is not None:
            keep = _nearest(pairs.i, r, self.neighbors)
            pairs, vectors, r = Pairs(pairs.i[keep], pairs.j[keep], pairs.shift[keep]), vectors[keep], r[keep]
        phi, slope = self.form(r, batch.numbers[pairs.i], batch.numbers[pairs.j])
        s, ds = self._switch(r)
        phi, slope = 0.5 * phi * s, 0.5 * (slope * s + phi * ds)
        n = len(batch.numbers)
        unit = vectors / r[:, None]
        pull = slope[:, None] * unit
        forces = _sum(pairs.i, pull, n) - _sum(pairs.j, pull, n)
        if self.noise:
            forces = forces + self._noise(pairs, s, r, unit, n)
        energy = np.bincount(batch.index[pairs.i], phi, minlength=len(batch)).astype(float)
        return Prediction(energy, forces, self._stress(batch, pairs, pull, vectors))

    def _switch(self, r: Floats) -> tuple[Floats, Floats]:
        if self.switch_from is None:
            return np.ones_like(r), np.zeros_like(r)
        return switch(r, self.switch_from, self.cutoff)

    def _noise(self, pairs: Pairs, s: Floats, r: Floats, unit: Floats, n: int) -> Floats:
        direction = _sum(pairs.i, s[:, None] * unit, n)
        phase = np.bincount(pairs.i, s * r, minlength=n)
        size = np.sqrt(1 + (direction**2).sum(axis=1))
        field: Floats = self.noise * (np.sin(20.0 * phase) / size)[:, None] * direction
        return field

    @staticmethod
    def _stress(batch: Batch, pairs: Pairs, pull: Floats, vectors: Floats) -> Floats | None:
        if not batch.pbc.all():
            return None
        virial = np.zeros((len(batch), 3, 3))
        np.add.at(virial, batch.index[pairs.i], pull[:, :, None] * vectors[:, None, :])
        stress: Floats = virial / np.abs(np.linalg.det(batch.cell))[:, None, None]
        return stress


def _sum(index: Ints, rows: Floats, n: int) -> Floats:
    """Add up (P, 3) rows by atom."""
    return np.stack([np.bincount(index, rows[:, k], minlength=n) for k in range(3)], axis=1)


def _nearest(i: Ints, r: Floats, count: int) -> Ints:
    """Return which pairs are among the `count` shortest of their first atom."""
    order = np.lexsort((r, i))
    starts = np.searchsorted(i[order], i[order])
    kept: Ints = order[np.arange(len(order)) - starts < count]
    return kept


PAIRS: dict[str, PairPotential] = {
    potential.name: potential
    for potential in (
        PairPotential("lj", LennardJones()),
        PairPotential("morse", Morse()),
        PairPotential("lj-hard-cutoff", LennardJones(), cutoff=2.5, switch_from=None),
        PairPotential("lj-neighbor-cap", LennardJones(), neighbors=3),
        PairPotential("lj-direct-noise", LennardJones(), noise=0.1),
    )
}
"""The named pair potentials: two smooth ones and three negative controls."""
