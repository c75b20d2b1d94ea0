"""What training makes small. Each term is a sum over some structures divided by a count that is given, so
that terms of the parts of a batch add up to that of the whole, on however many devices it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.models.network import Output


@dataclass(frozen=True)
class Counts:
    """What the terms are means over: the whole batch of a step, of which a device may see a part.

    Args:
        structures: how many.
        atoms: those whose forces are compared.
        stressed: structures whose stress is compared.
        moved: atoms whose displacement is asked for.
    """

    structures: int
    atoms: int
    stressed: int = 0
    moved: int = 0

    def of(self, term: str) -> int:
        """Return what a term of the loss is a mean over."""
        return {"forces": self.atoms, "bend": self.atoms, "stress": self.stressed, "noise": self.moved}.get(
            term, self.structures
        )


@dataclass(frozen=True)
class Targets:
    """What a model should say.

    Args:
        energy: (G,) eV.
        forces: (N, 3) eV/Å; NaN for atoms that are not compared.
        stress: (G, 3, 3) eV/Å³, NaN for structures that are not compared; None for none.
        noise: (N, 3) displacements over their standard deviation, NaN for atoms that stayed; None for none.
        sizes: (G,) atoms of each structure.
        counts: of the whole batch.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor | None
    noise: Tensor | None
    sizes: Tensor
    counts: Counts


def energy_loss(energy: Tensor, target: Tensor, sizes: Tensor, count: int) -> Tensor:
    """Return the mean of |ΔE|/N, eV per atom.

    Args:
        energy: (G,) eV.
        target: (G,) eV.
        sizes: (G,) N.
        count: structures of the whole batch.

    Source: Liu et al. 2026, Table 7 (weight 1).
    """
    by_structure: Tensor = (energy - target).abs() / sizes
    return by_structure.sum() / count


def vector_loss(found: Tensor, target: Tensor, count: int) -> Tensor:
    """Return the mean of ‖Δ‖₂ over the vectors whose target is known.

    Args:
        found: (N, 3), forces or displacements.
        target: (N, 3), NaN where it is not known.
        count: known vectors of the whole batch; with none the loss is zero.

    Source: Liu et al. 2026, Table 7 (weight 2 or 4 of forces); Liao et al. 2024 (displacements).
    """
    # The slope of a norm at zero is taken as zero, also where there is nothing to compare.
    known = ~torch.isnan(target)
    off = torch.where(known, found - torch.where(known, target, 0), 0)
    lengths: Tensor = torch.linalg.vector_norm(off, dim=1)
    return lengths.sum() / max(count, 1)


def stress_loss(stress: Tensor, target: Tensor, count: int) -> Tensor:
    """Return the mean of |Δσ| over the nine components, eV/Å³.

    Args:
        stress: (G, 3, 3) eV/Å³.
        target: (G, 3, 3), NaN where it is not known.
        count: structures of the whole batch whose stress is known.

    Source: Liu et al. 2026, Table 7 (weight 10).
    """
    known = ~torch.isnan(target)
    off = torch.where(known, stress - torch.where(known, target, 0), 0)
    return off.abs().sum() / (9 * max(count, 1))


def bend_penalty(minus: Tensor, here: Tensor, plus: Tensor, step: float, floor: float, count: int) -> Tensor:
    """Return the mean excess of the curvature of forces along a path over a floor, squared and relative.

    With c_i = ‖F_i(+h) − 2F_i(0) + F_i(−h)‖/h² it is the mean of (max(c_i/floor − 1, 0))²: forces that bend
    no faster than chemistry cost nothing. Its slope is continuous at the floor.

    Args:
        minus: (N, 3) eV/Å, forces with the bond shortened.
        here: (N, 3) as it is.
        plus: (N, 3) stretched.
        step: Å, h.
        floor: eV/Å³; 0 for the mean of c_i² itself.
        count: atoms of the whole batch.
    """
    bend = torch.linalg.vector_norm(plus - 2 * here + minus, dim=1) / step**2
    excess = torch.relu(bend / floor - 1) if floor > 0 else bend
    return excess.square().sum() / max(count, 1)


def terms(output: Output, targets: Targets) -> dict[str, Tensor]:
    """Return the terms of the loss that a model's output and the targets allow, without weights.

    Args:
        output: of the model.
        targets: of the same structures.
    """
    t, n = targets, targets.counts
    found = {"energy": energy_loss(output.energy, t.energy, t.sizes, n.structures)}
    if output.forces is not None:
        found["forces"] = vector_loss(output.forces, t.forces, n.atoms)
    if output.stress is not None and t.stress is not None:
        found["stress"] = stress_loss(output.stress, t.stress, n.stressed)
    if output.noise is not None and t.noise is not None:
        found["noise"] = vector_loss(output.noise, t.noise, n.moved)
    return found
