"""Whether the energy of a path and the work of its forces contradict each other, beyond what a grid hides.

Between two frames a smooth force may do anything. What it cannot do, unless it leaves the range of its own
values around, is more work than the trapezoid by half of its change times the step: a larger residual is a
jump of the energy, or a force that is not its gradient. A smooth edge counts as a jump only where it is so
narrow that no frame sees its force. And edges are few: where much of a path would need that excuse, the force
is wrong, however fast it changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.arrays import Sides, check_minimum, checked
from sfumato.metrics.extrema import CEILING, FLOOR, NOISE_FACTOR, energy_noise
from sfumato.metrics.smoothness import WorkEnergyOrder, order_of, unexplained_energy
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
    return _excess(E, F, x, unexplained_energy(E, F, x), least)


def _excess(E: Floats, F: Floats, x: Floats, residual: Floats, least: float) -> Excess:
    if not len(residual):
        return Excess(0.0, -1)
    step = np.diff(x, axis=0)
    change = np.abs((np.diff(F, axis=0) * step).sum(axis=(1, 2)))
    # Where the force is level its change is nearly zero, and its neighbors say how it bends.
    allowed = np.max([np.append(change[1:], 0.0), change, np.append(0.0, change[:-1])], axis=0) / 2
    many = np.count_nonzero(residual > np.maximum(RESOLVED * allowed, least)) > EDGES * len(residual)
    excess = residual - (RESOLVED if many else 1.0) * allowed
    worst = int(excess.argmax())
    if excess[worst] < least:
        return Excess(0.0, -1)
    way = np.append(0.0, np.cumsum(np.sqrt((step**2).sum(axis=(1, 2)))))
    noise = energy_noise(way, E) if (np.diff(way) > 0).all() else 0.0
    if excess[worst] < min(NOISE_FACTOR * noise, CEILING * FLOOR):
        return Excess(0.0, -1)
    return Excess(float(excess[worst]), worst)


class WorkNumbers(NamedTuple):
    """Of one path: `work_energy_residual`, `work_energy_order` and `work_energy_excess`."""

    residual: Sides
    order: WorkEnergyOrder
    excess: Excess


def work_numbers(energy: ArrayLike, forces: ArrayLike, positions: ArrayLike, minimum: int) -> WorkNumbers:
    """Return all numbers about energy and work at little more than the cost of one.

    Args:
        energy: (F,) eV along a path.
        forces: (F, N, 3) eV/Å.
        positions: (F, N, 3) Å; consecutive frames are joined by straight lines.
        minimum: the frame at which the sides are split.

    Returns:
        The order is that from every other frame to every frame; a last step without a partner is left out.

    Raises:
        ValueError: a wrong shape, or a value that is not finite.
    """
    E = checked(energy, (None,), "energy")
    F, x = checked(forces, (len(E), None, 3), "forces"), checked(positions, (len(E), None, 3), "positions")
    residual = unexplained_energy(E, F, x)
    odd = len(E) - (len(E) + 1) % 2
    coarse = unexplained_energy(E[:odd:2], F[:odd:2], x[:odd:2])
    return WorkNumbers(
        Sides.of_intervals(residual, check_minimum(minimum, len(E)), np.max),
        order_of(coarse, residual[: odd - 1], min(minimum // 2, odd // 2)),
        _excess(E, F, x, residual, LEAST),
    )
