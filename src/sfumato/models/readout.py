"""What is read from the tokens: energy, forces, stress and denoising; and the repulsion of nuclei.

Where tokens do not know directions, vectors are sums of those of the edges, each weighted by its envelope:
smooth, and turning with the structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.graph.layout import Topology
from sfumato.models.config import WITH_RADIUS
from sfumato.units import BOHR, HARTREE


class FeedForward(nn.Module):
    """Linear, activation, linear.

    Args:
        width: C in.
        hidden: channels between.
        out: channels out.
        gated: the activation multiplies a second linear map of the input.
    """

    def __init__(self, width: int, hidden: int, out: int, gated: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden * (2 if gated else 1))
        self.down = nn.Linear(hidden, out)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, out)."""
        u = self.up(x)
        if self.gated:
            gate, value = u.chunk(2, dim=-1)
            return self.down(functional.silu(gate) * value)  # type: ignore[no-any-return]
        return self.down(functional.silu(u))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Tokens:
    """What the backbone hands to the heads.

    Args:
        nodes: (N, C) node vectors, normalized.
        edges: (E, C) edge tokens, normalized.
        unit: (E, 3) directions from source to target.
        envelope: (E,) e.
        topology: of the batch.
    """

    nodes: Tensor
    edges: Tensor
    unit: Tensor
    envelope: Tensor
    topology: Topology

    def over_edges(self, values: Tensor) -> Tensor:
        """Return (N, …) the sum of (E, …) values over the edges that leave each atom."""
        total = values.new_zeros(len(self.nodes), *values.shape[1:])
        return total.index_add(0, self.topology.source, values)

    def over_atoms(self, values: Tensor) -> Tensor:
        """Return (G, …) the sum of (N, …) values over the atoms of each structure."""
        total = values.new_zeros(self.topology.n_systems, *values.shape[1:])
        return total.index_add(0, self.topology.system, values)

    def mean(self, values: Tensor) -> Tensor:
        """Return (G, …) the mean of (N, …) values over the atoms of each structure."""
        count = self.over_atoms(values.new_ones(len(values))).clamp(min=1)
        return self.over_atoms(values) / count.view(-1, *[1] * (values.dim() - 1))


class VectorHead(nn.Module):
    """One vector per atom.

    Args:
        width: C of the tokens.
        hidden: channels inside its feed-forward network.
        free: tokens know directions, so that a vector can be read from them; it need not turn with the
            structure.
    """

    def __init__(self, width: int, hidden: int, free: bool) -> None:
        super().__init__()
        self.free = free
        self.feed = FeedForward(width, hidden, 3 if self.free else 1)

    def forward(self, tokens: Tokens) -> Tensor:
        """Return (N, 3)."""
        if self.free:
            return self.feed(tokens.nodes)  # type: ignore[no-any-return]
        return tokens.over_edges(self.feed(tokens.edges) * tokens.envelope[:, None] * tokens.unit)


class StressHead(nn.Module):
    """One symmetric tensor per structure, the mean over its atoms.

    Args:
        width: C of the tokens.
        hidden: channels inside its feed-forward network.
        free: tokens know directions, so that a vector can be read from them; it need not turn with the
            structure.
    """

    def __init__(self, width: int, hidden: int, free: bool) -> None:
        super().__init__()
        self.free = free
        self.nodes = FeedForward(width, hidden, 6 if self.free else 1)
        if not self.free:
            self.edges = FeedForward(width, hidden, 1)

    def forward(self, tokens: Tokens) -> Tensor:
        """Return (G, 3, 3)."""
        found = self.nodes(tokens.nodes)
        if self.free:
            return tokens.mean(found[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]])
        pull = (self.edges(tokens.edges) * tokens.envelope[:, None])[:, :, None]
        around = tokens.over_edges(pull * (tokens.unit[:, :, None] * tokens.unit[:, None, :]))
        return tokens.mean(around + found[:, :, None] * torch.eye(3, dtype=found.dtype, device=found.device))


class ForceEncoding(nn.Module):
    """Known forces as input of a model that finds displaced atoms.

    Self tokens get |F| and, where tokens know directions, F; else edges get F along them, at both ends. The
    last layer starts at zero: a model that is not denoising does not notice it.

    Args:
        width: C of the tokens.
        free: tokens know directions.

    Source: Liao et al. 2024 (DeNS).
    """

    def __init__(self, width: int, free: bool) -> None:
        super().__init__()
        self.free = free
        self.nodes = FeedForward(5 if self.free else 2, width, width)
        self.edges = None if self.free else FeedForward(3, width, width)

    def forward(self, forces: Tensor, unit: Tensor, topology: Topology) -> Tensor:
        """Return (N + E, C) to add to the tokens.

        Args:
            forces: (N, 3) over the scale of the model.
            unit: (E, 3).
            topology: of the batch.
        """
        one = torch.ones_like(forces[:, :1])
        size = torch.linalg.vector_norm(forces, dim=1, keepdim=True)
        nodes = self.nodes(torch.cat([forces, size, one] if self.free else [size, one], dim=1))
        if self.edges is None:
            return torch.cat([nodes, nodes.new_zeros(len(unit), nodes.shape[1])])
        ends = [(forces[end] * unit).sum(1, keepdim=True) for end in (topology.source, topology.target)]
        return torch.cat([nodes, self.edges(torch.cat([*ends, torch.ones_like(ends[0])], dim=1))])


ZBL_WEIGHTS = (0.18175, 0.50986, 0.28022, 0.02817)
ZBL_RATES = (3.19980, 0.94229, 0.40290, 0.20162)
ZBL_REACH = 0.8
"""Of the sum of covalent radii: less than any bond (N₂, the shortest, has 0.77 and 10⁻⁶ of
the repulsion), since what is for compressed atoms must not move equilibria."""


class ZBL(nn.Module):
    """Screened repulsion of nuclei, exactly zero beyond `ZBL_REACH` of the sum of covalent radii.

    E = ½ Σ e S φ over edges. S = σ(1/t − 1/(1 − t)) with t from 0 at half of this reach to 1 at its end
    goes from 1 to 0 with all derivatives continuous; e is the envelope of the edge, which keeps the
    energy smooth should so many atoms be so near that one of them loses its edge.

    Args:
        elements: atomic numbers that will occur.
        cutoff: Å, of the graph.

    Raises:
        ValueError: an element without covalent radius, or a pair whose repulsion the graph would cut off.

    Source: Ziegler, Biersack & Littmark 1985.
    """

    radii: Tensor

    def __init__(self, elements: tuple[int, ...], cutoff: float) -> None:
        from ase.data import chemical_symbols, covalent_radii

        super().__init__()
        missing = [chemical_symbols[z] for z in elements if z > WITH_RADIUS]
        if missing:
            raise ValueError(
                f"zbl: no covalent radius is known for {', '.join(missing)}; leave them out of elements"
            )
        widest = max(elements, key=lambda z: float(covalent_radii[z]))
        reach, symbol = 2 * ZBL_REACH * float(covalent_radii[widest]), chemical_symbols[widest]
        if reach > cutoff:
            raise ValueError(
                f"zbl: the repulsion of two {symbol} reaches to {reach:.2f} Å, the graph to {cutoff:g} Å; "
                "list the elements that occur, or widen the cutoff"
            )
        self.register_buffer("radii", torch.tensor(covalent_radii, dtype=torch.float64), persistent=False)

    def is_near(self, topology: Topology, distance: Tensor) -> bool:
        """Return whether the nuclei of any edge repel each other; arguments are those of `forward`."""
        return bool((distance < self._reach(topology)).any())

    def _reach(self, topology: Topology) -> Tensor:
        zi, zj = (topology.numbers[end] for end in (topology.source, topology.target))
        return ZBL_REACH * (self.radii[zi] + self.radii[zj])

    def forward(self, topology: Topology, distance: Tensor, envelope: Tensor) -> Tensor:
        """Return (E,) eV, what each edge adds to the energy of its source.

        Args:
            topology: of the batch.
            distance: (E,) Å.
            envelope: (E,) e.
        """
        zi, zj = (topology.numbers[end] for end in (topology.source, topology.target))
        reach = self._reach(topology).to(distance)
        t = 2 * distance / reach - 1
        inside = t < 1
        # Smooth: as t → 0 and t → 1 both branches meet with all derivatives zero; ½ keeps the other finite.
        between = inside & (t > 0)
        u = torch.where(between, t, 0.5)
        fade = torch.where(between, torch.sigmoid(1 / u - 1 / (1 - u)), inside.to(distance))
        zi, zj = zi.to(distance), zj.to(distance)
        length = 0.8854 * BOHR / (zi**0.23 + zj**0.23)
        screen = sum(c * torch.exp(-rate * distance / length) for c, rate in zip(ZBL_WEIGHTS, ZBL_RATES))
        return 0.5 * HARTREE * BOHR * zi * zj / distance * screen * fade * envelope
