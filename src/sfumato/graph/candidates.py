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
    """

    i: Tensor
    j: Tensor
    shift: Tensor

    def distances(self, positions: Tensor, cell: Tensor, system: Tensor) -> Tensor:
        """Return (H,) lengths in Å, in double precision."""
        crossing = torch.nonzero(self.shift.any(1))[:, 0]
        vectors = pair_vectors(
            positions.detach().double(), cell.detach().double(), system, self.i, self.j, self.shift, crossing
        )
        lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1)
        return lengths


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

    In a dense crystal the order of the neighbours decides, long before the cutoff does. A first search
    stops where about 1.4 k neighbours are expected. It is enough if a neighbour 4 d0 inside its radius
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
        ValueError: what `neighbor_pairs` refuses.
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
    found = _search(batch, radius, positions.device)
    if (radius < whole).any():
        distance = found.distances(positions, cell, system)
        # Where an edge could not be lost, less what two distances can lose against each other.
        end = torch.from_numpy(radius).to(positions.device)[system] - 4 * settings.d0 - 4 * skin
        rank = sum(
            torch.bincount(atom, step((end[atom] - distance) / settings.d0, settings), minlength=len(end))
            for atom in (found.i, found.j)
        )
        short = system[rank + settings.rank_offset < settings.k * settings.f_max].cpu().numpy()
        if (radius[short] < whole).any():
            radius[short] = whole
            found = _search(batch, radius, positions.device)
    return found


def _search(batch: Batch, radius: Floats, device: torch.device) -> Candidates:
    pairs = half_pairs(batch, radius)
    i, j, shift = (torch.from_numpy(part).to(device) for part in (pairs.i, pairs.j, pairs.shift))
    return Candidates(i, j, shift)


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
    ranked neighbour, and only falls with those of the others. The envelope grows with the ranks. Within
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
    near = torch.nonzero(distance < settings.f_max * settings.cutoff + skin)[:, 0]
    place = ((distance[near] - 2 * skin) / width).clamp(min=0).long()
    by_i, by_j = least[pairs.i[near], place], least[pairs.j[near], place]
    length = (distance[near] - skin).clamp(min=0)
    forward = torch.zeros(len(distance), dtype=torch.bool, device=distance.device)
    if settings.mode == "mutual":
        forward[near] = envelope_bias(by_i, by_j, length, settings) > -math.inf
        return forward, forward
    backward = forward.clone()
    forward[near] = envelope_bias(by_i, None, length, settings) > -math.inf
    backward[near] = envelope_bias(by_j, None, length, settings) > -math.inf
    return forward, backward


def _least_ranks(
    pairs: Candidates, distance: Tensor, atoms: int, settings: GraphSettings, skin: float
) -> tuple[Tensor, float]:
    """Return (N, B) the least rank a neighbour can have in each bin of distances, and the bin's width."""
    width = max(settings.d0 / 4, BIN)
    place = (distance / width).long()
    bins = torch.arange(int(place.max()) + 1 if len(place) else 1, device=distance.device)
    where = torch.cat([pairs.i, pairs.j]) * len(bins) + torch.cat([place, place])
    filled = torch.bincount(where, minlength=atoms * len(bins)).view(atoms, len(bins)).double()
    # Of the ranked neighbour the lower end of its bin counts, of the others the upper end.
    steps = step((bins[None, :] - bins[:, None] - 1).double() * width / settings.d0, settings)
    if settings.rank == "sigmoid":
        steps = steps * taper((bins[:, None] + 1).double() * width + skin, settings)
    return filled @ steps + settings.rank_offset, width
