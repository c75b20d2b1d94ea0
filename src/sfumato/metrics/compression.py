"""Whether atoms that are pressed together repel each other, ever harder, all the way; and how deep holes are.

Source: Geng, Burger, Bernales & Aspuru-Guzik 2026, "Attracting Trouble?": thirty distances from 0.30 to
0.03 Å; the energy rises from each to the next, so does the repulsion, and the last one is repulsive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sfumato.systems import Floats

CORE = np.linspace(0.30, 0.03, 30)
"""Å, distances at which the three checks are made."""


@dataclass(frozen=True)
class Checks:
    """The three checks of a compression from 0.30 to 0.03 Å.

    Args:
        energy: the energy rises from each distance to the next.
        force: the repulsion does.
        repulsive: the atoms repel each other at the last distance.
    """

    energy: bool
    force: bool
    repulsive: bool

    @property
    def passed(self) -> bool:
        """Whether all three hold."""
        return self.energy and self.force and self.repulsive


def repulsion(forces: Floats, arm: Floats) -> Floats:
    """Return (P,) eV/Å, half of how hard two atoms push each other apart: ½ (F_i − F_j)·r̂.

    Args:
        forces: (P, 2, 3) eV/Å on atoms i and j.
        arm: (3,) r̂ from j to i.
    """
    push: Floats = 0.5 * (forces[:, 0] - forces[:, 1]) @ arm
    return push


def checks(energy: Floats, push: Floats) -> Checks:
    """Return the three checks of a compression.

    Args:
        energy: (P,) eV at falling distances.
        push: (P,) eV/Å, from `repulsion`.

    Raises:
        ValueError: a number that is not finite: nothing is known of such a compression.
    """
    if not (np.isfinite(energy).all() and np.isfinite(push).all()):
        raise ValueError("a compression needs a finite energy and force at every distance")
    return Checks(bool((np.diff(energy) > 0).all()), bool((np.diff(push) > 0).all()), bool(push[-1] > 0))


@dataclass(frozen=True)
class Hole:
    """A place in a repulsive wall where the energy falls as atoms come closer.

    Args:
        depth: eV, from the barrier before it down to the bottom.
        place: Å, distance at the bottom.
        barrier: eV, height of the barrier above the start of the scan.
        barrier_place: Å.
        open: whether the bottom is the last distance, so that nothing holds the atoms apart.
    """

    depth: float
    place: float
    barrier: float
    barrier_place: float
    open: bool


def deepest_hole(distances: Floats, energy: Floats, noise: float) -> Hole | None:
    """Return the deepest hole of a wall; None where the energy only rises.

    Args:
        distances: (P,) Å, falling from where the atoms begin to repel each other.
        energy: (P,) eV; NaN where nothing is known.
        noise: eV; what falls by less is none. The rounding of large energies to single precision, which
            also falls, is none either.
    """
    known = np.isfinite(energy)
    r, e = distances[known], energy[known]
    if len(e) < 2:
        return None
    top = np.maximum.accumulate(e)
    fall = top - e
    k = int(np.argmax(fall))
    least = max(noise, 4 * float(np.spacing(np.float32(np.abs(e).max(initial=0.0)))))
    if not fall[k] > least:
        return None
    barrier = int(np.argmax(e[: k + 1]))
    depth, height = float(fall[k]), float(e[barrier] - e[0])
    return Hole(depth, float(r[k]), height, float(r[barrier]), k == len(e) - 1)


def wall_start(bond: float, shortest: float = math.inf) -> float:
    """Return the distance in Å inside which the energy of two atoms must rise.

    Args:
        bond: Å, the sum of their covalent radii; multiple bonds of main-group elements are no shorter than
            0.77 of it.
        shortest: Å, their shortest bond, where it is known.
    """
    return min(0.7 * bond, 0.92 * shortest)
