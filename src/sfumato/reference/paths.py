"""Paths through structures: straight or around an axis, and which distances change on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from ase.data import chemical_symbols
from scipy.spatial.transform import Rotation

from sfumato.systems import Floats, Ints, System

IMAGES = 4
"""Cells to either side whose atoms are near enough to be at a cutoff."""


class Path(Protocol):
    """Structures along one parameter s in Å."""

    def at(self, s: float) -> System:
        """Return the structure at s."""
        ...

    def tangent(self, s: float) -> Floats:
        """Return (N, 3) dr/ds, without a unit."""
        ...


@dataclass(frozen=True)
class Line:
    """A straight line through structures: base + s · direction.

    Args:
        base: the structure at s = 0.
        direction: (N, 3); mostly every atom that moves does so by one Å for each Å of s.
    """

    base: System
    direction: Floats

    def at(self, s: float) -> System:
        """See `Path`."""
        return replace(self.base, positions=self.base.positions + s * self.direction)

    def tangent(self, s: float) -> Floats:
        """See `Path`."""
        return self.direction


@dataclass(frozen=True)
class Turn:
    """Some atoms turn around an axis: an angle or a torsion.

    Args:
        base: the structure at s = 0.
        turning: numbers of the atoms.
        pivot: (3,) Å, on the axis.
        axis: (3,), of length 1.
        radius: Å, of the circle on which s is measured.
    """

    base: System
    turning: Ints
    pivot: Floats
    axis: Floats
    radius: float

    def at(self, s: float) -> System:
        """See `Path`."""
        positions = self.base.positions.copy()
        turn = Rotation.from_rotvec(s / self.radius * self.axis)
        positions[self.turning] = self.pivot + turn.apply(positions[self.turning] - self.pivot)
        return replace(self.base, positions=positions)

    def tangent(self, s: float) -> Floats:
        """See `Path`."""
        tangent = np.zeros_like(self.base.positions)
        arms = self.at(s).positions[self.turning] - self.pivot
        tangent[self.turning] = np.cross(self.axis, arms) / self.radius
        return tangent


def moving_distances(path: Path, s: float) -> tuple[Floats, Ints, Ints]:
    """Return the distances in Å between atoms that move relative to each other, and both atoms of each."""
    here, tangent = path.at(s), path.tangent(s)
    i, j = np.triu_indices(len(here), 1)
    moves = np.abs(tangent[i] - tangent[j]).max(axis=1) > 1e-12
    i, j = i[moves], j[moves]
    return np.linalg.norm(here.positions[i] - here.positions[j], axis=1), i, j


def image_distances(path: Path, s: float) -> Floats:
    """Return the distances in Å between atoms that move relative to each other, of all images nearby."""
    here, tangent = path.at(s), path.tangent(s)
    i, j = np.triu_indices(len(here), 1)
    moves = np.abs(tangent[i] - tangent[j]).max(axis=1) > 1e-12
    gaps = (here.positions[i] - here.positions[j])[moves]
    reach = [np.arange(-IMAGES, IMAGES + 1) if periodic else np.zeros(1) for periodic in here.pbc]
    shifts = np.stack(np.meshgrid(*reach), axis=-1).reshape(-1, 3) @ here.cell
    distances: Floats = np.linalg.norm(gaps[:, None] + shifts, axis=-1).ravel()
    return distances


def pair_name(base: System, i: int, j: int) -> str:
    """Return the elements of two atoms, for example "C–H"."""
    return "–".join(chemical_symbols[base.numbers[k]] for k in (i, j))
