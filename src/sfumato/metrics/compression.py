"""Whether atoms that are pressed together repel each other, ever harder, all the way; and how deep holes are.

Source: Geng, Burger, Bernales & Aspuru-Guzik 2026, "Attracting Trouble?": thirty distances from 0.30 to
0.03 Å; the energy rises from each to the next, so does the repulsion, and the last one is repulsive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.systems import Floats

CORE = np.linspace(0.30, 0.03, 30)
"""Å, distances at which the three checks are made."""


STILL_BOUND = 0.75
"""Of the first distance; the energy may fall to here before it must rise."""


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

    A fall right from the start that ends soon is the well of a bond that is shorter than was thought.

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
    first = int(np.argmax(np.append(np.diff(e) > 0, True)))
    if r[first] >= STILL_BOUND * r[0]:
        r, e = r[first:], e[first:]
    fall = np.maximum.accumulate(e) - e
    rounding = np.spacing(np.maximum.accumulate(np.abs(e)).astype(np.float32)).astype(float)
    fall = np.where(fall > np.maximum(noise, 4 * rounding), fall, 0.0)
    k = int(np.argmax(fall))
    if not fall[k] > 0:
        return None
    barrier = int(np.argmax(e[: k + 1]))
    depth, height = float(fall[k]), float(e[barrier] - e[0])
    return Hole(depth, float(r[k]), height, float(r[barrier]), k == len(e) - 1)


def wall_start(bond: float, scale: float | None, alike: bool) -> float:
    """Return the distance in Å inside which the energy of two atoms must rise.

    Args:
        bond: Å, the sum of their covalent radii.
        scale: of the bonds of two like atoms over the sum of their radii, the smaller one of both elements;
            None where it is not known. Of unlike atoms none is a tenth shorter than that: CO is the closest.
        alike: whether the two atoms are of one element, so that the scale says where their bond is.
    """
    if scale is None:
        return 0.7 * bond
    return 0.92 * scale * bond if alike else 0.88 * min(scale, 1.0) * bond
