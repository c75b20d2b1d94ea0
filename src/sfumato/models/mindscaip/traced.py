"""Energies, forces and stress as one compiled graph of operations that the weights can learn through.

What torch's compiler makes of a function cannot be differentiated twice, as a loss of forces asks for. So the
first derivative is written down as a graph of plain operations, and that is compiled like any function:

1. `make_fx` records energies and their slopes of a batch of a fixed shape (`padded`);
2. torch marks what it saved for the slopes as constants (`detach`): they depend on the weights, and their
   marks are taken out. Left in they would not fail, but cost the gradient a part of itself;
3. `torch.compile` makes a forward and a backward pass of the rest.

The first gradient of each shape is compared with that of single operations, so that nothing is lost in
silence, whatever torch may do in another version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.graph.layout import Topology
from sfumato.models.mindscaip.padded import Filled, Shape, filled, topology_of
from sfumato.models.network import Network, Output, Tape, TorchTape, volume

AGREE = 1e-3
"""Of the largest number: by how much a compiled gradient may differ from that of single operations."""

LIMIT = 32
"""Shapes that are kept compiled; each takes minutes and some memory."""

Compiled = Callable[..., tuple[Tensor, Tensor, Tensor | None]]


class Graphs:
    """The compiled graphs of one network, by shape. Copies of a network begin without any."""

    def __init__(self) -> None:
        self._made: dict[tuple[Shape, bool, str, torch.dtype], Compiled] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Graphs:
        return Graphs()

    def __reduce__(self) -> tuple[type[Graphs], tuple[()]]:
        return Graphs, ()

    def tape(self, model: Network, topology: Topology, positions: Tensor, cell: Tensor, stress: bool) -> Tape:
        """Return an evaluation of a batch that can be pulled back to the weights.

        Raises:
            RuntimeError: the gradient of the compiled graph is not that of the network.
        """
        shape = Shape.of(topology).rounded()
        key = (shape, stress, str(positions.device), positions.dtype)
        made = key not in self._made
        if made:
            while len(self._made) >= LIMIT:
                del self._made[next(iter(self._made))]
            self._made[key] = _compiled(model, topology, positions, cell, stress, shape)
        tape = GraphTape(model, self._made[key], shape, (topology, positions, cell, stress))
        if made:
            _require_gradient(model, self._made[key], shape, (topology, positions, cell, stress))
        return tape


class GraphTape(Tape):
    """An evaluation by a compiled graph.

    Args:
        model: the network.
        run: its graph for this shape.
        shape: of the filled batch.
        inputs: topology, positions, cell, and whether stress is asked for.
    """

    def __init__(
        self, model: Network, run: Compiled, shape: Shape, inputs: tuple[Topology, Tensor, Tensor, bool]
    ) -> None:
        topology, positions, cell, stress = inputs
        batch = _filled(model, topology, positions, cell, shape)
        energy, forces, pull = run(*_flat(model, batch))
        n, g = len(positions), len(cell)
        sigma = None if pull is None or not stress else pull[:g] / volume(cell)[:, None, None]
        self._found = Output(energy[:g], forces[:n], sigma)
        self.output = self._found.detach()

    def backward(self, energy: Tensor, forces: Tensor | None, stress: Tensor | None) -> None:
        """See Tape."""
        pairs = zip(vars(self._found).values(), (energy, forces, stress, None), strict=True)
        asked = [(value, slope) for value, slope in pairs if value is not None and slope is not None]
        torch.autograd.backward([value for value, _ in asked], [slope for _, slope in asked])


def _filled(model: Network, topology: Topology, positions: Tensor, cell: Tensor, shape: Shape) -> Filled:
    return filled(topology, positions.detach(), cell, shape, model.config.graph.cutoff, model.dtype)


def _flat(model: nn.Module, batch: Filled) -> list[Tensor]:
    """Return weights, buffers and a batch one after the other."""
    kept = [*model.parameters(), *model.buffers()]
    return [*kept, batch.positions, batch.cell, *batch.integers, *batch.present]


def _compiled(
    model: Network, topology: Topology, positions: Tensor, cell: Tensor, stress: bool, shape: Shape
) -> Compiled:
    """Record and compile the energies and slopes of a network for a shape."""
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    mutual = model.config.graph.mode == "mutual"

    def slopes(*flat: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        state, (x, box, *rest) = dict(zip(names, flat)), flat[len(names) :]
        batch = Filled(x, box, tuple(rest[:-2]), (rest[-2], rest[-1]))
        padded = topology_of(batch, shape, mutual)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            strain = torch.zeros_like(box).requires_grad_() if stress else None
            energy = torch.func.functional_call(model, state, (padded, x, box, strain)).energy
            wanted = [x] if strain is None else [x, strain]
            found = torch.autograd.grad(energy.sum(), wanted, create_graph=True)
        return energy, -found[0], None if strain is None else found[1]

    flat = _flat(model, _filled(model, topology, positions, cell, shape))
    inputs = [part.detach().requires_grad_(part.requires_grad) for part in flat]
    recorded = without_marks(make_fx(slopes)(*inputs))
    pure = make_fx(torch.func.functionalize(recorded), decomposition_table=_COPY)(*inputs)
    return to_machine_code(without_marks(pure))


def to_machine_code(graph: Compiled) -> Compiled:
    """Return what computes a recorded graph and its gradient; made when it is first called."""
    return torch.compile(graph, dynamic=False)


def _copied(into: Tensor, values: Tensor, non_blocking: bool = False) -> Tensor:
    return values.to(into.dtype).expand_as(into).clone()


_COPY = {torch.ops.aten.copy.default: _copied}
"""A copy into an array has no derivative once it is a function."""

MARKS = (torch.ops.aten.detach.default, torch.ops.aten.detach_.default)


def without_marks(graph: Any) -> Any:
    """Return a recorded graph in which nothing is taken for a constant."""
    for node in list(graph.graph.nodes):
        if node.target in MARKS:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _require_gradient(
    model: Network, run: Compiled, shape: Shape, inputs: tuple[Topology, Tensor, Tensor, bool]
) -> None:
    """Compare the gradient of some combination of all outputs with that of single operations.

    Raises:
        RuntimeError: they differ.
    """
    gradients = []
    for tape in (GraphTape(model, run, shape, inputs), TorchTape(model, *inputs)):
        found = tape._found
        values = [part for part in vars(found).values() if part is not None]
        # Different slopes for every number, the same for both.
        slopes = [torch.linspace(1, 2, v.numel(), dtype=v.dtype, device=v.device).view_as(v) for v in values]
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        gradients.append(
            torch.autograd.grad(values, weights, slopes, materialize_grads=True, allow_unused=True)
        )
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    for name, own, expected in zip(names, *gradients, strict=True):
        size = expected.abs().max()
        off = float((own - expected).abs().max() / size.clamp(min=torch.finfo(size.dtype).tiny))
        if not off < AGREE:
            raise RuntimeError(
                f"the compiled gradient of {name} is off by {off:.1e} of its largest number, with torch "
                f"{torch.__version__}; train without compile"
            )
