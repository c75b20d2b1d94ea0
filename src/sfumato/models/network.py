"""What every trainable network is, and how any of them is evaluated.

A batch enters as positions and a `Topology` (integers); everything from there on is differentiable twice
with respect to positions, strain and weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from sfumato.graph.layout import Select, Topology, find_candidates, index_stage, select_edges
from sfumato.models.config import ELEMENTS, NetworkConfig
from sfumato.systems import Batch, symbols


@dataclass(frozen=True)
class Output:
    """What a network predicts for a batch; None where it was not asked or has no head for it.

    Args:
        energy: (G,) eV, in double precision.
        forces: (N, 3) eV/Å.
        stress: (G, 3, 3) eV/Å³, dE/dε over the volume.
        noise: (N, 3) displacements of the atoms over their standard deviation.
    """

    energy: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None
    noise: Tensor | None = None

    def detach(self) -> Output:
        """Return the same numbers without the graph that computed them."""
        values = (None if value is None else value.detach() for value in vars(self).values())
        return Output(*values)  # type: ignore[arg-type]


class Tape(ABC):
    """An evaluation that can be pulled back to the weights, once.

    For a loss L of energies E, forces F and stress σ, with c = ∂L/∂E, w = ∂L/∂F and u = ∂L/∂σ,

        dL/dθ = Σ_g c ∂E/∂θ + d/dt ∂E/∂θ (x − t w, ε + t u/V):

    how the gradient of the energy changes along one displacement of all atoms and cells. A backend is free
    to compute it so, by four passes without a graph, or through the graph of the forces.
    """

    output: Output
    """Detached."""

    @abstractmethod
    def backward(self, energy: Tensor, forces: Tensor | None, stress: Tensor | None) -> None:
        """Add the gradient of a loss to that of the weights.

        Args:
            energy: (G,) c.
            forces: (N, 3) w, or None for zero.
            stress: (G, 3, 3) u, or None for zero.
        """


class Network(nn.Module, ABC):
    """A network that can be trained, saved and used as a potential.

    `reference` (energies of lone atoms, eV) and `scale` (eV and eV/Å) set the units of its output; both stay
    in double precision whatever the weights have. A family derives from it, calls `super().__init__(config)`
    and has `forward` and the two declarations of memory.

    Args:
        config: its settings.
    """

    scale: Tensor
    reference: Tensor
    checkpointing: bool = False
    """Save memory in the gradient by computing parts again; a network may ignore it."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("reference", torch.zeros(ELEMENTS + 1, dtype=torch.float64))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def direct(self) -> frozenset[str]:
        """Which of "forces" and "stress" come from heads of their own and are not gradients."""
        return frozenset()

    @property
    @abstractmethod
    def numbers_per_edge(self) -> int:
        """How many numbers are held for the gradient per edge; batches are cut by it to fit into memory."""

    @property
    @abstractmethod
    def numbers_per_atom(self) -> int:
        """Likewise per atom."""

    @abstractmethod
    def forward(
        self,
        topology: Topology,
        positions: Tensor,
        cell: Tensor,
        strain: Tensor | None = None,
        known_forces: Tensor | None = None,
    ) -> Output:
        """Return the energy, and what heads of their own predict.

        Args:
            topology: from the settings of `config.graph`.
            positions: (N, 3) Å; their precision is that of the geometry.
            cell: (G, 3, 3) Å.
            strain: (G, 3, 3), its symmetric part is applied to positions and cells (`strained`).
            known_forces: (N, 3) eV/Å as input, for a network with a denoising head.

        Returns:
            Energy (G,) eV; from heads of their own, where the network has them, forces (N, 3) eV/Å, stress
            (G, 3, 3) eV/Å³ and noise (N, 3).

        Raises:
            ValueError: known forces for a network without a denoising head.
        """

    @property
    def backend(self) -> str:
        """What computes its energies and their slopes: "torch", or "native", a compiled core of its own."""
        return "torch"

    @property
    def select(self) -> Select:
        """What finds the edges among candidates."""
        return select_edges

    def compiled(self, topology: Topology, positions: Tensor, cell: Tensor, stress: bool) -> Output | None:
        """Return what `evaluate` does without `create_graph` by a core of its own; None where it has none."""
        return None

    def tape(self, topology: Topology, positions: Tensor, cell: Tensor, stress: bool = False) -> Tape:
        """Return an evaluation that can be pulled back to the weights; arguments are those of `evaluate`."""
        return TorchTape(self, topology, positions, cell, stress)

    def compile_gradient(self) -> None:
        """Let torch compile the gradient that tapes are for, as a whole.

        Raises:
            ValueError: it cannot be compiled.
        """
        raise ValueError(
            f"compile: {self.config.architecture} has no gradient that can be compiled as a whole"
        )

    def in_units(self, topology: Topology, atoms: Tensor) -> Tensor:
        """Return (N,) eV, in double precision, with the energies of lone atoms.

        Args:
            topology: of the batch.
            atoms: (N,) energies in units of `scale`.
        """
        return self.scale * atoms.double() + self.reference[topology.numbers]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move buffers that carry units without rounding them: energies have nine digits and more."""
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in exact.items():
            owner, _, last = name.rpartition(".")
            setattr(self.get_submodule(owner), last, value.to(self.get_buffer(name).device))
        return self


def per_structure(topology: Topology, atoms: Tensor) -> Tensor:
    """Return (G,) the sums of (N,) energies over the atoms of each structure."""
    return atoms.new_zeros(topology.n_systems).index_add(0, topology.system, atoms)


def strained(topology: Topology, positions: Tensor, cell: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and cells times 1 + (ε + εᵀ)/2.

    Products are summed one by one: a matrix product may be rounded to ten bits on a GPU.
    """
    small = (strain + strain.transpose(1, 2)) / 2
    positions = positions + (positions[:, :, None] * small[topology.system]).sum(1)
    return positions, cell + (cell[:, :, :, None] * small[:, None]).sum(2)


def evaluate(
    model: Network,
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
        ValueError: stress of a cell without volume, or known forces for a network without a denoising head.

    Source: forces −∂E/∂r, stress (1/V) ∂E/∂ε.
    """
    if not create_graph and known_forces is None:
        found = model.compiled(topology, positions, cell, stress)
        if found is not None:
            return found
    forces_are_direct, stress_is_direct = (name in model.direct for name in ("forces", "stress"))
    with torch.enable_grad():
        positions = positions.detach().requires_grad_(not forces_are_direct)
        strain = torch.zeros_like(cell).requires_grad_() if stress and not stress_is_direct else None
        inputs = (topology, positions, cell, strain, known_forces)
        if create_graph:
            found = model(*inputs)
        else:
            weights = {name: weight.detach() for name, weight in model.named_parameters()}
            found = torch.func.functional_call(model, weights, inputs)
        wanted = [*([] if forces_are_direct else [positions]), *([] if strain is None else [strain])]
        slopes: tuple[Tensor, ...] = ()
        if wanted:
            energy = found.energy.sum()
            slopes = torch.autograd.grad(
                energy, wanted, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        forces = found.forces if forces_are_direct else -slopes[0]
        pull = found.stress if stress else None
        if strain is not None:
            pull = slopes[-1] / volume(cell)[:, None, None]
    found = Output(found.energy, forces, pull, found.noise)
    return found if create_graph else found.detach()


class TorchTape(Tape):
    """An evaluation that keeps the graph of its forces; arguments are those of `evaluate`."""

    def __init__(
        self, model: Network, topology: Topology, positions: Tensor, cell: Tensor, stress: bool
    ) -> None:
        self._found = evaluate(model, topology, positions, cell, stress=stress, create_graph=True)
        self.output = self._found.detach()

    def backward(self, energy: Tensor, forces: Tensor | None, stress: Tensor | None) -> None:
        """See Tape."""
        found = self._found
        pairs = ((found.energy, energy), (found.forces, forces), (found.stress, stress))
        asked = [(value, slope) for value, slope in pairs if value is not None and slope is not None]
        torch.autograd.backward([value for value, _ in asked], [slope for _, slope in asked])


def volume(cell: Tensor) -> Tensor:
    """Return (G,) Å³ of (G, 3, 3) cells.

    Raises:
        ValueError: a cell without volume.
    """
    a, b, c = cell.unbind(1)
    found: Tensor = (torch.linalg.cross(a, b) * c).sum(1).abs()
    if not (found > 0).all():
        raise ValueError("cell: stress was asked for, but a cell has no volume")
    return found


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


def prepare(model: Network, batch: Batch, skin: float = 0.0, dtype: torch.dtype = torch.float64) -> Prepared:
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
    device = model.device
    arrays = (batch.positions, batch.cell, batch.pbc, batch.numbers, batch.index)
    positions, cells, pbc_, numbers, system = (torch.from_numpy(array.copy()).to(device) for array in arrays)
    graph = model.config.graph
    if skin:
        topology = index_stage(positions, cells, pbc_, numbers, system, graph, skin)
    else:
        candidates = find_candidates(positions, cells, pbc_, system, graph)
        topology = model.select(candidates, positions, cells, numbers, system, graph)
    return Prepared(topology, positions.to(dtype), cells.to(dtype), bool(batch.pbc.all()))


@torch.inference_mode(False)
def predict(model: Network, batch: Batch, dtype: torch.dtype = torch.float64) -> Output:
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
