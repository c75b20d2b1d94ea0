"""Which tokens attend to each other, and what their attention knows of the geometry.

Tokens are the rows of one packed array, self tokens first, then edges. The window of an atom holds its self
token and the edges that leave it, or those that arrive. Windows are put into tables, those of similar size
together, and tables are worked on in parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.graph.layout import Geometry, Topology
from sfumato.models.harmonics import legendre
from sfumato.models.mindscaip.calculus import scatter_rows
from sfumato.models.mindscaip.config import MinDScAIPConfig

SELF_BIAS = 0.0
"""log e of the self token: it is always there to take the weight that edges lose as they fade."""

NEVER = -1e30
"""Stands for log 0: its exponential is exactly 0 as that of −∞ is, but no difference of two is NaN."""

FAINT = -60.0
"""An edge whose log e is below has no weight: 1e-26 of another's is lost in rounding, in double precision and
in derivatives too, but as a number next to zero it would make single-precision products ten times slower."""

LANES = 16
"""Windows are padded to a multiple of this: a softmax over 14 takes ten times as long as one over 16."""

HOT = {"cpu": 2**19, "cuda": 2**40}
"""Numbers of one kind worked on at once: on a CPU what stays in its cache from one operation to the next."""


@dataclass(frozen=True)
class Part:
    """The windows of some atoms that are worked on together, on an array of their rows alone.

    Args:
        atoms: which atoms of the table.
        rows: (t,) their rows in the packed array: n self tokens, then edges, window by window.
        take: (n·H·K) where in (t, 3, H), third 0, a place of a window is found; some row where it is empty.
        take_one: the same in (t, H).
        collect: (t·3·H) where in (3, n, H, K) each row lies.
        collect_one: (t·H) where in (n, H, K).
        present: (n, 1, K, 1) one, or zero in empty places.
    """

    atoms: slice
    rows: Tensor
    take: Tensor
    take_one: Tensor
    collect: Tensor
    collect_one: Tensor
    present: Tensor


@dataclass(frozen=True)
class Table:
    """Windows of n atoms, padded to one width.

    Args:
        slots: (n, K) rows of every window, the self token first; T in empty places.
        present: (n, K) one, or zero in empty places.
        rows: (t,) the rows that occur: self tokens, then edges, window by window.
        place: (t,) where each of them lies in `slots`, counted row by row.
        parts: the same, cut into pieces.
    """

    slots: Tensor
    present: Tensor
    rows: Tensor
    place: Tensor
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, slots: Tensor, n_rows: int, heads: int, width: int, dtype: torch.dtype) -> Table:
        """Make a table.

        Args:
            slots: (n, K) rows, `n_rows` in empty places; the self token first.
            n_rows: T.
            heads: H.
            width: C, for the size of the parts.
            dtype: of the tokens.
        """
        n, k = slots.shape
        there, device = slots < n_rows, slots.device
        present, edges = there.to(dtype), there[:, 1:]
        edge_rows, (atom, slot) = slots[:, 1:][edges], torch.nonzero(edges, as_tuple=True)
        first_place = torch.arange(n, device=device) * k
        place = torch.cat([first_place, atom * k + slot + 1])
        # The number of each edge in the order of the windows, and how many there are before each atom. Where
        # there is none, −1: it becomes the row of a self token, which every part has.
        number = torch.where(edges, edges.reshape(-1).cumsum(0).view_as(edges) - 1, -1)
        before = [0, *edges.sum(1).cumsum(0).tolist()]
        head = torch.arange(heads, device=device)
        lies = (place.div(k, rounding_mode="floor")[:, None] * heads + head) * k + (place % k)[:, None]
        step = max(1, HOT.get(device.type, HOT["cpu"]) // (k * width))
        parts = []
        for start in range(0, n, step):
            stop = min(start + step, n)
            first, last, size = before[start], before[stop], stop - start
            local = number.new_zeros(size, k)
            local[:, 0] = torch.arange(size, device=device)
            local[:, 1:] = (number[start:stop] + (size - first)).clamp_(min=0)
            collect = torch.cat([lies[start:stop], lies[n + first : n + last]]) - start * heads * k
            third = torch.arange(3, device=device)[:, None] * (size * heads * k)
            parts.append(
                Part(
                    slice(start, stop),
                    torch.cat([slots[start:stop, 0], edge_rows[first:last]]),
                    (local[:, None, :] * (3 * heads) + head[:, None]).view(-1),
                    (local[:, None, :] * heads + head[:, None]).view(-1),
                    (collect[:, None, :] + third).view(-1),
                    collect.view(-1),
                    present[start:stop, None, :, None],
                )
            )
        return cls(slots, present, torch.cat([slots[:, 0], edge_rows]), place, tuple(parts))


def tables(slots: Tensor, n_rows: int, heads: int, width: int, dtype: torch.dtype) -> tuple[Table, ...]:
    """Return the windows of all atoms, those that need the same width in one table.

    Without that, one crowded atom among thousands would quadruple the work for all. Arguments are those of
    `Table.of`, the slots of all atoms.
    """
    needed = (slots < n_rows).sum(1).add(LANES - 1).div(LANES, rounding_mode="floor")
    found = []
    for lanes in torch.unique(needed).tolist():
        k = lanes * LANES
        some = slots[needed == lanes][:, :k]
        padded = torch.nn.functional.pad(some, (0, k - some.shape[1]), value=n_rows)
        found.append(Table.of(padded, n_rows, heads, width, dtype))
    return tuple(found)


@dataclass(frozen=True)
class Window:
    """A table with what depends on the geometry.

    Args:
        table: of n atoms.
        bias: (n, K) log e, `NEVER` or less in empty places.
        cosine: (n, K, K) of the angles between edges; None without an angular bias.
        angles: (n, degree + 1, K, K) their Legendre polynomials, zero for self tokens and empty places.
    """

    table: Table
    bias: Tensor
    cosine: Tensor | None = None
    angles: Tensor | None = None


Windows = tuple[Window, ...]


def windows(
    topology: Topology, geometry: Geometry, direction: Tensor, config: MinDScAIPConfig, dtype: torch.dtype
) -> tuple[Windows, Windows]:
    """Return the windows of edges that leave each atom, and of those that arrive.

    Args:
        topology: of the batch.
        geometry: of the batch.
        direction: (E, 3) unit vectors, in the precision of the geometry.
        config: of the model.
        dtype: of the tokens.
    """
    n = len(topology.numbers)
    sizes = (n + len(direction), config.heads, config.width, dtype)
    made = getattr(topology, "tables", None)
    leaving, arriving = made or (tables(slots, *sizes) for slots in (topology.out_slots, topology.in_slots))
    edge = geometry.bias.to(dtype)
    log_e = torch.cat([edge.new_full((n,), SELF_BIAS), torch.where(edge > FAINT, edge, NEVER)])
    degree = None if config.directional == "harmonics" else config.angular_degree
    first = tuple(_window(table, log_e, direction, n, degree) for table in leaving)
    if config.graph.mode == "mutual":
        # Place by place the reverse of the others: of equal bias, and the angles of two reversed edges too.
        pairs = zip(arriving, first, strict=True)
        return first, tuple(Window(table, w.bias, w.cosine, w.angles) for table, w in pairs)
    return first, tuple(_window(table, log_e, direction, n, degree) for table in arriving)


def _window(table: Table, log_e: Tensor, direction: Tensor, atoms: int, degree: int | None) -> Window:
    n, k = table.slots.shape
    where = (table.slots.view(-1), table.rows, table.place)
    bias = scatter_rows(log_e[:, None], *where).view(n, k) + (1 - table.present) * (2 * NEVER)
    if degree is None:
        return Window(table, bias)
    rows = torch.cat([direction.new_zeros(atoms, 3), direction])
    around = scatter_rows(rows, *where).view(n, k, 3)
    # In the precision of the geometry: a product of doubles is never rounded to ten bits on a GPU.
    cosine = torch.bmm(around, around.transpose(1, 2)).to(log_e.dtype)
    is_edge = table.present * (table.slots >= atoms)
    return Window(table, bias, cosine, legendre(cosine, degree, is_edge[:, :, None] * is_edge[:, None, :]))
