"""Neighbors of an atom that exchange their order of distance: which can, and the path on which they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sfumato.models.pair import bond_length
from sfumato.reference.paths import Line
from sfumato.systems import Floats, Ints, System

ROOM = 0.85
"""Of a bond; no atom is moved closer to another than this."""

CLOSE = 0.3
"""Å; a neighbor is moved by no more than this to exchange places with the one before it."""

CENTERS = 4
"""Atoms whose neighbors are exchanged, chosen so that together they cover most ranks."""


@dataclass(frozen=True)
class Swap:
    """Two neighbors of one atom about to exchange places: `mover` goes out past `other`.

    Args:
        center: the atom that ranks them.
        mover: the nearer one, which moves since a stretched bond is softer than a compressed one.
        other: the next one out, which stays.
        rank: of the mover, from 1.
    """

    center: int
    mover: int
    other: int
    rank: int


def swaps_of(base: System, center: int) -> list[Swap]:
    """Return the neighboring ranks of one atom that a small move exchanges."""
    distance = np.linalg.norm(base.positions - base.positions[center], axis=1)
    order: Ints = np.argsort(distance)
    every = [Swap(center, int(order[k]), int(order[k + 1]), k) for k in range(1, len(order) - 1)]
    near = [swap for swap in every if distance[swap.other] - distance[swap.mover] < CLOSE]
    return [swap for swap in near if _fits(base, swap, distance)]


def _fits(base: System, swap: Swap, distance: Floats) -> bool:
    """Return whether the mover has room where the other is as far away."""
    arm = base.positions[swap.mover] - base.positions[swap.center]
    place = base.positions[swap.center] + distance[swap.other] / distance[swap.mover] * arm
    others = np.arange(len(base)) != swap.mover
    gaps = np.linalg.norm(base.positions[others] - place, axis=1)
    return bool((gaps > ROOM * bond_length(base.numbers[others], base.numbers[swap.mover])).all())


def chosen_swaps(base: System, centers: int = CENTERS) -> list[Swap]:
    """Return the swaps of a few atoms that together cover the most ranks."""
    every = [swaps_of(base, center) for center in range(len(base))]
    chosen: list[Swap] = []
    for _ in range(centers):
        covered = {swap.rank for swap in chosen}
        best = max(every, key=lambda swaps: len({swap.rank for swap in swaps} - covered))
        if {swap.rank for swap in best} <= covered:
            break
        chosen += best
    return chosen


def swap_path(base: System, swaps: Sequence[Swap]) -> Line:
    """Return the path on which every mover is as far out as the other at s = 0."""
    positions, direction = base.positions.copy(), np.zeros_like(base.positions)
    for swap in swaps:
        center = base.positions[swap.center]
        goal = np.linalg.norm(base.positions[swap.other] - center)
        arm = base.positions[swap.mover] - center
        arm /= np.linalg.norm(arm)
        positions[swap.mover] = center + goal * arm
        direction[swap.mover] = arm
    return Line(replace(base, positions=positions), direction)


def groups_of(base: System, swaps: Sequence[Swap]) -> list[list[Swap]]:
    """Return swaps that one path can make at once: of one center, no atom in two of them, all with room."""
    found = []
    for center in dict.fromkeys(swap.center for swap in swaps):
        for parity in (0, 1):  # no atom may be mover of one swap and partner of the next
            group = [swap for swap in swaps if swap.center == center and swap.rank % 2 == parity]
            there = swap_path(base, group).base
            found.append([swap for swap in group if _has_room(there, swap.mover)])
    return [group for group in found if group]


def _has_room(system: System, atom: int) -> bool:
    others = np.arange(len(system)) != atom
    distance = np.linalg.norm(system.positions[others] - system.positions[atom], axis=1)
    return bool((distance > ROOM * bond_length(system.numbers[others], system.numbers[atom])).all())
