"""How far a model is off on a split, while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sfumato.models.mindscaip import MinDScAIP, evaluate
from sfumato.training.batches import Batches
from sfumato.training.config import Stage
from sfumato.training.distributed import Group

FRAMES = 64
"""Structures looked at together."""


@dataclass(frozen=True)
class Errors:
    """Mean deviations from the labels.

    Args:
        frames: how many were compared.
        energy: eV per atom, mean of |ΔE|/N.
        forces: eV/Å, mean of |ΔF| over components; NaN without any.
        forces_rms: eV/Å, root mean square over components.
        vectors: eV/Å, mean of ‖ΔF‖ over atoms.
        stress: eV/Å³, mean of |Δσ| over components; NaN without any.
    """

    frames: int
    energy: float
    forces: float
    forces_rms: float
    vectors: float
    stress: float

    def loss(self, stage: Stage) -> float:
        """Return what they amount to with the weights of a stage."""
        by = stage.loss
        pairs = ((by.energy, self.energy), (by.forces, self.vectors), (by.stress, self.stress))
        return sum(weight * value for weight, value in pairs if weight and np.isfinite(value))


def measure(model: MinDScAIP, batches: Batches, stage: Stage, group: Group) -> Errors:
    """Compare a model with the frames of a split, each process with its share of them.

    Args:
        model: on the device of this process.
        batches: of the split, in the order of the set.
        stage: whether stress is compared.
        group: the processes.

    Raises:
        ValueError: labels that are not there.
    """
    sums = np.zeros(8)
    for k, whole in enumerate(batches.epoch(0)):
        if k % group.size != group.rank:
            continue
        sample = batches.sample(whole, torch.float32).to(group.device)
        t = sample.targets
        found = evaluate(model, sample.topology, sample.positions, sample.cell, stress=t.stress is not None)
        assert found.forces is not None
        off = (found.forces.double() - t.forces.double())[~torch.isnan(t.forces).any(1)]
        sums[:5] += [
            len(t.energy),
            float(((found.energy - t.energy).abs() / t.sizes).sum()),
            float(off.abs().sum()),
            float(off.square().sum()),
            float(torch.linalg.vector_norm(off, dim=1).sum()),
        ]
        sums[5] += len(off)
        if t.stress is not None and found.stress is not None:
            pull = (found.stress.double() - t.stress.double())[~torch.isnan(t.stress).flatten(1).any(1)]
            sums[6:] += [float(pull.abs().sum()), pull.numel()]
    frames, energy, by_component, squares, vectors, atoms, stress, numbers = group.total(sums.tolist())
    components = 3 * atoms or np.nan
    return Errors(
        frames=int(frames),
        energy=energy / frames,
        forces=by_component / components,
        forces_rms=float(np.sqrt(squares / components)),
        vectors=vectors / (atoms or np.nan),
        stress=stress / (numbers or np.nan),
    )
