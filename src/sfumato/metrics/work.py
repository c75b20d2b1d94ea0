"""Whether the energy of a path and the work of its forces contradict each other, beyond what a grid hides.

Between two frames a smooth force may do anything. What it cannot do, unless it leaves the range of its own
values around, is more work than the trapezoid by half of its change times the step: a larger residual is a
jump of the energy, or a force that is not its gradient. A smooth edge counts as a jump only where it is so
narrow that no frame sees its force. And edges are few: where much of a path would need that excuse, the force
is wrong, however fast it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.arrays import Sides, check_minimum, checked, require_finite
from sfumato.metrics.extrema import CEILING, FLOOR, NOISE_FACTOR, energy_noise
from sfumato.metrics.smoothness import WorkEnergyOrder, order_of, residuals, unexplained_energy
from sfumato.systems import Floats

LEAST = 1e-4
"""eV; smaller contradictions are rounding, also of energies in single precision that are sums over atoms."""

RESOLVED = 0.3
"""Of what the change of the force allows. Smooth curves on grids that resolve them leave at most 0.2; of 459
scans by `mindscaip-nano`, which has steep edges, none has more than three intervals above 0.3."""

EDGES = 0.125
"""Of the intervals of a path; more that leave more than `RESOLVED` are no edges."""


class Excess(NamedTuple):
    """By how much energy and work contradict each other, eV, and in which interval; 0 and −1: nowhere."""

    height: float
    interval: int


def work_energy_excess(
    energy: ArrayLike, forces: ArrayLike, positions: ArrayLike, *, least: float = LEAST
) -> Excess:
    """Return the largest part of the work–energy residual that no force between those of the frames explains.

    Args:
        energy: (F,) eV along a path.
        forces: (F, N, 3) eV/Å.
        positions: (F, N, 3) Å; consecutive frames are joined by straight lines.
        least: eV, the least that is reported.

    Returns:
        max over the intervals i of r_i − ½ k max(c_{i−1}, c_i, c_{i+1}), with r the residual of
        `work_energy_residual` and c_i = |(F_{i+1} − F_i)·(x_{i+1} − x_i)|; k = 1, or 0.3 if more than an
        eighth of the intervals leave more than that. Positive where the energy jumps by more than the force
        allows or the force is not its gradient. Negative, reported as 0, where both are right: a kink of the
        energy, a steep wall, and a smooth edge that takes one and a half steps or more (from 10 to 90 %),
        whatever their residuals and orders. What does not reach five times the noise of the energy, at most
        5 meV, counts as 0.

    Raises:
        ValueError: a wrong shape, or a value that is not finite.
    """
    E = checked(energy, (None,), "energy")
    F, x = checked(forces, (len(E), None, 3), "forces"), checked(positions, (len(E), None, 3), "positions")
    return _excess(E, F, np.diff(x, axis=0), unexplained_energy(E, F, x), least)


def _excess(energy: Floats, forces: Floats, steps: Floats, residual: Floats, least: float) -> Excess:
    if not len(residual):
        return Excess(0.0, -1)
    change = np.abs(((forces[1:] - forces[:-1]) * steps).sum(axis=(1, 2)))
    # Where the force is level its change is nearly zero, and its neighbors say how it bends.
    allowed = change.copy()
    allowed[1:] = np.maximum(allowed[1:], change[:-1])
    allowed[:-1] = np.maximum(allowed[:-1], change[1:])
    allowed /= 2
    many = np.count_nonzero(residual > np.maximum(RESOLVED * allowed, least)) > EDGES * len(residual)
    excess = residual - (RESOLVED if many else 1.0) * allowed
    worst = int(excess.argmax())
    if excess[worst] < least:
        return Excess(0.0, -1)
    way = np.append(0.0, np.cumsum(np.sqrt((steps**2).sum(axis=(1, 2)))))
    noise = energy_noise(way, energy) if (np.diff(way) > 0).all() else 0.0
    if excess[worst] < min(NOISE_FACTOR * noise, CEILING * FLOOR):
        return Excess(0.0, -1)
    return Excess(float(excess[worst]), worst)


class WorkNumbers(NamedTuple):
    """Of one path: `work_energy_residual`, `work_energy_order` and `work_energy_excess`."""

    residual: Sides
    order: WorkEnergyOrder
    excess: Excess


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a path, the same for every prediction.

    Args:
        every: (F − 1, N, 3) Å, from frame to frame.
        other: (K, N, 3) Å, from every other frame to the next; a last step without a partner is left out.
    """

    every: Floats
    other: Floats


def steps_of(positions: ArrayLike) -> Steps:
    """Return the steps of a path.

    Args:
        positions: (F, N, 3) Å; consecutive frames are joined by straight lines.

    Raises:
        ValueError: a wrong shape, or a value that is not finite.
    """
    x = checked(positions, (None, None, 3), "positions")
    require_finite(x, np.arange(len(x)), "positions")
    odd = len(x) - (len(x) + 1) % 2
    return Steps(np.diff(x, axis=0), np.diff(x[:odd:2], axis=0))


def work_numbers(steps: Steps, energy: ArrayLike, forces: ArrayLike, minimum: int) -> WorkNumbers:
    """Return all numbers about energy and work at little more than the cost of one.

    Args:
        steps: of the path.
        energy: (F,) eV.
        forces: (F, N, 3) eV/Å.
        minimum: the frame at which the sides are split.

    Returns:
        The order is that from every other frame to every frame.

    Raises:
        ValueError: a wrong shape, or a value that is not finite.
    """
    frames, atoms = len(steps.every) + 1, steps.every.shape[1]
    E = checked(energy, (frames,), "energy")
    F = checked(forces, (frames, atoms, 3), "forces")
    every = np.arange(frames)
    require_finite(E, every, "energy")
    require_finite(F, every, "forces")
    residual = residuals(E, F, steps.every)
    odd = 2 * len(steps.other) + 1
    coarse = residuals(E[:odd:2], F[:odd:2], steps.other)
    return WorkNumbers(
        Sides.largest(residual, check_minimum(minimum, frames)),
        order_of(coarse, residual[: odd - 1], min(minimum // 2, odd // 2)),
        _excess(E, F, steps.every, residual, LEAST),
    )
