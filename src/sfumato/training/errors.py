"""How far a model is off on a split, while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sfumato.models.network import Network, evaluate
from sfumato.systems import Floats
from sfumato.training.batches import Batches, Sample, Whole
from sfumato.training.distributed import Group
from sfumato.training.stages import Stage


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
        atoms: whose forces were compared.
        stressed: components of stress that were compared.
    """

    frames: int
    energy: float
    forces: float
    forces_rms: float
    vectors: float
    stress: float
    atoms: int
    stressed: int

    def loss(self, stage: Stage) -> float:
        """Return what they amount to with the weights of a stage; what has no label does not count."""
        by = stage.loss
        terms = (
            (by.energy, self.energy, self.frames),
            (by.forces, self.vectors, self.atoms),
            (by.stress, self.stress, self.stressed),
        )
        return sum(weight * value for weight, value, labels in terms if weight and labels)


def measure(model: Network, batches: Batches, group: Group) -> Errors:
    """Compare a model with the frames of a split, each process with its share of them.

    Args:
        model: on the device of this process.
        batches: of the split, in the order of the set.
        group: the processes.

    Raises:
        ValueError: a structure that does not fit into memory.
    """
    sums = np.zeros(8)
    for k, whole in enumerate(batches.epoch(0)):
        if k % group.size == group.rank:
            sums += _sums(model, batches, whole, group.device)
    frames, energy, by_component, squares, vectors, atoms, stress, numbers = group.total(sums.tolist())
    components = 3 * atoms or np.nan
    return Errors(
        frames=int(frames),
        energy=energy / frames,
        forces=by_component / components,
        forces_rms=float(np.sqrt(squares / components)),
        vectors=vectors / (atoms or np.nan),
        stress=stress / (numbers or np.nan),
        atoms=int(atoms),
        stressed=int(numbers),
    )


def _sums(model: Network, batches: Batches, whole: Whole, device: torch.device) -> Floats:
    """Return (8,) what some structures add; where memory runs out they are looked at in halves."""
    try:
        return _off(model, batches.sample(whole, torch.float32).to(device))
    except torch.cuda.OutOfMemoryError:
        if len(whole) == 1:
            raise ValueError(
                f"validation: {len(whole.batch.numbers)} atoms do not fit into the memory of the device"
            ) from None
    torch.cuda.empty_cache()
    first, second = np.array_split(np.arange(len(whole)), 2)
    halves = (_sums(model, batches, whole.take(half), device) for half in (first, second))
    return np.sum(list(halves), axis=0)  # type: ignore[no-any-return]


def _off(model: Network, sample: Sample) -> Floats:
    sums, t = np.zeros(8), sample.targets
    found = evaluate(model, sample.topology, sample.positions, sample.cell, stress=t.stress is not None)
    assert found.forces is not None
    off = (found.forces.double() - t.forces.double())[~torch.isnan(t.forces).any(1)]
    sums[:6] = [
        len(t.energy),
        float(((found.energy - t.energy).abs() / t.sizes).sum()),
        float(off.abs().sum()),
        float(off.square().sum()),
        float(torch.linalg.vector_norm(off, dim=1).sum()),
        len(off),
    ]
    if t.stress is not None and found.stress is not None:
        pull = (found.stress.double() - t.stress.double())[~torch.isnan(t.stress).flatten(1).any(1)]
        sums[6:] = [float(pull.abs().sum()), pull.numel()]
    return sums
