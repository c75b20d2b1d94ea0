"""Batches of a fixed shape: what is there, then atoms, edges and structures that change nothing.

A compiled graph of operations holds for one shape. What fills a batch up to it is a structure of its own, the
last one: a lattice of lone atoms, the first of which carries the surplus edges, each to its own image. These
edges lie in no window, and nothing is read from that structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.graph.layout import Topology
from sfumato.models.mindscaip.windows import LANES, Table

STEPS = 8
"""Sizes are rounded up to this many steps per power of two."""


@dataclass(frozen=True)
class Shape:
    """How large everything of a batch is.

    Args:
        atoms: N.
        edges: E.
        pairs: P, edges and witnesses.
        structures: G.
        columns: of the table of distances.
        ranked: columns of it that hold edges.
        out: width of the windows of leaving edges, self token included.
        into: of arriving ones.
    """

    atoms: int
    edges: int
    pairs: int
    structures: int
    columns: int
    ranked: int
    out: int
    into: int

    @classmethod
    def of(cls, topology: Topology) -> Shape:
        """Return the sizes of a batch."""
        t = topology
        sizes = (len(t.numbers), len(t.reverse), len(t.pair_source), t.n_systems, *t.columns)
        return cls(*sizes, t.out_slots.shape[1], t.in_slots.shape[1])

    def rounded(self) -> Shape:
        """Return a shape that holds such batches, with room for the structure that fills it.

        It depends on the sizes alone, so that a run that goes on computes as if it had never stopped. What
        costs little is rounded coarsely, so that shapes are few.
        """
        ranked, out, into = (-(-n // LANES) * LANES for n in (self.ranked, self.out, self.into))
        edges, witnesses = rounded_up(self.edges), 1 << (self.pairs - self.edges).bit_length()
        columns = max(ranked, 1 << (self.columns - 1).bit_length())
        atoms, structures = rounded_up(self.atoms + 1), rounded_up(self.structures + 1)
        return Shape(atoms, edges, edges + witnesses, structures, columns, ranked, out, into)


def rounded_up(n: int) -> int:
    """Return the next of eight steps per power of two: at most an eighth more, and few different sizes."""
    n = max(n, 1)
    step = max(1, (1 << (n.bit_length() - 1)) // STEPS)
    return -(-n // step) * step


@dataclass(frozen=True, eq=False)
class Padded(Topology):
    """A topology with tables of windows made beforehand, so that nothing depends on its numbers any more.

    Args:
        tables: of leaving and of arriving edges.
    """

    tables: tuple[tuple[Table, ...], tuple[Table, ...]] = ((), ())


@dataclass(frozen=True, eq=False)
class Filled:
    """A batch of a fixed shape, as tensors only.

    Args:
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        integers: numbers, system, pair source, target and shift, reverse, place, and of either kind of
            windows slots, rows and place.
        present: of either kind of windows.
    """

    positions: Tensor
    cell: Tensor
    integers: tuple[Tensor, ...]
    present: tuple[Tensor, Tensor]


def filled(
    topology: Topology,
    positions: Tensor,
    cell: Tensor,
    shape: Shape,
    cutoff: float,
    dtype: torch.dtype,
) -> Filled:
    """Fill a batch up to a shape.

    Args:
        topology: of the batch.
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        shape: which holds the batch.
        cutoff: Å, of the graph.
        dtype: of the tokens.
    """
    t, here = topology, Shape.of(topology)
    n, e = here.atoms, here.edges
    more_atoms, more_edges = shape.atoms - n, shape.edges - e
    more_witnesses = shape.pairs - shape.edges - (here.pairs - e)

    def pairs(values: Tensor, fill: list[int] | int) -> Tensor:
        tail = values.new_tensor(fill)
        edges, witnesses = (tail.expand(k, *values.shape[1:]) for k in (more_edges, more_witnesses))
        return torch.cat([values[:e], edges, values[e:], witnesses])

    itself = torch.arange(e, shape.edges, device=t.reverse.device)
    column = t.place - t.pair_source * here.columns
    lone = positions.new_zeros(more_atoms, 3)
    boxes = torch.eye(3, dtype=cell.dtype, device=cell.device).expand(
        shape.structures - here.structures, 3, 3
    )
    integers = [
        torch.cat([t.numbers, t.numbers.new_ones(more_atoms)]),
        torch.cat([t.system, t.system.new_full((more_atoms,), shape.structures - 1)]),
        pairs(t.pair_source, n),
        pairs(t.pair_target, n),
        pairs(t.pair_shift, [1, 0, 0]),
        torch.cat([t.reverse, itself]),
        pairs(t.pair_source * shape.columns + column, n * shape.columns),
    ]
    present = []
    for slots, width in ((t.out_slots, shape.out), (t.in_slots, shape.into)):
        parts, there = _windows(slots, here, shape, width)
        integers += parts
        present.append(there.to(dtype))
    out, into = present
    return Filled(torch.cat([positions, lone]), torch.cat([cell, boxes]), tuple(integers), (out, into))


def _windows(slots: Tensor, here: Shape, shape: Shape, width: int) -> tuple[list[Tensor], Tensor]:
    """Return slots, rows and places of a table of windows, and which places are taken."""
    n, device = here.atoms, slots.device
    wide = slots.new_full((shape.atoms, width), shape.atoms + shape.edges)
    wide[:, 0] = torch.arange(shape.atoms, device=device)
    taken = slots[:, 1:] < n + here.edges
    atom, slot = torch.nonzero(taken, as_tuple=True)
    rows = slots[:, 1:][taken] - n + shape.atoms
    wide[atom, slot + 1] = rows
    surplus = torch.arange(shape.atoms + here.edges, shape.atoms + shape.edges, device=device)
    firsts = torch.arange(shape.atoms, device=device)
    # Surplus edges share the last place of the last window, which is empty: the lone atom has no edges.
    last = surplus.new_full((len(surplus),), shape.atoms * width - 1)
    place = torch.cat([firsts * width, atom * width + slot + 1, last])
    return [wide, torch.cat([firsts, rows, surplus]), place], wide < shape.atoms + shape.edges


def topology_of(batch: Filled, shape: Shape, mutual: bool) -> Padded:
    """Return the topology of a filled batch."""
    numbers, system, source, target, shift, reverse, place, *windows = batch.integers
    out, into = (
        (Table(slots, present, rows, places, ()),)
        for (slots, rows, places), present in zip((windows[:3], windows[3:]), batch.present, strict=True)
    )
    found = Padded(
        numbers, system, shape.structures, source, target, shift, reverse, mutual, tables=(out, into)
    )
    crossing = torch.arange(shape.pairs, device=source.device)
    known = {"place": place, "columns": (shape.columns, shape.ranked), "crossing": crossing}
    vars(found).update(known)  # where cached properties are kept
    return found
