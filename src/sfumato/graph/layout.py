"""The graph of a batch in two stages: which edges there are, in integers, and their geometry, differentiable.

Tokens are rows of one packed array: row i < N is the self token of atom i, row N + e is edge e, and row
N + E is a dummy that padding points to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sfumato.graph.candidates import Candidates, find_candidates, pair_vectors, possible_edges
from sfumato.graph.envelope import envelope_bias
from sfumato.graph.ranking import FAR, ranks
from sfumato.graph.settings import GraphSettings

__all__ = [
    "Candidates",
    "Geometry",
    "GraphSettings",
    "Topology",
    "differentiable_stage",
    "find_candidates",
    "index_stage",
    "select_edges",
]


@dataclass(frozen=True, eq=False)
class Topology:
    """Who attends to whom, in integers only.

    The pairs are the edges, sorted by source and distance, followed by the witnesses: neighbours that
    carry no edge but have a say in the rank of one.

    Args:
        numbers: (N,) atomic numbers.
        system: (N,) the structure of each atom.
        n_systems: G.
        pair_source: (P,) i.
        pair_target: (P,) j.
        pair_shift: (P, 3) S: the neighbour is at pos_j + S·cell.
        crossing: the pairs whose S is not 0.
        place: (P,) each pair's place in the flattened (N, width) table of distances, edges of a row first.
        width: the columns of that table.
        reverse: (E,) edge (i → j, S) ↔ edge (j → i, −S): its own inverse in "mutual" mode; −1 where the
            reversed edge is absent in "out" mode.
        out_slots: (N, K) the tokens of each atom's out-neighbourhood: itself, then its edges by distance.
        in_slots: (N, K_in) of its in-neighbourhood. In "mutual" mode edge by edge the reverse of out_slots.
    """

    numbers: Tensor
    system: Tensor
    n_systems: int
    pair_source: Tensor
    pair_target: Tensor
    pair_shift: Tensor
    crossing: Tensor
    place: Tensor
    width: int
    reverse: Tensor
    out_slots: Tensor
    in_slots: Tensor

    @property
    def source(self) -> Tensor:
        """(E,) the atom that an edge starts from."""
        return self.pair_source[: len(self.reverse)]

    @property
    def target(self) -> Tensor:
        """(E,) the atom that an edge leads to."""
        return self.pair_target[: len(self.reverse)]

    @property
    def shift(self) -> Tensor:
        """(E, 3) the cell vectors to add to the target."""
        return self.pair_shift[: len(self.reverse)]

    def to(self, device: torch.device | str) -> Topology:
        """Return the same graph on another device."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        parts |= {name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor)}
        return Topology(**parts)


@dataclass(frozen=True, eq=False)
class Geometry:
    """The edges in space.

    Args:
        vector: (E, 3) Å, from the source to the image of the target.
        distance: (E,) Å.
        bias: (E,) log e, equal for an edge and its reverse in "mutual" mode; −∞ where e = 0.
    """

    vector: Tensor
    distance: Tensor
    bias: Tensor


def index_stage(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    numbers: Tensor,
    system: Tensor,
    settings: GraphSettings,
    skin: float = 0.0,
    bucket: int = 1,
) -> Topology:
    """Find the edges of a batch, in double precision and without gradients.

    Without a skin these are exactly the edges with e > 0. With one they are all that can become so until
    some atom has moved by half the skin in a cell that stays as it is; the others have log e = −∞. A skin
    of 0.5 Å may double the edges: in a long run rather hold `find_candidates(…, skin)` and call
    `select_edges` at every step.

    Args:
        positions: (N, 3) Å, as given, wrapped or not.
        cell: (G, 3, 3) Å; vectors of directions that are not periodic are ignored.
        pbc: (G, 3).
        numbers: (N,) atomic numbers.
        system: (N,) the structure of each atom, non-decreasing.
        settings: of the graph.
        skin: Å.
        bucket: K is rounded up to a multiple of this; no edge is ever dropped to fit.

    Returns:
        The topology, on the device of the positions.

    Raises:
        ValueError: what `neighbor_pairs` refuses.
    """
    candidates = find_candidates(positions, cell, pbc, system, settings, skin)
    return select_edges(candidates, positions, cell, numbers, system, settings, skin, bucket)


@torch.no_grad()
def select_edges(
    candidates: Candidates,
    positions: Tensor,
    cell: Tensor,
    numbers: Tensor,
    system: Tensor,
    settings: GraphSettings,
    skin: float = 0.0,
    bucket: int = 1,
) -> Topology:
    """Choose the edges among candidates, which may have been found with a skin, before atoms moved.

    Arguments and result are those of `index_stage`.
    """
    atoms = len(numbers)
    distance = candidates.distances(positions, cell, system)
    pairs = _rows(candidates, distance, atoms, settings, skin)
    if skin == 0:
        pairs = pairs._replace(edge=_with_weight(pairs, 2 * len(distance), atoms, settings))
    column, width = _columns(pairs.source, pairs.edge, atoms)
    edges = torch.nonzero(pairs.edge)[:, 0]
    order = torch.cat([edges, torch.nonzero(~pairs.edge)[:, 0]])
    source, target, shift = pairs.source[order], pairs.target[order], pairs.shift[order]
    reverse = _reverse(pairs.name[edges], 2 * len(distance))
    rows = source[: len(edges)]
    number = torch.arange(len(edges), device=rows.device)
    out_slots = _slots(rows, column[edges], number, atoms, bucket)
    if settings.mode == "mutual":
        in_slots = _slots(rows, column[edges], reverse, atoms, bucket)
    else:
        rows, number = torch.sort(target[: len(edges)], stable=True)
        in_slots = _slots(rows, _columns(rows, number >= 0, atoms)[0], number, atoms, bucket)
    return Topology(
        numbers=numbers,
        system=system,
        n_systems=len(cell),
        pair_source=source,
        pair_target=target,
        pair_shift=shift,
        crossing=torch.nonzero(shift.any(1))[:, 0],
        place=source * width + column[order],
        width=width,
        reverse=reverse,
        out_slots=out_slots,
        in_slots=in_slots,
    )


class _Pairs(NamedTuple):
    """Directed pairs sorted by source, then possible edges first, then distance; `name` knows the reverse."""

    source: Tensor
    target: Tensor
    shift: Tensor
    distance: Tensor
    edge: Tensor
    name: Tensor


def _rows(
    candidates: Candidates, distance: Tensor, atoms: int, settings: GraphSettings, skin: float
) -> _Pairs:
    """Return the possible edges and their witnesses: all that 4 d0 can reach from the longest edge."""
    i, j = candidates.i, candidates.j
    forward, backward = possible_edges(candidates, distance, atoms, settings, skin)
    reach = distance.new_full((atoms,), -math.inf)
    for atom, edge in ((i, forward), (j, backward)):
        reach.scatter_reduce_(0, atom[edge], distance[edge], "amax")
    if settings.rank == "sigmoid":
        reach = torch.where(reach > 0, math.inf, reach)
    reach += 4 * settings.d0 + 2 * skin
    there, back = (torch.nonzero(distance < reach[atom])[:, 0] for atom in (i, j))
    source, half = torch.cat([i[there], j[back]]), torch.cat([there, back])
    edge, length = torch.cat([forward[there], backward[back]]), distance[half]
    # One sort by three keys: what is added to the row is below ½, so distances count to 1e-9 Å.
    key = source + 0.5 * ~edge + length * (0.49 / (length.max() if len(length) else 1.0))
    order = torch.argsort(key)
    return _Pairs(
        source=source[order],
        target=torch.cat([j[there], i[back]])[order],
        shift=torch.cat([candidates.shift[there], -candidates.shift[back]])[order],
        distance=length[order],
        edge=edge[order],
        name=torch.cat([there, back + len(distance)])[order],
    )


def _columns(source: Tensor, edge: Tensor, atoms: int) -> tuple[Tensor, int]:
    """Return the place of each pair in its row, edges first, in their order, and the longest row."""
    first = edge.long()
    count, ahead = torch.bincount(source, minlength=atoms), torch.cumsum(first, 0) - first
    start = torch.cumsum(count, 0) - count
    edges = torch.bincount(source[edge], minlength=atoms)
    ahead = ahead - (torch.cumsum(edges, 0) - edges)[source]
    place = torch.arange(len(source), device=source.device) - start[source]
    return torch.where(edge, ahead, edges[source] + place - ahead), int(count.max()) if atoms else 0


def _reverse(name: Tensor, names: int) -> Tensor:
    """Return where each edge's reverse is; names of opposite directions differ by half of all names."""
    number = torch.full((names,), -1, device=name.device)
    number[name] = torch.arange(len(name), device=name.device)
    return number[(name + names // 2) % names]


def _with_weight(pairs: _Pairs, names: int, atoms: int, settings: GraphSettings) -> Tensor:
    """Return which of the possible edges have e > 0."""
    column, width = _columns(pairs.source, pairs.edge, atoms)
    rank = _ranks(pairs.distance, pairs.source * width + column, (atoms, width), pairs.edge, settings)
    rank_in = None
    if settings.mode == "mutual":
        reverse = _reverse(pairs.name[pairs.edge], names)
        rank_in = rank[reverse]
    weighty = envelope_bias(rank, rank_in, pairs.distance[pairs.edge], settings) > -math.inf
    if settings.mode == "mutual":
        weighty &= weighty[reverse]  # whatever the rounding
    edge = pairs.edge.clone()
    edge[pairs.edge] = weighty
    return edge


def _slots(row: Tensor, column: Tensor, edge: Tensor, atoms: int, bucket: int) -> Tensor:
    """Return (N, K) rows of the token array: the atom itself, its edges, and the dummy."""
    longest = int(column.max()) + 1 if len(column) else 0
    wide = -(-(1 + longest) // bucket) * bucket
    slots = torch.full((atoms, wide), atoms + len(edge), device=row.device)
    slots[:, 0] = torch.arange(atoms, device=row.device)
    slots[row, 1 + column] = atoms + edge
    return slots


def _ranks(
    distance: Tensor, place: Tensor, shape: tuple[int, int], edges: Tensor | slice, settings: GraphSettings
) -> Tensor:
    """Return the rank of each edge among all pairs of its row.

    Args:
        distance: (P,) Å.
        place: (P,) in the flattened table, edges first in each row.
        shape: (N, T) of the table.
        edges: which pairs to rank.
        settings: of the graph.
    """
    rows, width = shape
    table = distance.new_full((rows * width,), FAR).scatter(0, place, distance).view(shape)
    ranked = place[edges]
    columns = int((ranked % width).max()) + 1 if len(ranked) else 0
    rank = ranks(table, columns, settings).flatten()
    return rank.index_select(0, ranked // width * columns + ranked % width)


def differentiable_stage(
    topology: Topology, positions: Tensor, cell: Tensor, settings: GraphSettings
) -> Geometry:
    """Place the edges in space and weigh them, differentiably (twice) with respect to positions and cell.

    Ranks and weights have the precision of the positions. Edges that a topology made with a skin has in
    excess get log e = −∞ and add exactly 0 to the ranks of the others.

    Args:
        topology: from `index_stage`.
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        settings: those of the topology.

    Returns:
        Vectors, distances and log e of the edges.
    """
    t, edges = topology, slice(len(topology.reverse))
    vector = pair_vectors(positions, cell, t.system, t.pair_source, t.pair_target, t.pair_shift, t.crossing)
    distance = torch.linalg.vector_norm(vector, dim=1)
    rank = _ranks(distance, t.place, (len(t.numbers), t.width), edges, settings)
    rank_in = rank.index_select(0, t.reverse) if settings.mode == "mutual" else None
    return Geometry(vector[edges], distance[edges], envelope_bias(rank, rank_in, distance[edges], settings))
