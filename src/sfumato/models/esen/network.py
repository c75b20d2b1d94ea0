"""eSEN: features that turn with the structure, exchanged in the frames of edges, smooth by design.

A batch enters as positions and a `Topology` (integers); everything from there on is differentiable twice
with respect to positions, strain and weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sfumato.graph.layout import Geometry, Topology, differentiable_stage
from sfumato.models.config import ELEMENTS
from sfumato.models.esen.config import ESENConfig
from sfumato.models.esen.heads import Encoding, Energy, StressHead, VectorHead
from sfumato.models.esen.initial import initialize
from sfumato.models.esen.layers import Edges, Layer, Norm, Radial
from sfumato.models.esen.so3 import orders, rotations
from sfumato.models.harmonics import gaussians
from sfumato.models.network import Network, Output, per_structure, strained
from sfumato.models.readout import ZBL

FRAME = 8
"""Numbers held for the gradient for each element of a Wigner matrix. With those of `numbers_per_edge` and
`ATOM` the estimate is 2 to 11 % above what energy and forces took (float32, diamond)."""

ATOM = 12
"""Times the features of an atom in each layer, likewise."""

NEIGHBORS = 5.0
"""What the first description of an atom, a sum over its neighbors, is divided by."""


class ESEN(Network):
    """The network.

    Args:
        config: what it is made of.
        generator: of the weights; None: seed 0.
        dtype: of the weights.

    Source: Fu et al. 2025, Section 4.
    """

    config: ESENConfig
    centers: Tensor

    def __init__(
        self,
        config: ESENConfig,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(config)
        width, device, l_max = config.width, torch.empty(0).device, config.l_max
        with torch.device("meta"):  # so that no weights are drawn but by `initialize`
            # Given weights, since drawing them on "meta" would import torch's compiler, which takes seconds.
            rows = torch.empty(2, ELEMENTS + 1, config.edge_width)
            self.atoms = nn.Embedding(ELEMENTS + 1, width, _weight=torch.empty(ELEMENTS + 1, width))
            self.sources, self.targets = (
                nn.Embedding(ELEMENTS + 1, config.edge_width, _weight=part) for part in rows
            )
            inputs = config.radial + 2 * config.edge_width
            self.degree = Radial(inputs, config.edge_width, (l_max + 1) * width)
            self.frequencies = nn.Parameter(torch.empty(config.radial)) if config.basis == "bessel" else None
            self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
            self.norm = Norm(width, l_max)
            self.heads = heads_of(config)
        _allocate(self, device)
        self.to(dtype)
        centers = torch.linspace(0.0, config.graph.cutoff, config.radial, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)
        self.zbl = ZBL(config.known_elements, config.graph.cutoff) if config.zbl else None
        initialize(self, config, generator or torch.Generator().manual_seed(0))

    @property
    def direct(self) -> frozenset[str]:
        """See Network."""
        c = self.config
        return frozenset(
            name for name, has in (("forces", c.direct_forces), ("stress", c.direct_stress)) if has
        )

    @property
    def numbers_per_edge(self) -> int:
        """See Network."""
        c, n = self.config, (self.config.l_max + 1) ** 2
        rows, kinds = len(orders(c.l_max, c.m_max)), sum(c.l_max + 1 - m for m in range(c.m_max + 1))
        features = 4 * n * c.width + rows * (3 * c.width + 5 * c.hidden)
        factors = 2 * kinds * c.width + 6 * c.edge_width
        points = 4 * c.grid_resolution**2 * c.hidden if c.nonlinearity == "grid" else 0
        return (features + factors + points) * c.layers + FRAME * rows * n

    @property
    def numbers_per_atom(self) -> int:
        """See Network."""
        c = self.config
        return ATOM * (c.l_max + 1) ** 2 * (c.width + c.hidden) * c.layers

    def forward(
        self,
        topology: Topology,
        positions: Tensor,
        cell: Tensor,
        strain: Tensor | None = None,
        known_forces: Tensor | None = None,
    ) -> Output:
        """See Network."""
        if strain is not None:
            positions, cell = strained(topology, positions, cell, strain)
        geometry = differentiable_stage(topology, positions, cell, self.config.graph)
        edges = self._edges(topology, geometry)
        x = self._start(topology, edges)
        if known_forces is not None:
            if "encoding" not in self.heads:
                raise ValueError("known_forces: this model has no denoising head")
            x = x + self.heads["encoding"]((known_forces / self.scale).to(self.dtype))
        for layer in self.layers:
            x = _again(layer, x, edges) if self.checkpointing else layer(x, edges)
        x = self.norm(x)
        atoms = self.in_units(topology, self.heads["energy"](x[:, 0]))
        if self.zbl is not None:
            weight = self._weight(geometry)
            atoms = atoms.index_add(
                0, topology.source, self.zbl(topology, geometry.distance, weight).double()
            )
        return self._read(topology, x, per_structure(topology, atoms))

    def _edges(self, topology: Topology, geometry: Geometry) -> Edges:
        """Describe the edges: their frames, distances, elements and envelopes."""
        c, distance = self.config, geometry.distance.to(self.dtype)
        weight = self._weight(geometry).to(self.dtype)
        if self.frequencies is None:
            spacing = c.graph.cutoff / (c.radial - 1)
            waves = gaussians(distance, self.centers.to(self.dtype), 2 * spacing, 1.0)
        else:
            x = (distance / c.graph.cutoff)[:, None]
            waves = math.sqrt(2.0) * torch.sin(self.frequencies * x) / x * weight[:, None]
        ends = [
            table.weight.index_select(0, topology.numbers.index_select(0, end))
            for table, end in ((self.sources, topology.target), (self.targets, topology.source))
        ]
        unit = (geometry.vector / geometry.distance[:, None]).to(self.dtype)
        frame = rotations(unit, c.l_max, c.m_max)
        return Edges(
            source=topology.source,
            target=topology.target,
            frame=frame,
            scalars=torch.cat([waves, *ends], 1),
            back=(frame * weight[:, None, None]).transpose(1, 2),
        )

    def _weight(self, geometry: Geometry) -> Tensor:
        """Return (E,) what messages are multiplied by; 0 for an edge that is not there.

        Smooth: the polynomial and two of its derivatives vanish at the cutoff, the weight of the graph and
        all of its derivatives where an edge ends. Without an envelope there is a jump.
        """
        c = self.config
        if c.envelope == "graph":
            return geometry.bias.exp()
        present = geometry.bias > -math.inf
        if c.envelope == "none":
            return present.to(geometry.distance)
        p, x = c.envelope_power, torch.where(present, geometry.distance / c.graph.cutoff, 1.0)
        return 1 - x**p * ((p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x**2)

    def _start(self, topology: Topology, edges: Edges) -> Tensor:
        """Return (N, n, C): the elements, and what the neighbors are and where."""
        c, count = self.config, self.config.l_max + 1
        around = self.degree(edges.scalars).view(len(edges.source), count, c.width) / NEIGHBORS
        turned = torch.bmm(edges.back[:, :, :count], around)
        x = turned.new_zeros(len(topology.numbers), *turned.shape[1:]).index_add(0, edges.source, turned)
        own = self.atoms.weight.index_select(0, topology.numbers)
        return x + functional.pad(own[:, None], (0, 0, 0, x.shape[1] - 1))

    def _read(self, topology: Topology, x: Tensor, energy: Tensor) -> Output:
        forces = stress = noise = None
        if "forces" in self.heads:
            forces = self.scale * self.heads["forces"](x)
            forces = forces - _mean(topology, forces)[topology.system]
        if "stress" in self.heads:
            stress = self.scale * _mean(topology, self.heads["stress"](x))
        if "noise" in self.heads:
            noise = self.heads["noise"](x)
        return Output(energy, forces, stress, noise)


def _again(layer: nn.Module, x: Tensor, edges: Edges) -> Tensor:
    """Return what a layer does, keeping its input only; its weights may be those of a functional call."""
    weights = dict(layer.named_parameters())
    found: Tensor = checkpoint(functional_call, layer, weights, (x, edges), use_reentrant=False)
    return found


def _mean(topology: Topology, values: Tensor) -> Tensor:
    """Return (G, …) the mean of (N, …) values over the atoms of each structure."""
    count = torch.bincount(topology.system, minlength=topology.n_systems).clamp(min=1)
    total = values.new_zeros(topology.n_systems, *values.shape[1:]).index_add(0, topology.system, values)
    return total / count.view(-1, *[1] * (values.dim() - 1))


def _allocate(model: nn.Module, device: torch.device) -> None:
    """Give weights that were described on "meta" a place; buffers keep theirs."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(weight, device=device)))


def heads_of(config: ESENConfig) -> nn.ModuleDict:
    """Return the heads that a configuration asks for; the energy is always one of them."""
    heads: dict[str, nn.Module] = {"energy": Energy(config.width, config.hidden)}
    if config.direct_forces:
        heads["forces"] = VectorHead(config)
    if config.direct_stress:
        heads["stress"] = StressHead(config)
    if config.denoising:
        heads["encoding"] = Encoding(config)
        heads["noise"] = VectorHead(config)
    return nn.ModuleDict(heads)
