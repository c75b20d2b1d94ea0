"""Which pairs can matter at all: found within a radius that is proven to be wide enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.graph.envelope import envelope_bias
from sfumato.graph.neighbors import half_pairs
from sfumato.graph.ranking import step, taper
from sfumato.graph.settings import GraphSettings
from sfumato.systems import Batch, Floats

BIN = 0.05
"""Å, the finest bin of distances from which ranks are estimated."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Every pair that can carry an edge or change a rank, in one of its two directions.

    Args:
        i: (H,) one atom.
        j: (H,) the other.
        shift: (H, 3) the cell vectors to add to atom j.
        distance: (H,) Å, where they were found, in double precision.
    """

    i: Tensor
    j: Tensor
    shift: Tensor
    distance: Tensor

    def lengths(self, positions: Tensor, cell: Tensor, system: Tensor) -> Tensor:
        """Return (H,) distances in Å where the atoms are now, in double precision."""
        return _lengths(positions, cell, system, self.i, self.j, self.shift)


def pair_vectors(
    positions: Tensor,
    cell: Tensor,
    system: Tensor,
    source: Tensor,
    target: Tensor,
    shift: Tensor,
    crossing: Tensor,
) -> Tensor:
    """Return (P, 3) r_ij = pos_j − pos_i + S·cell, exactly opposite for opposite pairs.

    S·cell is multiplied and added by element: a matrix product may run in TF32, and lose some mÅ.

    Args:
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        system: (N,) the structure of each atom.
        source: (P,) i.
        target: (P,) j.
        shift: (P, 3) S.
        crossing: the pairs with S other than 0.
    """
    vectors = positions.index_select(0, target) - positions.index_select(0, source)
    if len(crossing) == 0:
        return vectors
    across = shift.index_select(0, crossing).to(cell.dtype)
    cells = cell.index_select(0, system.index_select(0, source.index_select(0, crossing)))
    offset = across[:, 0:1] * cells[:, 0] + across[:, 1:2] * cells[:, 1] + across[:, 2:3] * cells[:, 2]
    return vectors.index_add(0, crossing, offset)


def find_candidates(
    positions: Tensor, cell: Tensor, pbc: Tensor, system: Tensor, settings: GraphSettings, skin: float = 0.0
) -> Candidates:
    """Find the pairs that matter, now and until some atom has moved by half the skin.

    In a dense crystal the order of the neighbors decides, long before the cutoff does. A first search
    stops where about 1.4 k neighbors are expected. It is enough if a neighbor 4 d0 inside its radius
    would have a rank of k or more around every atom; otherwise that structure is searched to the horizon.

    Args:
        positions: (N, 3) Å, as given, wrapped or not.
        cell: (G, 3, 3) Å.
        pbc: (G, 3).
        system: (N,) the structure of each atom, non-decreasing.
        settings: of the graph.
        skin: Å.

    Returns:
        The pairs, on the device of the positions.

    Raises:
        StructureError: what `neighbor_pairs` refuses.
    """
    batch = Batch(
        numbers=np.ones(len(positions), dtype=np.int64),
        positions=positions.detach().cpu().numpy(),
        index=system.cpu().numpy(),
        cell=cell.detach().cpu().numpy(),
        pbc=pbc.cpu().numpy(),
        charge=np.zeros(len(cell), dtype=np.int64),
        multiplicity=np.ones(len(cell), dtype=np.int64),
    )
    whole = settings.horizon + skin
    radius = _first_radius(batch, settings, skin)
    found = _search(batch, radius, positions, cell, system)
    if (radius < whole).any():
        # Where an edge could not be lost, less what two distances can lose against each other.
        end = torch.from_numpy(radius).to(positions.device)[system] - 4 * settings.d0 - 4 * skin
        rank = sum(
            torch.bincount(
                atom, step((end[atom] - found.distance) / settings.d0, settings), minlength=len(end)
            )
            for atom in (found.i, found.j)
        )
        short = system[rank + settings.rank_offset < settings.k * settings.f_max].cpu().numpy()
        if (radius[short] < whole).any():
            radius[short] = whole
            found = _search(batch, radius, positions, cell, system)
    return found


def _search(batch: Batch, radius: Floats, positions: Tensor, cell: Tensor, system: Tensor) -> Candidates:
    pairs = half_pairs(batch, radius)
    i, j, shift = (torch.from_numpy(part).to(positions.device) for part in (pairs.i, pairs.j, pairs.shift))
    return Candidates(i, j, shift, _lengths(positions, cell, system, i, j, shift))


def _lengths(positions: Tensor, cell: Tensor, system: Tensor, i: Tensor, j: Tensor, shift: Tensor) -> Tensor:
    crossing = torch.nonzero(shift.any(1))[:, 0]
    precise = positions.detach().double(), cell.detach().double()
    lengths: Tensor = torch.linalg.vector_norm(pair_vectors(*precise, system, i, j, shift, crossing), dim=1)
    return lengths


def _first_radius(batch: Batch, settings: GraphSettings, skin: float) -> Floats:
    """Return (G,) Å: how far to search at first."""
    radius = np.full(len(batch), settings.horizon + skin)
    if settings.rank != "sigmoid":  # there all up to the horizon take part
        volume = np.abs(np.linalg.det(batch.cell))
        count = np.bincount(batch.index, minlength=len(batch))
        dense = batch.pbc.all(axis=1) & (volume > 0) & (count > 0)
        sphere = np.cbrt(3 * 1.4 * settings.k * volume[dense] / (4 * math.pi * count[dense]))
        first = sphere + 4 * settings.d0 + 4 * skin
        # A first search that saves little is not worth the risk of a second one.
        radius[dense] = np.where(first < 0.85 * radius[dense], first, radius[dense])
    return radius


def possible_edges(
    pairs: Candidates, distance: Tensor, atoms: int, settings: GraphSettings, skin: float
) -> tuple[Tensor, Tensor]:
    """Return which pairs may have a finite log e until some atom has moved by half the skin.

    Distances sorted into bins bound every rank from below: a step only grows with the distance of the
    ranked neighbor, and only falls with those of the others. The envelope grows with the ranks. Within
    the skin a distance changes at most by the skin, the difference of two from one atom by twice that.

    Args:
        pairs: H pairs.
        distance: (H,) Å.
        atoms: N.
        settings: of the graph.
        skin: Å.

    Returns:
        (H,) for the edge i → j, and (H,) for j → i.
    """
    least, width = _least_ranks(pairs, distance, atoms, settings, skin)
    place = ((distance - 2 * skin) / width).clamp_(min=0).long()
    by_i, by_j = (least.view(-1).index_select(0, end * least.shape[1] + place) for end in (pairs.i, pairs.j))
    length = (distance - skin).clamp_(min=0)
    if settings.mode == "mutual":
        both = _may_weigh(by_i, by_j, length, settings)
        return both, both
    return _may_weigh(by_i, None, length, settings), _may_weigh(by_j, None, length, settings)


def _may_weigh(rank_out: Tensor, rank_in: Tensor | None, length: Tensor, settings: GraphSettings) -> Tensor:
    """Return (H,) where e > 0, looking only where no single term of f is f_max already."""
    most = rank_out if rank_in is None else torch.maximum(rank_out, rank_in)
    may = (most < settings.k * settings.f_max) & (length < settings.cutoff * settings.f_max)
    near = torch.nonzero(may)[:, 0]
    by_target = None if rank_in is None else rank_in[near]
    may[near] = envelope_bias(rank_out[near], by_target, length[near], settings) > -math.inf
    return may


def _least_ranks(
    pairs: Candidates, distance: Tensor, atoms: int, settings: GraphSettings, skin: float
) -> tuple[Tensor, float]:
    """Return (N, B) the least rank a neighbor can have in each bin of distances, and the bin's width."""
    width = max(settings.d0 / 4, BIN)
    place = (distance / width).long()
    bins = torch.arange(int(place.max()) + 1 if len(place) else 1, device=distance.device)
    where = torch.cat([pairs.i, pairs.j]) * len(bins) + torch.cat([place, place])
    filled = torch.bincount(where, minlength=atoms * len(bins)).view(atoms, len(bins)).double()
    # Of the ranked neighbor the lower end of its bin counts, of the others the upper end.
    steps = step((bins[None, :] - bins[:, None] - 1).double() * width / settings.d0, settings)
    if settings.rank == "sigmoid":
        steps = steps * taper((bins[:, None] + 1).double() * width + skin, settings)
    return filled @ steps + settings.rank_offset, width
