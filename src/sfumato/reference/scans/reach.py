"""Which pairs of atoms can come close along a path, found from how it moves and not from its frames.

A side that turns keeps each atom's height along the axis and distance from it; a side that is pulled keeps
each atom's distance from the line. In such a plane only near pairs can meet, a few per atom, where a
molecule of N atoms has N²/2 pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from scipy.spatial import cKDTree

from sfumato.systems import Bools, Floats, Ints

SLACK = 1e-6
"""Å added to every bound, so that rounding loses no pair."""


@dataclass(frozen=True, eq=False)
class Rotation:
    """Turns about one axis.

    Args:
        pivot: (3,) Å, a point of the axis.
        axis: (3,) its direction, of any length.
        turn: (F,) rad, right-handed.
    """

    pivot: Floats
    axis: Floats
    turn: Floats


def met_by_turning(
    numbers: Ints, positions: Floats, moving: Bools, rotation: Rotation, factor: float
) -> tuple[Ints, Ints]:
    """List the pairs of an atom that stays and an atom that turns which come closer than allowed.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å at rest.
        moving: (N,) the atoms that turn.
        rotation: of these atoms.
        factor: distance allowed in sums of covalent radii.

    Returns:
        (P,) atoms that stay and (P,) atoms that turn, in rising order of the latter: every pair that is
        closer in some frame, and few others.
    """
    unit = rotation.axis / np.linalg.norm(rotation.axis)
    arm = positions - rotation.pivot
    height = arm @ unit
    across = arm - height[:, None] * unit
    radius = np.linalg.norm(across, axis=1)
    # Angles are counted from any direction off the axis; atoms on the axis have none and need none.
    first = across[int(radius.argmax())]
    angle = np.arctan2(across @ np.cross(unit, first), across @ first)
    stays, moves = _near(np.column_stack([height, radius]), ~moving, moving, numbers, factor)
    turns = np.sort(np.asarray(rotation.turn) % (2 * np.pi))
    off = _nearest_turn(turns, angle[stays] - angle[moves])
    square = (height[stays] - height[moves]) ** 2 + radius[stays] ** 2 + radius[moves] ** 2
    square -= 2 * radius[stays] * radius[moves] * np.cos(off)
    return _allowed(stays, moves, np.sqrt(np.maximum(square, 0.0)), numbers, factor)


def met_by_pulling(
    numbers: Ints, positions: Floats, fragment: Ints, direction: Floats, factor: float
) -> tuple[Ints, Ints]:
    """List the pairs of atoms that can be closer than allowed when two fragments move along a line.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å in any frame.
        fragment: (N,) ±1, which fragment an atom belongs to.
        direction: (3,) of the line, of any length.
        factor: distance allowed in sums of covalent radii.

    Returns:
        (P,) and (P,) the atoms of each pair, first < second, in rising order: of two fragments those whose
        lines pass closer, of one fragment, which moves as a whole, those that are closer.
    """
    unit = direction / np.linalg.norm(direction)
    one, two = fragment < 0, fragment > 0
    flat = positions - (positions @ unit)[:, None] * unit
    pairs = [_near(flat, one, two, numbers, factor)]
    pairs += [_near(positions, part, part, numbers, factor) for part in (one, two)]
    first, second = (np.concatenate(part) for part in zip(*pairs))
    low, high = np.minimum(first, second), np.maximum(first, second)
    found = np.unique(np.column_stack([low, high])[low < high], axis=0)
    return found[:, 0], found[:, 1]


def _near(points: Floats, one: Bools, two: Bools, numbers: Ints, factor: float) -> tuple[Ints, Ints]:
    """Return the pairs of an atom of one and an atom of two that are closer than allowed."""
    rows, columns = np.flatnonzero(one), np.flatnonzero(two)
    reach = factor * 2 * float(covalent_radii[numbers].max(initial=0.0)) + SLACK
    if not (len(rows) and len(columns)):
        return rows[:0], columns[:0]
    trees = cKDTree(points[rows]), cKDTree(points[columns])
    found = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    return _allowed(rows[found["i"]], columns[found["j"]], found["v"], numbers, factor)


def _allowed(stays: Ints, moves: Ints, distance: Floats, numbers: Ints, factor: float) -> tuple[Ints, Ints]:
    """Keep the pairs closer than allowed, in rising order of the second atom."""
    radii = covalent_radii[numbers]
    close = distance < factor * (radii[stays] + radii[moves]) + SLACK
    stays, moves = stays[close], moves[close]
    order = np.lexsort((stays, moves))
    return stays[order], moves[order]


def _nearest_turn(turns: Floats, wanted: Floats) -> Floats:
    """Return (P,) rad, how far wanted turns are from the nearest of those that are made, (F,) rising."""
    wanted = wanted % (2 * np.pi)
    after = np.searchsorted(turns, wanted)
    off = np.stack([turns[after % len(turns)] - wanted, turns[after - 1] - wanted])
    return np.asarray(np.abs((off + np.pi) % (2 * np.pi) - np.pi).min(axis=0))
