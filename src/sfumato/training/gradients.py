"""The gradient of the loss by the weights, in three ways.

Double backward goes through the forces, which are a gradient themselves. A finite difference goes round
that: the gradient of a loss of forces is how that of the energy changes along one displacement of all atoms.
Direct forces need neither.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sfumato.models.network import Network, Output, evaluate
from sfumato.training.batches import Sample
from sfumato.training.losses import bend_penalty, terms
from sfumato.training.stages import Stage

Terms = dict[str, Tensor]

SKIN = 4.0
"""Å per Å of displacement that a graph must allow: either end of an edge may move, and the cell with them."""


def skin(stage: Stage) -> float:
    """Return by how many Å graphs of a stage must be wider than its structures as they are."""
    moves = stage.displacement if stage.gradient == "finite_difference" else 0.0
    return SKIN * max(moves, stage.smoothness.step if stage.smoothness else 0.0)


def weights(stage: Stage) -> Mapping[str, float]:
    """Return the weight of every term of the loss."""
    found = stage.loss.model_dump()
    found["noise"] = stage.denoising.weight if stage.denoising else 0.0
    found["bend"] = stage.smoothness.weight if stage.smoothness else 0.0
    return {name: float(weight) for name, weight in found.items()}


def total(found: Terms, stage: Stage) -> Tensor:
    """Return the weighted sum of the terms."""
    by_name = weights(stage)
    return torch.stack([by_name[name] * term for name, term in found.items() if by_name[name]]).sum()


def backward(model: Network, sample: Sample, stage: Stage) -> Terms:
    """Add the gradient of the loss to that of the weights.

    Args:
        model: with the heads of the stage.
        sample: on the device of the model.
        stage: objective, method and weights.

    Returns:
        The terms of the loss, detached.
    """
    if stage.objective == "direct":
        found = _direct(model, sample, stage)
    elif stage.gradient == "finite_difference":
        return _finite_difference(model, sample, stage)
    else:
        found = _conservative(model, sample, stage)
    total(found, stage).backward()  # type: ignore[no-untyped-call]
    return {name: term.detach() for name, term in found.items()}


def _direct(model: Network, sample: Sample, stage: Stage) -> Terms:
    inputs = (sample.topology, sample.positions, sample.cell, None, sample.known_forces)
    if stage.precision != "bf16":
        return terms(model(*inputs), sample.targets)
    halves = {name: weight.bfloat16() for name, weight in model.named_parameters()}
    return terms(torch.func.functional_call(model, halves, inputs), sample.targets)


def _conservative(model: Network, sample: Sample, stage: Stage) -> Terms:
    s = sample

    def at(positions: Tensor, stress: bool = False) -> Output:
        return evaluate(model, s.topology, positions, s.cell, stress=stress, create_graph=True)

    here = at(s.positions, stage.loss.stress > 0)
    found = terms(here, s.targets)
    if stage.smoothness is not None and s.stretch is not None:
        h, floor = stage.smoothness.step, stage.smoothness.floor
        minus, plus = (at(s.positions + way * h * s.stretch).forces for way in (-1, 1))
        assert minus is not None
        assert plus is not None
        assert here.forces is not None
        found["bend"] = bend_penalty(minus, here.forces, plus, h, floor, s.targets.counts.atoms)
    return found


def _finite_difference(model: Network, sample: Sample, stage: Stage) -> Terms:
    """Take the gradient of the loss as the change of that of the energy.

    With w = ∂L/∂F, u = ∂L/∂σ and c = ∂L/∂E of each structure, the path x(t) = x − t w, ε(t) = t u/V has

        dL/dθ = Σ_g c ∂E/∂θ + d/dt ∂E/∂θ  =  Σ_g ∂/∂θ [(c/2 + 1/2t) E(t) + (c/2 − 1/2t) E(−t)] + O(t²),

    with t such that the structure moves by `displacement` along its path.
    """
    s = sample
    stress = stage.loss.stress > 0
    here = evaluate(model, s.topology, s.positions, s.cell, stress=stress)
    leaves = [part.requires_grad_() for part in (here.energy, here.forces, here.stress) if part is not None]
    with torch.enable_grad():
        found = terms(here, s.targets)
        slopes = torch.autograd.grad(total(found, stage), leaves, allow_unused=True, materialize_grads=True)
    c, w = slopes[0], slopes[1].double()
    strain = torch.zeros_like(s.cell, dtype=torch.float64)
    if stress:
        u = slopes[2].double()
        strain = (u + u.transpose(1, 2)) / (2 * torch.linalg.det(s.cell.double()).abs()[:, None, None])
    # A strain moves the ends of an edge apart by as much as its length, at most the cutoff, times it.
    reach = model.config.graph.cutoff
    size = strain.square().sum((1, 2)) * reach**2
    size = size.index_add(0, s.topology.system, w.square().sum(1)).sqrt()
    step = torch.where(size > 0, stage.displacement / size, 0.0)
    inverse = torch.where(size > 0, size / (2 * stage.displacement), 0.0)
    for way in (1.0, -1.0):
        positions = s.positions - (way * step[s.topology.system, None] * w).to(s.positions)
        pull = (way * step[:, None, None] * strain).to(s.cell)
        energy = model(s.topology, positions, s.cell, pull if stress else None).energy
        ((c / 2 + way * inverse).detach() * energy).sum().backward()
    return {name: term.detach() for name, term in found.items()}
