"""What a network answers by its compiled core: outputs, and tapes to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sfumato.graph.layout import Topology
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.native import library
from sfumato.models.mindscaip.native.core import Core, Evaluation, obstacle
from sfumato.models.network import Network, Output, Tape, per_structure, volume
from sfumato.models.readout import ZBL


def hindrance(model: Network) -> str:
    """Return why the core does not compute this network as it is, or "" if it does."""
    assert isinstance(model.config, MinDScAIPConfig)
    if library() is None:
        return "the compiled core was not built here"
    if model.dtype != torch.float32 or model.device.type != "cpu":
        return f"{model.dtype} on {model.device}: the core has single precision on a CPU"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    return obstacle(model.config)


@dataclass(frozen=True)
class Parts:
    """A network and what its answers are made of.

    Args:
        model: the network, which the core computes (see `hindrance`).
        core: of it.
        zbl: the repulsion of nuclei that the core does not know, or None.
    """

    model: Network
    core: Core
    zbl: ZBL | None


def output(parts: Parts, topology: Topology, positions: Tensor, cell: Tensor, stress: bool) -> Output:
    """Return energies, forces and stress; arguments and result are those of `evaluate`."""
    evaluation = parts.core.begin(parts.model, topology, positions, cell)
    try:
        return _output(parts, evaluation, positions.dtype, stress, learn=False)
    finally:
        evaluation.close()


class CompiledTape(Tape):
    """An evaluation by the core that can be pulled back to the weights.

    Args:
        parts: of the network.
        topology: of the batch.
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        stress: also stress.
    """

    def __init__(
        self, parts: Parts, topology: Topology, positions: Tensor, cell: Tensor, stress: bool
    ) -> None:
        self.model = parts.model
        self.evaluation = parts.core.begin(parts.model, topology, positions, cell)
        try:
            self.output = _output(parts, self.evaluation, positions.dtype, stress, learn=True)
        except BaseException:
            self.evaluation.close()
            raise

    def backward(self, energy: Tensor, forces: Tensor | None, stress: Tensor | None) -> None:
        """See Tape."""
        model, e = self.model, self.evaluation
        scale = float(model.scale)
        moves = torch.zeros_like(e.positions) if forces is None else -scale * forces.double()
        strain = torch.zeros_like(e.cell)
        if stress is not None:
            strain = scale * (stress + stress.transpose(1, 2)).double() / 2 / volume(e.cell)[:, None, None]
        try:
            gradient = e.learn(scale * energy.double()[e.topology.system], moves, strain)
        finally:
            e.close()
        add_gradient(list(model.parameters()), gradient)


def add_gradient(weights: Sequence[Tensor], gradient: Tensor) -> None:
    """Add to the gradients of weights what lies one after the other in (P,) an array.

    Where they lie so themselves, this is one sum.
    """
    whole = None if weights[0].grad is None else weights[0].grad._base
    starts = np.cumsum([0, *(weight.numel() for weight in weights)]).tolist()
    together = whole is not None and whole.shape == gradient.shape
    if together and all(
        weight.grad is not None and weight.grad._base is whole and weight.grad.storage_offset() == start
        for weight, start in zip(weights, starts)
    ):
        assert whole is not None
        whole += gradient
        return
    for weight, start, stop in zip(weights, starts, starts[1:]):
        part = gradient[start:stop].view_as(weight)
        if not weight.requires_grad:
            continue
        if weight.grad is None:
            weight.grad = part
        else:
            weight.grad += part


def _output(parts: Parts, evaluation: Evaluation, dtype: torch.dtype, stress: bool, learn: bool) -> Output:
    model, topology, scale = parts.model, evaluation.topology, parts.model.scale
    atoms, distance, log_e = evaluation.forward(learn)
    energies, extra = model.in_units(topology, atoms), None
    if parts.zbl is not None and parts.zbl.is_near(topology, distance):
        nuclei, extra = _nuclei(parts.zbl, scale, topology, (distance, log_e))
        energies = energies.index_add(0, topology.source, nuclei)
    forces, strain = evaluation.pull(extra)
    found = Output(per_structure(topology, energies), (scale * forces).to(dtype))
    if not stress:
        return found
    pull = scale * strain / volume(evaluation.cell)[:, None, None]
    return replace(found, stress=pull.to(dtype))


def _nuclei(
    zbl: ZBL, scale: Tensor, topology: Topology, geometry: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return (E,) eV of each edge, and the gradients by its distance and log e without units."""
    with torch.enable_grad():
        distance, log_e = (part.requires_grad_() for part in geometry)
        nuclei = zbl(topology, distance, log_e.exp())
        by_distance, by_log_e = torch.autograd.grad(nuclei.sum() / scale, (distance, log_e))
    return nuclei.detach(), (by_distance, by_log_e)
