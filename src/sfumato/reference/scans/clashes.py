"""Atoms that come too close in the frames of a scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike

from sfumato.graph.neighbors import neighbor_pairs
from sfumato.reference.scans.network import named
from sfumato.reference.scans.reach import Rotation, met_by_pulling, met_by_turning
from sfumato.systems import Bools, Floats, Ints, System

CLASH_FACTOR = 0.9
"""A scan is rejected if any pair but the scanned one comes closer than this times its radii sum."""

STILL = 1e-6
"""Å; a pair whose distance varies less along a scan is not changed by it."""


MOST_AT_ONCE = 100_000
"""Distances held in memory at a time."""


@dataclass(frozen=True)
class Clash:
    """The pair of atoms that comes closest, in units of its radii sum, and closer than allowed.

    Args:
        i: first atom.
        j: second atom.
        frame: the frame in which it happens.
        distance: Å.
        limit: the distance allowed, Å.
    """

    i: int
    j: int
    frame: int
    distance: float
    limit: float

    def told(self, numbers: Ints) -> str:
        """Return it in words."""
        return (
            f"clash: atoms {named(numbers, self.i)} and {named(numbers, self.j)} are "
            f"{self.distance:.3f} Å apart in frame {self.frame}, closer than {self.limit:.3f} Å"
        )


def clashes(
    numbers: Ints,
    positions: Floats,
    bond: ArrayLike,
    factor: float = CLASH_FACTOR,
    fragment: Ints | None = None,
) -> Clash | None:
    """Find the worst approach of any pair of atoms, the scanned bond apart, in the frames of a bond scan.

    Pairs inside one fragment count too, although they keep their distance: so it is in the source and in
    its data, whose closest pairs pile up just above 0.900. A molecule with a C=O or C≡C bond, shorter than
    0.9 times its radii sum at rest, therefore gives no scan at all.

    Args:
        numbers: (N,) atomic numbers.
        positions: (F, N, 3) Å.
        bond: (2,) the scanned bond, the one pair that is left out.
        factor: allowed distance in sums of covalent radii.
        fragment: (N,) ±1 of two fragments that move along the bond as they are, so that only few pairs have
            to be looked at; None where atoms may move in any other way.

    Returns:
        The pair and frame with the smallest ratio of distance to radii sum, or None if all are allowed.

    Source: Liu et al. 2026, App. A, step 3.
    """
    i, j = sorted(np.asarray(bond).tolist())
    if fragment is None or not len(positions):
        first, second = np.triu_indices(len(numbers), 1)
    else:
        line = positions[0, j] - positions[0, i]
        first, second = met_by_pulling(numbers, positions[0], fragment, line, factor)
    other = (first != i) | (second != j)
    first, second = first[other], second[other]
    radii = covalent_radii[numbers]
    sums = radii[first] + radii[second]
    worst = np.inf, 0, 0
    for start, distance in _blocks(positions, first, second):
        ratio = distance / sums
        frame, pair = divmod(int(ratio.argmin()), len(sums))
        worst = min(worst, (float(ratio[frame, pair]), start + frame, pair))
    least, frame, pair = worst
    if least >= factor:
        return None
    return Clash(
        i=int(first[pair]),
        j=int(second[pair]),
        frame=frame,
        distance=float(least * sums[pair]),
        limit=float(factor * sums[pair]),
    )


def _blocks(
    positions: Floats, first: Ints, second: Ints, image: Floats | float = 0.0
) -> Iterator[tuple[int, Floats]]:
    """Yield the distances (f, P) in Å of pairs in blocks of frames, and the first frame of each block."""
    if not len(first):
        return
    block = max(1, MOST_AT_ONCE // len(first))
    for start in range(0, len(positions), block):
        frames = positions[start : start + block]
        apart = frames[:, second] + image - frames[:, first]
        yield start, np.sqrt(np.einsum("fpx,fpx->fp", apart, apart))


def pairs_across(system: System, moving: Bools, reach: float) -> tuple[Ints, Ints, Floats]:
    """List the pairs of an atom that stays and an atom that moves, in a crystal with all near images.

    Args:
        system: any structure.
        moving: (N,) the atoms that move; their images move with them.
        reach: Å within which images count; in a molecule every pair does.

    Returns:
        (P,) atoms that stay, (P,) atoms that move, and (P, 3) Å to add to the position of the latter.
    """
    if not system.pbc.any():
        stays, moves = (grid.ravel() for grid in np.meshgrid(*map(np.flatnonzero, (~moving, moving))))
        return stays, moves, np.zeros((len(stays), 3))
    found = neighbor_pairs(system, reach)
    across = ~moving[found.i] & moving[found.j]
    return found.i[across], found.j[across], found.shift[across] @ system.cell


def moving_clashes(
    system: System,
    positions: Floats,
    moving: Bools,
    scanned: ArrayLike,
    factor: float = CLASH_FACTOR,
    rotation: Rotation | None = None,
) -> Clash | None:
    """Find the worst approach of a pair of atoms of which one moves and one stays.

    Only pairs whose distance changes count: a C=O bond, shorter than 0.9 times its radii sum at rest, forbids
    no rotation around it, and neither do the neighbors of the axis.

    Args:
        system: the structure at rest, its images laid out as in the frames.
        positions: (F, N, 3) Å.
        moving: (N,) the atoms that move.
        scanned: the atoms of the coordinate; the pair of the first and the last is left out, as the scanned
            bond is in the source.
        factor: allowed distance in sums of covalent radii.
        rotation: what moves the atoms, so that only few pairs of a molecule have to be looked at; None where
            they may move in any other way.

    Returns:
        The pair and frame with the smallest ratio of distance to radii sum, or None if all are allowed.
    """
    radii = covalent_radii[system.numbers]
    if rotation is not None and not system.pbc.any():
        stays, moves = met_by_turning(system.numbers, system.positions, moving, rotation, factor)
        image = np.zeros((len(stays), 3))
    else:
        farthest = float(np.linalg.norm(positions - system.positions, axis=2).max(initial=0.0))
        stays, moves, image = pairs_across(system, moving, 2 * factor * float(radii.max()) + farthest)
    first, *_, last = np.asarray(scanned).tolist()
    other = ~((stays == first) & (moves == last) & (image == 0).all(axis=1))
    stays, moves, image = stays[other], moves[other], image[other]
    sums = radii[stays] + radii[moves]
    low, high = np.full(len(sums), np.inf), np.zeros(len(sums))
    when = np.zeros(len(sums), dtype=np.int64)
    for start, distance in _blocks(positions, stays, moves, image):
        nearest = distance.min(axis=0)
        when = np.where(nearest < low, start + distance.argmin(axis=0), when)
        low, high = np.minimum(low, nearest), np.maximum(high, distance.max(axis=0))
    ratio = np.where(high - low > STILL, low / sums, np.inf)
    if not ratio.size or ratio.min() >= factor:
        return None
    worst = int(ratio.argmin())
    i, j = sorted((int(stays[worst]), int(moves[worst])))
    return Clash(i, j, int(when[worst]), float(low[worst]), float(factor * sums[worst]))
