"""The gradient of the loss by the weights, in three ways.

Double backward goes through the forces, which are a gradient themselves. A finite difference goes round
that: the gradient of a loss of forces is how that of the energy changes along one displacement of all atoms.
Direct forces need neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        total(found, stage).backward()  # type: ignore[no-untyped-call]
    elif stage.gradient == "finite_difference":
        found = _finite_difference(model, sample, stage)
    else:
        found = _conservative(model, sample, stage)
    return {name: term.detach() for name, term in found.items()}


def _direct(model: Network, sample: Sample, stage: Stage) -> Terms:
    inputs = (sample.topology, sample.positions, sample.cell, None, sample.known_forces)
    if stage.precision != "bf16":
        return terms(model(*inputs), sample.targets)
    halves = {name: weight.bfloat16() for name, weight in model.named_parameters()}
    return terms(torch.func.functional_call(model, halves, inputs), sample.targets)


def _conservative(model: Network, sample: Sample, stage: Stage) -> Terms:
    """Pull the slopes of the loss by energies, forces and stress back to the weights (see `Tape`)."""
    s, smoothness = sample, stage.smoothness if sample.stretch is not None else None
    tapes = [model.tape(s.topology, s.positions, s.cell, stage.loss.stress > 0)]
    if smoothness is not None:
        shift = smoothness.step * s.stretch  # type: ignore[operator]
        tapes += [model.tape(s.topology, s.positions + way * shift, s.cell) for way in (-1, 1)]
    leaves = [_leaf(tape.output) for tape in tapes]
    with torch.enable_grad():
        found = terms(leaves[0], s.targets)
        if smoothness is not None:
            here, minus, plus = (out.forces for out in leaves)
            assert here is not None
            assert minus is not None
            assert plus is not None
            h, floor = smoothness.step, smoothness.floor
            found["bend"] = bend_penalty(minus, here, plus, h, floor, s.targets.counts.atoms)
        slopes = _slopes(found, stage, leaves)
    for tape, slope in zip(tapes, slopes, strict=True):
        tape.backward(slope.energy, slope.forces, slope.stress)
    return found


def _leaf(output: Output) -> Output:
    """Return the same numbers, to differentiate a loss by."""
    values = (None if value is None else value.detach().requires_grad_() for value in vars(output).values())
    return Output(*values)  # type: ignore[arg-type]


def _slopes(found: Terms, stage: Stage, leaves: Sequence[Output]) -> list[Output]:
    """Return the slopes of the loss by everything that was put out, in its place."""
    values = [value for out in leaves for value in vars(out).values() if value is not None]
    slopes = iter(torch.autograd.grad(total(found, stage), values, allow_unused=True, materialize_grads=True))
    return [
        Output(*(None if value is None else next(slopes) for value in vars(out).values()))  # type: ignore[arg-type]
        for out in leaves
    ]


def _finite_difference(model: Network, sample: Sample, stage: Stage) -> Terms:
    """Take the gradient of the loss as the change of that of the energy.

    With w = ∂L/∂F, u = ∂L/∂σ and c = ∂L/∂E of each structure, the path x(t) = x − t w, ε(t) = t u/V has

        dL/dθ = Σ_g c ∂E/∂θ + d/dt ∂E/∂θ  =  Σ_g ∂/∂θ [(c/2 + 1/2t) E(t) + (c/2 − 1/2t) E(−t)] + O(t²),

    with t such that the structure moves by `displacement` along its path.
    """
    s = sample
    stress = stage.loss.stress > 0
    here = _leaf(evaluate(model, s.topology, s.positions, s.cell, stress=stress))
    with torch.enable_grad():
        found = terms(here, s.targets)
        (slope,) = _slopes(found, stage, [here])
    assert slope.forces is not None
    c, w = slope.energy, slope.forces.double()
    strain = torch.zeros_like(s.cell, dtype=torch.float64)
    if slope.stress is not None:
        u = slope.stress.double()
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
    return found
