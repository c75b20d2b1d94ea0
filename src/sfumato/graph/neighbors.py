"""Neighbour pairs of any structure: molecules, slabs, crystals, cells smaller than the cutoff."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.systems import Batch, Floats, Ints, System

THREADS = 1
"""Per call; workers run side by side, so a list that takes every core would slow all of them."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Directed pairs of neighbours, sorted by i, then j, then shift.

    Args:
        i: (P,) the atom that looks, numbered through the whole batch.
        j: (P,) the neighbour it sees.
        shift: (P, 3) the cell vectors to add to the neighbour: r_ij = pos_j + shift·cell − pos_i.
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


def neighbor_pairs(structure: Batch | System, cutoff: float) -> Pairs:
    """Find all pairs closer than a cutoff, each in both directions.

    Args:
        structure: any cell and any mix of periodic directions. Positions count as given: they may lie
            outside the cell, and the shift refers to them unwrapped. A cell vector along a direction
            that is not periodic is ignored.
        cutoff: Å; a pair at exactly this distance is not a neighbour.

    Returns:
        Both (i, j, S) and (j, i, −S) of every pair, and an atom's own images; only (i, i, 0) is left
        out. Two atoms at the same place are a pair.

    Raises:
        ValueError: a cutoff that is not positive and finite, or a position that is not finite.
    """
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"cutoff: expected a positive length in Å, got {cutoff}")
    batch = Batch.of([structure]) if isinstance(structure, System) else structure
    if not np.isfinite(batch.positions).all():
        bad = int(np.argwhere(~np.isfinite(batch.positions))[0, 0])
        raise ValueError(f"positions: atom {bad} of the batch is not at a finite place")
    # Not at the top of the file: importing vesin imports torch.
    from vesin import NeighborList

    finder = NeighborList(cutoff=float(cutoff), full_list=True, n_threads=THREADS)
    found: list[Ints] = [np.zeros((0, 5), dtype=np.int64)]
    for k, (start, stop) in enumerate(zip(batch.offsets, batch.offsets[1:])):
        if start == stop:
            continue
        pairs, shift = finder.compute(batch.positions[start:stop], batch.cell[k], batch.pbc[k], "PS")
        found.append(np.concatenate([pairs.astype(np.int64) + start, shift], axis=1))
    table = np.concatenate(found)
    # One order whatever found the pairs, so that sums over neighbours round the same way every time.
    table = table[np.lexsort(table.T[::-1])]
    return Pairs(table[:, 0], table[:, 1], table[:, 2:])
