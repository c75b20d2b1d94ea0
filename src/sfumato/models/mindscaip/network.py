"""MinDScAIP: attention among the edges of a differentiable nearest-neighbor graph, smooth by design.

A batch enters as positions and a `Topology` (integers); everything from there on is differentiable twice
with respect to positions, strain and weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.graph.layout import Geometry, Topology, differentiable_stage, index_stage
from sfumato.models.harmonics import gaussians, smearing, solid_harmonics
from sfumato.models.mindscaip.config import ELEMENTS, MinDScAIPConfig
from sfumato.models.mindscaip.initial import initialize
from sfumato.models.mindscaip.layers import Layer, Method, normalize
from sfumato.models.mindscaip.windows import windows
from sfumato.models.readout import ZBL, Tokens, heads_of
from sfumato.systems import Batch, symbols


@dataclass(frozen=True)
class Output:
    """What a model says about a batch; None where it was not asked or has no head for it.

    Args:
        energy: (G,) eV, in double precision.
        forces: (N, 3) eV/Å.
        stress: (G, 3, 3) eV/Å³, dE/dε over the volume.
        noise: (N, 3) displacements of the atoms over the standard deviation they were made with.
    """

    energy: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None
    noise: Tensor | None = None

    def detach(self) -> Output:
        """Return the same numbers without what made them."""
        values = (None if value is None else value.detach() for value in vars(self).values())
        return Output(*values)  # type: ignore[arg-type]


class MinDScAIP(nn.Module):
    """The network.

    `reference` (energies of lone atoms, eV) and `scale` (eV and eV/Å) set the units of its output; both stay
    in double precision whatever the weights have. `method` and `checkpointing` are ways of computing the
    same: "blocked" in single operations, "plain" in torch operations that can be differentiated any number
    of times; with `checkpointing` the blocked ones keep their inputs only and compute the rest again.

    Args:
        config: what it is made of.
        generator: of the weights; None: seed 0.
        dtype: of the weights.

    Source: Liu et al. 2026, Section 4.
    """

    scale: Tensor
    reference: Tensor
    centers: Tensor
    method: Method = "blocked"
    checkpointing: bool = False

    def __init__(
        self,
        config: MinDScAIPConfig,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.config = config
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
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("reference", torch.zeros(ELEMENTS + 1, dtype=torch.float64))
        self.zbl = ZBL(config.known_elements, config.graph.cutoff) if config.zbl else None
        initialize(self, config, generator or torch.Generator().manual_seed(0))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MinDScAIP:
        """Move buffers that carry units without rounding them: energies have nine digits and more."""
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in exact.items():
            owner, _, last = name.rpartition(".")
            setattr(self.get_submodule(owner), last, value.to(self.get_buffer(name).device))
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.itself.dtype

    def forward(
        self,
        topology: Topology,
        positions: Tensor,
        cell: Tensor,
        strain: Tensor | None = None,
        known_forces: Tensor | None = None,
    ) -> Output:
        """Return the energy and what the direct heads predict.

        Args:
            topology: made with the settings of `config.graph`.
            positions: (N, 3) Å; their precision is that of the geometry.
            cell: (G, 3, 3) Å.
            strain: (G, 3, 3), its symmetric part is applied to positions and cells.
            known_forces: (N, 3) eV/Å as input, for a model with a denoising head.

        Returns:
            Energy (G,) eV; from heads of their own, where the model has them, forces (N, 3) eV/Å, stress
            (G, 3, 3) eV/Å³ and noise (N, 3).

        Raises:
            ValueError: known forces for a model without a denoising head.
        """
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
            x, read = layer(x, both, self.method, not self.checkpointing, unread)
            if read is not None:
                nodes = read if nodes is None else nodes + read
        nodes = x[:n] if nodes is None else nodes + x[:n]
        return self._read(topology, geometry, unit, nodes, x[n:])

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
        return self.mix(normalize(torch.cat([itself, edges]) + elements, self.method))  # type: ignore[no-any-return]

    def _read(
        self, topology: Topology, geometry: Geometry, unit: Tensor, nodes: Tensor, edges: Tensor
    ) -> Output:
        nodes = normalize(nodes, self.method)
        atoms = self.scale * self.heads["energy"](nodes)[:, 0].double() + self.reference[topology.numbers]
        if self.zbl is not None:
            nuclei = self.zbl(topology, geometry.distance, geometry.bias.exp())
            atoms = atoms.index_add(0, topology.source, nuclei.double())
        energy = atoms.new_zeros(topology.n_systems).index_add(0, topology.system, atoms)
        if len(self.heads) == 1:
            return Output(energy)
        tokens = Tokens(
            nodes, normalize(edges, self.method), unit, geometry.bias.exp().to(self.dtype), topology
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


def strained(topology: Topology, positions: Tensor, cell: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and cells times 1 + (ε + εᵀ)/2.

    Products are summed one by one: a matrix product may be rounded to ten bits on a GPU.
    """
    small = (strain + strain.transpose(1, 2)) / 2
    positions = positions + (positions[:, :, None] * small[topology.system]).sum(1)
    return positions, cell + (cell[:, :, :, None] * small[:, None]).sum(2)


def evaluate(
    model: MinDScAIP,
    topology: Topology,
    positions: Tensor,
    cell: Tensor,
    *,
    stress: bool = False,
    create_graph: bool = False,
    known_forces: Tensor | None = None,
) -> Output:
    """Return energies, forces and stress, by one gradient for whatever has no head of its own.

    Without `create_graph` the weights are taken as constants, which saves memory, and nothing that is
    returned can be differentiated.

    Args:
        model: the network.
        topology: of the batch.
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        stress: also stress; every structure must be periodic in three directions.
        create_graph: keep what is needed to differentiate everything again.
        known_forces: (N, 3) eV/Å, for denoising.

    Returns:
        Energy (G,) eV, forces (N, 3) eV/Å, if asked for stress (G, 3, 3) eV/Å³, and from a denoising head
        noise (N, 3).

    Raises:
        ValueError: stress of a cell without volume, or known forces for a model without a denoising head.

    Source: forces −∂E/∂r, stress (1/V) ∂E/∂ε.
    """
    config = model.config
    with torch.enable_grad():
        positions = positions.detach().requires_grad_(not config.direct_forces)
        strain = torch.zeros_like(cell).requires_grad_() if stress and not config.direct_stress else None
        inputs = (topology, positions, cell, strain, known_forces)
        if create_graph:
            found = model(*inputs)
        else:
            weights = {name: weight.detach() for name, weight in model.named_parameters()}
            found = torch.func.functional_call(model, weights, inputs)
        wanted = [*([] if config.direct_forces else [positions]), *([] if strain is None else [strain])]
        slopes: tuple[Tensor, ...] = ()
        if wanted:
            energy = found.energy.sum()
            slopes = torch.autograd.grad(
                energy, wanted, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        forces = found.forces if config.direct_forces else -slopes[0]
        pull = found.stress if stress else None
        if strain is not None:
            pull = slopes[-1] / _volume(cell)[:, None, None]
    found = Output(found.energy, forces, pull, found.noise)
    return found if create_graph else found.detach()


def _volume(cell: Tensor) -> Tensor:
    a, b, c = cell.unbind(1)
    volume: Tensor = (torch.linalg.cross(a, b) * c).sum(1).abs()
    if not (volume > 0).all():
        raise ValueError("cell: stress was asked for, but a cell has no volume")
    return volume


@dataclass(frozen=True)
class Prepared:
    """A batch that passed the checks, as tensors.

    Args:
        topology: of the batch.
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        periodic: whether all structures are periodic in three directions, so that stress is defined.
    """

    topology: Topology
    positions: Tensor
    cell: Tensor
    periodic: bool


def prepare(
    model: MinDScAIP, batch: Batch, skin: float = 0.0, dtype: torch.dtype = torch.float64
) -> Prepared:
    """Check a batch and find its edges.

    Args:
        model: for its elements, graph settings and device.
        batch: of structures.
        skin: Å; the edges stay valid until some atom has moved by half of it.
        dtype: of positions and geometry.

    Raises:
        ValueError: an element that the model does not know, a position that is not finite, a cell of no
            volume, or two atoms at the same place; says which atom of which structure.
    """
    known = model.config.known_elements
    unknown = set(batch.numbers.tolist()) - set(known)
    if unknown:
        first = batch.index[[z in unknown for z in batch.numbers.tolist()].index(True)]
        raise ValueError(
            f"structure {first}: the model does not know {symbols(unknown)}; it knows {symbols(known)}"
        )
    for k, (cell, pbc) in enumerate(zip(batch.cell, batch.pbc)):
        if pbc.all() and not abs(torch.linalg.det(torch.from_numpy(cell.copy()))) > 0:
            raise ValueError(f"structure {k}: a cell periodic in three directions has no volume")
    device = model.itself.device
    arrays = (batch.positions, batch.cell, batch.pbc, batch.numbers, batch.index)
    positions, cells, pbc_, numbers, system = (torch.from_numpy(array.copy()).to(device) for array in arrays)
    topology = index_stage(positions, cells, pbc_, numbers, system, model.config.graph, skin)
    return Prepared(topology, positions.to(dtype), cells.to(dtype), bool(batch.pbc.all()))


@torch.inference_mode(False)
def predict(model: MinDScAIP, batch: Batch, dtype: torch.dtype = torch.float64) -> Output:
    """Return energies, forces and, where every structure is periodic in three directions, stress.

    Args:
        model: the network; its weights are taken as they are and get no gradients. It may be called under
            `torch.inference_mode`, but not have been made there.
        batch: of structures.
        dtype: of the geometry.

    Returns:
        Energy (G,) eV, forces (N, 3) eV/Å, stress (G, 3, 3) eV/Å³ or None, and from a denoising head noise
        (N, 3).

    Raises:
        ValueError: see `prepare`.
    """
    ready = prepare(model, batch, dtype=dtype)
    return evaluate(model, ready.topology, ready.positions, ready.cell, stress=ready.periodic)
