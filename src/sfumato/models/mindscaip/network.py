"""MinDScAIP: attention among the edges of a differentiable nearest-neighbor graph, smooth by design.

A batch enters as positions and a `Topology` (integers); everything from there on is differentiable twice
with respect to positions, strain and weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.graph.layout import Geometry, Select, Topology, differentiable_stage
from sfumato.models.config import ELEMENTS
from sfumato.models.harmonics import gaussians, smearing, solid_harmonics
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.initial import initialize
from sfumato.models.mindscaip.layers import Layer, Method, normalize
from sfumato.models.mindscaip.native.compiled import CompiledTape, Parts, hindrance, output
from sfumato.models.mindscaip.native.core import Core
from sfumato.models.mindscaip.native.select import select_compiled
from sfumato.models.mindscaip.traced import Graphs
from sfumato.models.mindscaip.windows import windows
from sfumato.models.network import Network, Output, Tape, per_structure, strained
from sfumato.models.readout import ZBL, FeedForward, ForceEncoding, StressHead, Tokens, VectorHead

FOOTPRINT = 20
"""Numbers held for the gradient per edge, channel and layer, where an atom counts as `ATOM` edges."""

ATOM = 8
"""Edges that take as much memory as an atom, whose window is padded. Together they are from 3 % below to 42 %
above what `nano`, `small` and `medium` took for lone atoms, water, benzene, copper and diamond."""


class MinDScAIP(Network):
    """The network.

    `method` and `checkpointing` are ways of computing the same. "native": energies and their slopes by the
    compiled core where there is one for this network, and "blocked" else; "blocked": in single operations;
    "plain": in torch operations that can be differentiated any number of times; "traced": the same, and tapes
    by a graph of them that torch compiles for each shape of batches. With `checkpointing` the blocked ones
    keep their inputs only and compute the rest again, and the core is left aside.

    Args:
        config: what it is made of.
        generator: of the weights; None: seed 0.
        dtype: of the weights.

    Source: Liu et al. 2026, Section 4.
    """

    config: MinDScAIPConfig
    centers: Tensor
    method: Literal["native", "blocked", "plain", "traced"] = "native"

    def __init__(
        self,
        config: MinDScAIPConfig,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(config)
        self.core, self.graphs = Core(), Graphs()
        width, device = config.width, torch.empty(0).device
        harmonics = (config.l_max + 1) ** 2 if config.directional == "harmonics" else 0
        with torch.device("meta"):  # so that no weights are drawn but by `initialize`
            # Given weights, since drawing them on "meta" would import torch's compiler, which takes seconds.
            rows = torch.empty(2, ELEMENTS + 1, width)
            self.sources, self.targets = (nn.Embedding(ELEMENTS + 1, width, _weight=part) for part in rows)
            self.itself = nn.Parameter(torch.empty(width))
            self.geometry, self.mix = nn.Linear(config.radial + harmonics, width), nn.Linear(width, width)
            self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
            self.heads = heads_of(config)
        super().to_empty(device=device)
        self.to(dtype)
        centers, *self.smear = smearing(config.radial, config.graph.cutoff, config.smearing)
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
        c = self.config
        return FOOTPRINT * c.width * c.attention_factor * c.layers

    @property
    def numbers_per_atom(self) -> int:
        """See Network."""
        return ATOM * self.numbers_per_edge

    @property
    def backend(self) -> str:
        """See Network."""
        return "torch" if self._core() is None else "native"

    @property
    def select(self) -> Select:
        """See Network."""
        return super().select if self._core() is None else select_compiled

    def compiled(self, topology: Topology, positions: Tensor, cell: Tensor, stress: bool) -> Output | None:
        """See Network."""
        parts = self._core()
        return None if parts is None else output(parts, topology, positions, cell, stress)

    def tape(self, topology: Topology, positions: Tensor, cell: Tensor, stress: bool = False) -> Tape:
        """See Network."""
        if self.method == "traced":
            return self.graphs.tape(self, topology, positions, cell, stress)
        parts = self._core()
        if parts is None:
            return super().tape(topology, positions, cell, stress)
        return CompiledTape(parts, topology, positions, cell, stress)

    def compile_gradient(self) -> None:
        """See Network."""
        if len(self.heads) > 1:
            raise ValueError("compile: a network with heads for forces, stress or noise is not compiled")
        self.method = "traced"

    def _core(self) -> Parts | None:
        apart = self.method != "native" or self.checkpointing or hindrance(self)
        return None if apart else Parts(self, self.core, self.zbl)

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
        direction = geometry.vector / geometry.distance[:, None]
        unit = direction.to(self.dtype)
        x = self._tokens(topology, geometry.distance.to(self.dtype), unit)
        if known_forces is not None:
            if "encoding" not in self.heads:
                raise ValueError("known_forces: this model has no denoising head")
            scaled = (known_forces / self.scale).to(self.dtype)
            x = x + self.heads["encoding"](scaled, unit, topology)
        n = len(topology.numbers)
        both = windows(topology, geometry, direction, self.config, self.dtype)
        nodes = None
        for layer in self.layers:
            unread = layer is self.layers[-1] and len(self.heads) == 1  # the energy needs no edges
            x, read = layer(x, both, self._method, not self.checkpointing, unread)
            if read is not None:
                nodes = read if nodes is None else nodes + read
        nodes = x[:n] if nodes is None else nodes + x[:n]
        return self._read(topology, geometry, unit, nodes, x[n:])

    @property
    def _method(self) -> Method:
        return "plain" if self.method in ("plain", "traced") else "blocked"

    def _tokens(self, topology: Topology, distance: Tensor, unit: Tensor) -> Tensor:
        """Return (N + E, C): what an edge is at the start, its length, direction and elements."""
        features = gaussians(distance, self.centers.to(self.dtype), *self.smear)
        if self.config.directional == "harmonics":
            features = torch.cat([features, solid_harmonics(unit, self.config.l_max)], dim=1)
        edges = functional.silu(self.geometry(features))
        itself = self.itself.expand(len(topology.numbers), -1)
        source = torch.cat([topology.numbers, topology.numbers[topology.source]])
        target = torch.cat([topology.numbers, topology.numbers[topology.target]])
        elements = self.sources(source) + self.targets(target)
        return self.mix(normalize(torch.cat([itself, edges]) + elements, self._method))  # type: ignore[no-any-return]

    def _read(
        self, topology: Topology, geometry: Geometry, unit: Tensor, nodes: Tensor, edges: Tensor
    ) -> Output:
        nodes = normalize(nodes, self._method)
        atoms = self.in_units(topology, self.heads["energy"](nodes)[:, 0])
        if self.zbl is not None:
            nuclei = self.zbl(topology, geometry.distance, geometry.bias.exp())
            atoms = atoms.index_add(0, topology.source, nuclei.double())
        energy = per_structure(topology, atoms)
        if len(self.heads) == 1:
            return Output(energy)
        tokens = Tokens(
            nodes, normalize(edges, self._method), unit, geometry.bias.exp().to(self.dtype), topology
        )
        forces = stress = noise = None
        if "forces" in self.heads:
            forces = self.scale * self.heads["forces"](tokens)
            forces = forces - tokens.mean(forces)[topology.system]
        if "stress" in self.heads:
            stress = self.scale * self.heads["stress"](tokens)
        if "noise" in self.heads:
            noise = self.heads["noise"](tokens)
        return Output(energy, forces, stress, noise)


def heads_of(config: MinDScAIPConfig) -> nn.ModuleDict:
    """Return the heads that a configuration asks for; the energy is always one of them."""
    width, hidden = config.width, config.width * config.hidden_factor
    free = config.directional == "harmonics"
    heads: dict[str, nn.Module] = {"energy": FeedForward(width, hidden, 1)}
    if config.direct_forces:
        heads["forces"] = VectorHead(width, hidden, free)
    if config.direct_stress:
        heads["stress"] = StressHead(width, hidden, free)
    if config.denoising:
        heads["encoding"] = ForceEncoding(width, free)
        heads["noise"] = VectorHead(width, hidden, free)
    return nn.ModuleDict(heads)
