"""Noise of a smooth function, and its derivative in spite of it. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfumato.systems import Floats

MARGIN = 10.0
"""Standard deviations of noise that are never a finding: the largest of 10⁴ numbers is at 4, a difference
of two has √2, and noise differs from structure to structure."""

STEPS = (5e-5, 1e-3, 2e-2)
"""Å; the first is small enough that the sixth difference of a smooth potential is below rounding, and large
enough that a position in single precision (3e-7 Å) is another one. The others are for energies so coarsely
rounded that most steps of the one before left them unchanged."""

SETTLED = 4.0
"""Three noise estimates in a row agree when they are within this factor (Moré & Wild 2011)."""


def noise_level(values: Floats) -> float:
    """Return the standard deviation of the noise in a smooth function, from values at equal small steps.

    The k-th differences of a smooth function die away with k; those of noise do not. With γ_k = (k!)²/(2k)!,
    σ_k = √(γ_k ⟨(Δ^k f)²⟩) estimates the noise once three of them in a row agree; if none do, the smallest
    bounds it from above. Numbers that all fit single precision are at least as noisy as its rounding, even
    where a few of them happen to be rounded alike.

    Args:
        values: (M, …) at M ≥ 5 equidistant points; further axes are components with noise of one size.

    Source: Moré & Wild 2011, "Estimating computational noise", Eq. 2.2 and section 3.
    """
    estimates, differences = [], values
    for k in range(1, len(values)):
        differences = np.diff(differences, axis=0)
        weight = math.factorial(k) ** 2 / math.factorial(2 * k)
        estimates.append(math.sqrt(weight * float(np.mean(differences**2))))
    rounding = 0.0
    if np.ptp(values) > 0 and (values.astype(np.float32) == values).all():
        rounding = float(np.spacing(np.abs(values).max().astype(np.float32))) / math.sqrt(12)
    for k in range(len(estimates) - 2):
        three = estimates[k : k + 3]
        if max(three) <= SETTLED * min(three):
            return float(max(three[0], rounding))
    return float(max(min(estimates), rounding))


def noise_along(
    values: Callable[[Floats], tuple[Floats, Floats]], reach: float = math.inf
) -> tuple[float, float]:
    """Return the noise of the energy in eV and of a force component in eV/Å along a line.

    Args:
        values: gives energies (M,) and forces (M, N, 3) at some distances in Å along the line.
        reach: Å that one may go, so that a jump nearby is not taken for noise.
    """
    for step in (step for step in STEPS if 4 * step < reach):
        energy, forces = values(np.linspace(-4 * step, 4 * step, 9))
        if (np.diff(energy) == 0).mean() <= 0.5:
            break
    return noise_level(energy), noise_level(forces)


@dataclass(frozen=True)
class Derivative:
    """A derivative by extrapolated central differences.

    Args:
        value: unit of the function over unit of the step.
        error: its own estimate of what extrapolation leaves, without noise.
        step: the smallest step that went into it; noise enters as σ / (√2 step).
    """

    value: float
    error: float
    step: float


def ridders(steps: Floats, above: Floats, below: Floats) -> Derivative:
    """Return df/dx at 0 from f at ±h for a series of steps, each half of the one before.

    Central differences have errors in h², h⁴, …, which a triangular table removes one by one; the entry is
    taken that its neighbors contradict least, so neither the answer nor the error knows what is expected.

    Args:
        steps: (K,) h.
        above: (K,) f(h).
        below: (K,) f(−h).

    Source: Ridders 1982, "Accurate computation of F'(x) and F'(x)F''(x)".
    """
    table = [(above - below) / (2 * steps)]
    best = Derivative(float(table[0][0]), math.inf, float(steps[0]))
    for order in range(1, len(steps)):
        last = table[-1]
        finer = last[1:] + (last[1:] - last[:-1]) / (4.0**order - 1)
        table.append(finer)
        errors = np.maximum(np.abs(finer - last[1:]), np.abs(finer - last[:-1]))
        k = int(np.argmin(errors))
        if errors[k] < best.error:
            best = Derivative(float(finer[k]), float(errors[k]), float(steps[k + order]))
    return best
