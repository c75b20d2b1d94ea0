"""The graph of a batch in two stages: which edges there are, in integers, and their geometry, differentiable.

Tokens are rows of one packed array: row i < N is the self token of atom i, row N + e is edge e, and row
N + E is a dummy that padding points to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sfumato.graph.candidates import Candidates, find_candidates, pair_vectors, possible_edges
from sfumato.graph.envelope import envelope_bias
from sfumato.graph.neighbors import StructureError
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

SAME_PLACE = 1e-6
"""Å; two atoms closer than this have no direction from one to the other."""


@dataclass(frozen=True, eq=False)
class Topology:
    """Who attends to whom, in integers only.

    The pairs are the edges, sorted by source and distance, followed by the witnesses: neighbors that
    carry no edge but have a say in the rank of one.

    Args:
        numbers: (N,) atomic numbers.
        system: (N,) the structure of each atom.
        n_systems: G.
        pair_source: (P,) i.
        pair_target: (P,) j.
        pair_shift: (P, 3) S: the neighbor is at pos_j + S·cell.
        reverse: (E,) edge (i → j, S) ↔ edge (j → i, −S): its own inverse in "mutual" mode; −1 where the
            reversed edge is absent in "out" mode.
        mutual: the mode of the graph.
        bucket: the widths of slots are multiples of it.
    """

    numbers: Tensor
    system: Tensor
    n_systems: int
    pair_source: Tensor
    pair_target: Tensor
    pair_shift: Tensor
    reverse: Tensor
    mutual: bool
    bucket: int = 1

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

    @cached_property
    def crossing(self) -> Tensor:
        """The pairs whose S is not 0."""
        return torch.nonzero(self.pair_shift.any(1))[:, 0]

    @cached_property
    def columns(self) -> tuple[int, int]:
        """T, the columns of a table of distances with a row for each atom, and how many hold all edges."""
        pairs, edges = self._counts
        return (int(pairs.max()), int(edges.max())) if len(pairs) else (0, 0)

    @cached_property
    def place(self) -> Tensor:
        """(P,) each pair's place in this table, flattened: the edges of an atom, then its witnesses."""
        pairs, edges = self._counts
        n, witnesses = len(self.reverse), self.pair_source[len(self.reverse) :]
        column = torch.cat(
            [
                _within(self.pair_source[:n], edges),
                _within(witnesses, pairs - edges) + edges.index_select(0, witnesses),
            ]
        )
        return self.pair_source * self.columns[0] + column

    @cached_property
    def out_slots(self) -> Tensor:
        """(N, K) the tokens of each atom's out-neighborhood: itself, then its edges by distance."""
        number = torch.arange(len(self.reverse), device=self.reverse.device)
        return _slots(self.source, number, len(self.numbers), self.bucket)

    @cached_property
    def in_slots(self) -> Tensor:
        """(N, K_in) of its in-neighborhood. In "mutual" mode edge by edge the reverse of `out_slots`."""
        if self.mutual:
            return _slots(self.source, self.reverse, len(self.numbers), self.bucket)
        return _slots(*torch.sort(self.target, stable=True), len(self.numbers), self.bucket)

    @cached_property
    def _counts(self) -> tuple[Tensor, Tensor]:
        """(N,) how many pairs, and how many edges each atom has."""
        atoms = len(self.numbers)
        return torch.bincount(self.pair_source, minlength=atoms), torch.bincount(self.source, minlength=atoms)

    def to(self, device: torch.device | str) -> Topology:
        """Return the same graph on another device, with all that follows from its fields."""
        if torch.device(device) == self.numbers.device:
            return self
        moved: dict[str, Any] = {
            name: part.to(device) if isinstance(part, Tensor) else part
            for name in (
                *(f.name for f in fields(self)),
                "crossing",
                "columns",
                "place",
                "out_slots",
                "in_slots",
            )
            for part in (getattr(self, name),)
        }
        there = Topology(**{f.name: moved.pop(f.name) for f in fields(self)})
        vars(there).update(moved)  # where cached properties are kept
        return there


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

    Without a skin these are the edges with e > 0; f is taken to 1e-6 here, where e < 1e-86. With a skin
    they are all that can become so until some atom has moved by half of it in a cell that stays as it is;
    the others have log e = −∞. A skin of 0.5 Å may double the edges: in a long run rather hold
    `find_candidates(…, skin)` and call `select_edges` at every step.

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
        StructureError: what `neighbor_pairs` refuses, or two atoms at the same place; says which.
    """
    candidates = find_candidates(positions, cell, pbc, system, settings, skin)
    distance = candidates.distance
    refuse_one_place(candidates, distance, system)
    return _topology(candidates, distance, numbers, system, len(cell), settings, skin, bucket)


Select = Callable[[Candidates, Tensor, Tensor, Tensor, Tensor, GraphSettings], Topology]
"""What finds edges among candidates, with the arguments and the result of `select_edges`."""


def select_edges(
    candidates: Candidates,
    positions: Tensor,
    cell: Tensor,
    numbers: Tensor,
    system: Tensor,
    settings: GraphSettings,
    bucket: int = 1,
) -> Topology:
    """Find the edges among candidates found with a skin, as long as no atom has moved by half of it.

    Arguments and result are those of `index_stage`.

    Raises:
        StructureError: two atoms at the same place; says which.
    """
    distance = candidates.lengths(positions, cell, system)
    refuse_one_place(candidates, distance, system)
    return _topology(candidates, distance, numbers, system, len(cell), settings, 0.0, bucket)


@torch.no_grad()
def _topology(
    candidates: Candidates,
    distance: Tensor,
    numbers: Tensor,
    system: Tensor,
    n_systems: int,
    settings: GraphSettings,
    skin: float,
    bucket: int,
) -> Topology:
    atoms = len(numbers)
    pairs = _rows(candidates, distance, atoms, settings, skin)
    edges = pairs.edges if skin else _with_weight(pairs, atoms, settings)
    witness = torch.ones_like(pairs.source, dtype=torch.bool).index_fill_(0, edges, False)
    order = torch.cat([edges, torch.nonzero(witness)[:, 0]])
    source, name = pairs.source[order], pairs.name[order]
    back = name >= len(distance)
    half = name - back * len(distance)
    i, j, shift = (part.index_select(0, half) for part in (candidates.i, candidates.j, candidates.shift))
    target = torch.where(back, i, j)
    shift[back] *= -1
    return Topology(
        numbers=numbers,
        system=system,
        n_systems=n_systems,
        pair_source=source,
        pair_target=target,
        pair_shift=shift,
        reverse=_reverse(name[: len(edges)], 2 * len(distance)),
        mutual=settings.mode == "mutual",
        bucket=bucket,
    )


def refuse_one_place(candidates: Candidates, distance: Tensor, system: Tensor) -> None:
    """Look at all pairs, not at edges alone: of many atoms at one place none may have an edge.

    Args:
        candidates: H pairs.
        distance: (H,) Å, where the atoms are.
        system: (N,) the structure of each atom.

    Raises:
        StructureError: two atoms at the same place; says which.
    """
    close = torch.nonzero(distance < SAME_PLACE)[:, 0]
    if not len(close):
        return
    reasons: dict[int, str] = {}
    close = close[distance[close].argsort(stable=True)]
    of = system[candidates.i[close]]
    for structure in torch.unique(of).tolist():
        pair, first = close[of == structure][0], int((system < structure).sum())
        i, j = sorted((int(candidates.i[pair]) - first, int(candidates.j[pair]) - first))
        reasons[structure] = f"atoms {i} and {j} of {{}} are at the same place; move or remove one"
    raise StructureError(reasons)


class _Pairs(NamedTuple):
    """Directed pairs sorted by source, then possible edges first, then distance.

    Args:
        source: (P,).
        distance: (P,) Å.
        name: (P,) h for the candidate i → j, H + h for j → i.
        names: 2H.
        edges: which are possible edges.
        place: (P,) in the flattened (N, T) table of distances.
        columns: T, and how many of the first columns hold all possible edges.
    """

    source: Tensor
    distance: Tensor
    name: Tensor
    names: int
    edges: Tensor
    place: Tensor
    columns: tuple[int, int]


def _rows(
    candidates: Candidates, distance: Tensor, atoms: int, settings: GraphSettings, skin: float
) -> _Pairs:
    """Return the possible edges and their witnesses: all that 4 d0 can reach from the longest edge."""
    ends, edges = (candidates.i, candidates.j), possible_edges(candidates, distance, atoms, settings, skin)
    reach = distance.new_full((atoms,), -math.inf)
    for end, edge in zip(ends, edges):
        chosen = torch.nonzero(edge)[:, 0]
        reach.scatter_reduce_(0, end[chosen], distance[chosen], "amax")
    if settings.rank == "sigmoid":
        reach[reach > 0] = math.inf
    reach += 4 * settings.d0 + 2 * skin
    forth, back = (torch.nonzero(distance < reach.index_select(0, end))[:, 0] for end in ends)
    source = torch.cat([ends[0].index_select(0, forth), ends[1].index_select(0, back)])
    edge = torch.cat([edges[0].index_select(0, forth), edges[1].index_select(0, back)])
    length = distance.index_select(0, torch.cat([forth, back]))
    # One sort by three keys: what is added to the row is below ½, so distances count to 1e-9 Å.
    # In double precision, whatever the default is: in half precision hundreds of rows run into each other.
    longest = length.max() if len(length) else 1.0
    order = torch.argsort(source.double() + 0.5 * ~edge + length * (0.49 / longest))
    source, possible = source.index_select(0, order), torch.nonzero(edge.index_select(0, order))[:, 0]
    count = torch.bincount(source, minlength=atoms)
    column, width = _within(source, count), int(count.max()) if atoms else 0
    return _Pairs(
        source=source,
        distance=length.index_select(0, order),
        name=torch.cat([forth, back + len(distance)]).index_select(0, order),
        names=2 * len(distance),
        edges=possible,
        place=source * width + column,
        columns=(width, int(column[possible].max()) + 1 if len(possible) else 0),
    )


def _within(row: Tensor, count: Tensor) -> Tensor:
    """Return the place of each within its row, rows being sorted."""
    start = torch.cumsum(count, 0) - count
    return torch.arange(len(row), device=row.device) - start.index_select(0, row)


def _with_weight(pairs: _Pairs, atoms: int, settings: GraphSettings) -> Tensor:
    """Return which of the possible edges have e > 0, f being known to 1e-6."""
    distance, edges = pairs.distance.float(), pairs.edges
    ends = pairs.source.index_select(0, edges), pairs.place.index_select(0, edges)
    rank = _ranks(distance, pairs.place, ends, atoms, pairs.columns, settings)
    length = distance.index_select(0, edges)
    if settings.mode == "out":
        return edges[envelope_bias(rank, None, length, settings) > -math.inf]
    reverse = _reverse(pairs.name.index_select(0, edges), pairs.names)
    weighty = envelope_bias(rank, rank[reverse], length, settings) > -math.inf
    return edges[weighty & weighty[reverse]]  # both or none, whatever the rounding


def _reverse(name: Tensor, names: int) -> Tensor:
    """Return where each edge's reverse is; names of opposite directions differ by half of all names."""
    number = torch.full((names,), -1, device=name.device)
    number[name] = torch.arange(len(name), device=name.device)
    return number[torch.where(name < names // 2, name + names // 2, name - names // 2)]


def _slots(row: Tensor, edge: Tensor, atoms: int, bucket: int) -> Tensor:
    """Return (N, K) rows of the token array, for edges sorted by row: the atom, its edges, the dummy."""
    count = torch.bincount(row, minlength=atoms)
    wide = 1 + int(count.max()) if atoms else 1
    slots = torch.full((atoms, -(-wide // bucket) * bucket), atoms + len(edge), device=row.device)
    slots[:, 0] = torch.arange(atoms, device=row.device)
    slots[row, 1 + _within(row, count)] = atoms + edge
    return slots


def _ranks(
    distance: Tensor,
    place: Tensor,
    edges: tuple[Tensor, Tensor],
    atoms: int,
    columns: tuple[int, int],
    settings: GraphSettings,
) -> Tensor:
    """Return the rank of each edge among all pairs of its row.

    Args:
        distance: (P,) Å.
        place: (P,) in the flattened (N, T) table.
        edges: (E,) sources and places of the edges.
        atoms: N.
        columns: T, and how many of the first columns hold all edges.
        settings: of the graph.
    """
    width, ranked = columns
    source, at = edges
    table = distance.new_full((atoms * width,), FAR).scatter(0, place, distance).view(atoms, width)
    # The same row and column in the narrower table of ranks.
    return ranks(table, ranked, settings).flatten().index_select(0, at - source * (width - ranked))


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
    t, edges = topology, len(topology.reverse)
    vector = pair_vectors(positions, cell, t.system, t.pair_source, t.pair_target, t.pair_shift, t.crossing)
    distance = torch.linalg.vector_norm(vector, dim=1)
    rank = _ranks(distance, t.place, (t.source, t.place[:edges]), len(t.numbers), t.columns, settings)
    rank_in = rank.index_select(0, t.reverse) if settings.mode == "mutual" else None
    length = distance[:edges]
    return Geometry(vector[:edges], length, envelope_bias(rank, rank_in, length, settings))
