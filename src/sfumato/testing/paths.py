"""Paths as atoms fly or are pushed at random, and how far one can go on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from sfumato.models.pair import bond_length
from sfumato.reference.paths import Line, Path
from sfumato.reference.swaps import ROOM
from sfumato.systems import Floats, Ints, System
from sfumato.testing import structures

NEAREST = 1.5
"""Å; no closer than this to another part that was farther away, for electrons that have to converge."""

FREE, LONGEST = 1.2, 2.0
"""Å; a part of a cluster is moved by this much at least, if any has the room, and at most."""

DIRECTIONS = 64
"""Tried for each part."""

WARM = 0.026 * 1000 / 300
"""eV, k_B T of the velocities of `flight`: 1000 K, so that atoms leave their wells."""

BEND = 6.0
"""1/Å; what bends the path of an atom more than this would throw it out within 0.3 Å."""


@dataclass(frozen=True)
class Flight:
    """A short piece of dynamics: r + v s + a s²/2.

    Args:
        base: the structure at s = 0.
        velocity: (N, 3); the fastest atom has 1.
        acceleration: (N, 3) 1/Å, in the same unit of time.
    """

    base: System
    velocity: Floats
    acceleration: Floats

    def at(self, s: float) -> System:
        """See `Path`."""
        positions = self.base.positions + s * self.velocity + s**2 / 2 * self.acceleration
        return structures.moved(self.base, positions)

    def tangent(self, s: float) -> Floats:
        """See `Path`."""
        return self.velocity + s * self.acceleration


def flight(base: System, forces: Floats, rng: np.random.Generator) -> Flight:
    """Return the motion of a structure with thermal velocities under the force it has.

    In a structure far from its minimum the force is weakened, so that atoms go where they head.
    """
    mass = atomic_masses[base.numbers][:, None]
    velocity = rng.normal(size=base.positions.shape) * np.sqrt(WARM / mass)
    fastest = float(np.linalg.norm(velocity, axis=1).max())
    acceleration = forces / mass / fastest**2
    strongest = float(np.linalg.norm(acceleration, axis=1).max())
    return Flight(base, velocity / fastest, acceleration * min(1.0, BEND / max(strongest, BEND)))


def push(base: System, rng: np.random.Generator) -> Line:
    """Return a straight line in a random direction of all atoms; the farthest goes one Å for each of s."""
    direction = rng.normal(size=base.positions.shape)
    return Line(base, direction / np.linalg.norm(direction, axis=1).max())


def span(path: Path, longest: float) -> float:
    """Return how far in Å a path can be gone both ways before atoms come too close, at most `longest`."""
    start = path.at(0.0)
    if len(start) < 2:
        return longest
    i, j = np.triu_indices(len(start), 1)
    around = [np.arange(-1, 2) if periodic else np.zeros(1) for periodic in start.pbc]
    images = np.stack(np.meshgrid(*around), axis=-1).reshape(-1, 1, 3) @ start.cell

    def distances(positions: Floats) -> Floats:
        gaps: Floats = np.linalg.norm(positions[i] - positions[j] + images, axis=-1)
        return gaps

    bonds = bond_length(start.numbers[i], start.numbers[j])
    allowed = np.minimum(0.75 * bonds, 0.9 * distances(start.positions))
    for length in np.linspace(longest, 0.1 * longest, 10):
        for s in np.linspace(-length, length, 9):
            if (distances(path.at(float(s)).positions) < allowed).any():
                break
        else:
            return float(length)
    return 0.1 * longest


def sliding(base: System, parts: Sequence[Ints], rng: np.random.Generator) -> tuple[Line, float]:
    """Return a path on which one part of a cluster has room to move, and its length in Å.

    The innermost part that can go `FREE` is taken, since the order of many neighbors changes around it.
    """
    arms = rng.normal(size=(DIRECTIONS, 3))
    arms /= np.linalg.norm(arms, axis=1)[:, None]
    best: tuple[float, Ints, Floats] = (-1.0, parts[0], arms[0])
    for part in parts:
        length, arm = max(((_room(base, part, arm), arm) for arm in arms), key=lambda found: found[0])
        if length > best[0]:
            best = (length, part, arm)
        if length >= FREE:
            break
    direction = np.zeros_like(base.positions)
    direction[best[1]] = best[2]
    return Line(base, direction), best[0]


def _room(base: System, part: Ints, arm: Floats) -> float:
    """Return how far in Å some atoms can go before they come too close to another, at most `LONGEST`."""
    others = np.setdiff1d(np.arange(len(base)), part)
    bonds = bond_length(base.numbers[part][:, None], base.numbers[others][None])
    steps = np.linspace(0, LONGEST, 21)[:, None, None]
    going = (base.positions[part] + steps * arm)[:, :, None]
    distance = np.linalg.norm(going - base.positions[others], axis=-1)
    nearest = min(NEAREST, 0.9 * float(distance[0].min()))
    blocked = (distance < np.maximum(ROOM * bonds, nearest)).any(axis=(1, 2))
    return LONGEST if not blocked.any() else float(steps[max(int(np.argmax(blocked)) - 1, 0), 0, 0])
