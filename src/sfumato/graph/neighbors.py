"""Neighbor pairs of any structure: molecules, slabs, crystals, cells smaller than the cutoff."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sfumato.systems import Batch, Bools, Floats, Ints, System

FARTHEST = 1e8
"""Å from the origin beyond which a double no longer places an atom to 1e-8 Å."""

GRID_CELLS = 1e5
"""Above this many search cells vesin coarsens its grid, and divides by zero if one side becomes empty."""

FLAT = 1e-9
"""Lattice vectors that span less than this part of the box of their lengths are taken as dependent."""

MOST_WIDENED = 4.0
"""A periodic structure is not searched with more than this times the cutoff: pairs grow with its cube."""

FEW = 48
"""Atoms of a structure without periodic directions up to which all pairs are tried: many small molecules are
then searched together, which takes less than a search for each."""

TOGETHER = 500_000
"""Pairs that are tried together, about: 25 MB."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Directed pairs of neighbors, sorted by i, then j, then shift.

    Args:
        i: (P,) the atom that looks, numbered through the whole batch.
        j: (P,) the neighbor it sees.
        shift: (P, 3) the cell vectors to add to the neighbor: r_ij = pos_j + shift·cell − pos_i.
    """

    i: Ints
    j: Ints
    shift: Ints

    def __len__(self) -> int:
        return len(self.i)

    def vectors(self, batch: Batch) -> Floats:
        """Return (P, 3) r_ij in Å, from i to the image of j."""
        across = np.einsum("pa,pab->pb", self.shift, batch.cell[batch.index[self.i]])
        vectors: Floats = batch.positions[self.j] - batch.positions[self.i] + across
        return vectors


class StructureError(ValueError):
    """Some structures of a batch have no neighborhoods; the others do.

    Args:
        reasons: number of the structure → what is wrong, with "{}" where the structure is named.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.reasons = dict(reasons)
        first = min(self.reasons)
        super().__init__(self.reason(first))

    def reason(self, number: int, name: str = "") -> str:
        """Return what is wrong with a structure.

        Args:
            number: of the structure.
            name: to call it by; by default "structure" and its number.
        """
        return self.reasons[number].replace("{}", name or f"structure {number}")


def neighbor_pairs(structure: Batch | System, cutoff: float) -> Pairs:
    """Find all pairs closer than a cutoff, each in both directions.

    Args:
        structure: any cell and any mix of periodic directions. Positions count as given: they may lie
            outside the cell, and the shift refers to them unwrapped. A cell vector along a direction
            that is not periodic is ignored.
        cutoff: Å; a pair at exactly this distance is not a neighbor.

    Returns:
        Both (i, j, S) and (j, i, −S) of every pair, and an atom's own images; only (i, i, 0) is left
        out. Two atoms at the same place are a pair.

    Raises:
        ValueError: a cutoff that is not positive and finite.
        StructureError: a position that is not finite or so far away that distances are no longer known;
            periodic cell vectors that are not independent.
    """
    batch = Batch.of([structure]) if isinstance(structure, System) else structure
    half = half_pairs(batch, cutoff)
    i, j = np.concatenate([half.i, half.j]), np.concatenate([half.j, half.i])
    shift = np.concatenate([half.shift, -half.shift])
    # One order whatever found the pairs, so that sums over neighbors round the same way every time.
    order = np.lexsort((*shift.T[::-1], j, i))
    return Pairs(i[order], j[order], shift[order])


def half_pairs(batch: Batch, cutoff: float | Floats) -> Pairs:
    """Find all pairs closer than a cutoff, each in one of its two directions.

    Args:
        batch: as for `neighbor_pairs`.
        cutoff: Å, one for all or one for each structure.

    Returns:
        Of (i, j, S) and (j, i, −S) one, in any order.

    Raises:
        ValueError: a cutoff that is not positive and finite.
        StructureError: the structures whose positions or cells `neighbor_pairs` refuses.
    """
    cutoffs = np.broadcast_to(np.asarray(cutoff, dtype=float), len(batch))
    if not (np.isfinite(cutoffs) & (cutoffs > 0)).all():
        raise ValueError(f"cutoff: expected a positive length in Å, got {cutoff}")
    reasons: dict[int, str] = {}
    few = _few(batch)
    found = [(np.zeros((0, 2), dtype=np.int64), np.zeros((0, 3), dtype=np.int64))]
    found += [(pairs, np.zeros((len(pairs), 3), dtype=np.int64)) for pairs in _all(batch, few, cutoffs)]
    for k in np.flatnonzero(~few).tolist():
        start, stop = batch.offsets[k], batch.offsets[k + 1]
        if start < stop:
            try:
                inside = _table(batch.positions[start:stop], batch.cell[k], batch.pbc[k], float(cutoffs[k]))
            except ValueError as error:
                reasons[k] = f"{{}}: {error}"
            else:
                found.append((inside[0] + start, inside[1]))
    if reasons:
        raise StructureError(reasons)
    atoms, shift = (np.concatenate(parts) for parts in zip(*found))
    return Pairs(atoms[:, 0], atoms[:, 1], shift)


def _few(batch: Batch) -> Bools:
    """Return (S,) which structures are small and without periodic directions: all their pairs are tried."""
    lost = ~(np.abs(batch.positions) <= FARTHEST).all(axis=1)
    sound = np.bincount(batch.index[lost], minlength=len(batch)) == 0
    few: Bools = sound & ~batch.pbc.any(axis=1) & (np.diff(batch.offsets) <= FEW)
    return few


def _all(batch: Batch, few: Bools, cutoffs: Floats) -> Iterator[Ints]:
    """Yield (H, 2) i, j of the pairs of small structures, those with as many atoms together."""
    sizes = np.where(few, np.diff(batch.offsets), 0)
    for n in np.unique(sizes[sizes > 1]).tolist():
        i, j = np.triu_indices(n, 1)
        rows = np.flatnonzero(sizes == n)
        for some in np.array_split(rows, math.ceil(len(rows) * len(i) / TOGETHER)):
            first = batch.offsets[some]
            x = batch.positions[first[:, None] + np.arange(n)]
            near = np.linalg.norm(x[:, j] - x[:, i], axis=2) < cutoffs[some, None]
            row, pair = np.nonzero(near)
            yield np.stack([first[row] + i[pair], first[row] + j[pair]], axis=1)


def _table(positions: Floats, cell: Floats, pbc: Bools, cutoff: float) -> tuple[Ints, Ints]:
    """Return (H, 2) i, j and (H, 3) S of the pairs of one structure, each once, in any order."""
    # Not at the top of the file: importing vesin imports torch.
    from vesin import NeighborList

    lost = ~(np.abs(positions) <= FARTHEST).all(axis=1)
    if lost.any():
        atom = int(np.argmax(lost))
        raise ValueError(
            f"atom {atom} is at {positions[atom].tolist()} Å; positions must be finite and within "
            f"±{FARTHEST:g} Å"
        )
    box, radius = _search(positions, cell, pbc, cutoff)
    # One thread: workers run side by side, and a list that takes every core would slow all of them.
    finder = NeighborList(cutoff=radius, full_list=False, n_threads=1)
    pairs, shift, distance = finder.compute(positions, box, True, "PSd", copy=False)
    near = distance < cutoff
    if not near.all():
        pairs, shift = pairs[near], shift[near]
    return pairs.astype(np.int64), shift.astype(np.int64)


def _search(positions: Floats, cell: Floats, pbc: Bools, cutoff: float) -> tuple[Floats, float]:
    """Return a box and the cutoff, or where atoms are spread too thinly for vesin's grid, a safe radius.

    Raises:
        ValueError: a periodic structure would need more than `MOST_WIDENED` times the cutoff.
    """
    radius = cutoff
    while True:
        box = _padded(positions, cell, pbc, radius)
        heights = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)
        count = np.maximum(np.floor(heights / radius), 1.0)
        total = count.prod()
        if total <= GRID_CELLS or count.min() * (GRID_CELLS / total) ** (1 / 3) >= 2:
            return box, radius
        radius *= 1.5
        if pbc.any() and radius > MOST_WIDENED * cutoff:
            raise ValueError(
                f"positions: a periodic structure {heights.max():.3g} Å across is too thinly spread to "
                f"search for neighbors within {cutoff:g} Å; has it flown apart?"
            )


def _padded(positions: Floats, cell: Floats, pbc: Bools, radius: float) -> Floats:
    """Return a fully periodic cell with room around the atoms in every direction that is not periodic.

    The new vectors are normal to the periodic ones and leave two radii between images, so no pair
    reaches across. vesin's own treatment of such directions lost pairs before its version 0.5.8.
    """
    periodic = cell[pbc]
    normals = np.linalg.qr(np.concatenate([periodic.T, np.eye(3)], axis=1))[0].T[len(periodic) :]
    box = np.empty((3, 3))
    box[pbc] = periodic
    box[~pbc] = normals * (np.ptp(positions @ normals.T, axis=0) + 2 * radius)[:, None]
    if abs(np.linalg.det(box)) <= FLAT * np.linalg.norm(box, axis=1).prod():
        raise ValueError("cell: the vectors of the periodic directions are not independent")
    return box
