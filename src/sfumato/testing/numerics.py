"""The numerical tools of the contract: noise of a function, its derivative, its jumps. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.systems import Floats
from sfumato.testing.result import Measured

SETTLED = 4.0
"""Three noise estimates in a row agree when they are within this factor (Moré & Wild 2011)."""

STENCIL = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
"""Places of `jumps`, in units of its width."""

JUMP_NOISE = 3.3
"""Noise of a jump of the values over the noise of one value: √2 |(15, −10, 3)/8|."""

SLOPE_NOISE = 5.3
"""Noise of a jump of the slope, times the width, over the noise of one value: √2 |(−2, 3, −1)|."""

FADES = 0.25
"""By which a misfit falls at each halving of a smooth function, at least; that of a kink halves."""


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


def jumps(values: Floats, width: float) -> tuple[float, float]:
    """Return by how much a function and its slope jump at 0: right-hand limits minus left-hand ones.

    Each side is continued to 0 by a parabola; where the function is smooth both vanish as width³.

    Args:
        values: (6, …) at `STENCIL` times `width`.
        width: distance of neighboring points.

    Returns:
        The largest jump of any component, and of any component's slope.
    """
    left, right = values[2::-1], values[3:]
    value = np.tensordot([15 / 8, -10 / 8, 3 / 8], right - left, 1)
    slope = np.tensordot([-2.0, 3.0, -1.0], right + left, 1) / width
    return float(np.abs(value).max()), float(np.abs(slope).max())


def continued(points: Sequence[tuple[float, Floats]], at: float) -> Floats:
    """Return the polynomial through some points, continued to another place.

    Args:
        points: distinct places, and values of one shape.
        at: where.
    """
    x = np.array([place for place, _ in points])
    itself = np.eye(len(x), dtype=bool)
    factors = np.where(itself, 1.0, (at - x) / np.where(itself, 1.0, x[:, None] - x))
    weights = np.prod(factors, axis=1)
    return np.asarray(np.tensordot(weights, np.stack([value for _, value in points]), 1), dtype=float)


def suspects(size: Floats, noise: float, most: int) -> list[int]:
    """Return the most suspicious of the numbers that tell how rough a function is along a grid.

    In turn, those are taken that stand out most from both sides of their surroundings, and the largest: a
    small jump in the quiet tail of a potential is far below what its wall does smoothly.

    Args:
        size: (M,) ≥ 0.
        noise: what one of them is of noise alone.
        most: how many to return.

    Returns:
        Places in `size`, no two of them closer than three.
    """
    outstanding = np.empty(len(size))
    for k in range(len(size)):  # a jump shows in two intervals to either side; compare with those beyond
        sides = [side for side in (size[max(0, k - 7) : max(0, k - 2)], size[k + 3 : k + 8]) if len(side)]
        around = max((float(np.median(side)) for side in sides), default=0.0)
        outstanding[k] = size[k] / (around + 3 * noise + np.finfo(float).tiny)
    chosen: list[int] = []
    for start in np.stack([np.argsort(-outstanding), np.argsort(-size)], axis=1).ravel():
        near = range(max(0, int(start) - 2), min(len(size), int(start) + 3))
        peak = max(near, key=lambda k: size[k])
        if all(abs(peak - other) > 2 for other in chosen):
            chosen.append(peak)
    return chosen[:most]


def fifth(values: Floats) -> Floats:
    """Return how far values are from what their surroundings predict: (M − 5,) fifth differences over 6.

    The largest of any component, one for each interval [k, k + 1] from k = 2: a jump J shows as J, a smooth
    function of spacing h as h⁵.

    Args:
        values: (M, …) at equidistant points.
    """
    sizes: Floats = np.abs(np.diff(values.reshape(len(values), -1), 5, axis=0)).max(axis=1) / 6
    return sizes


@dataclass(frozen=True, eq=False)
class Sample:
    """What is known at one place of a path.

    Args:
        place: s in Å.
        energy: eV.
        power: F · dr/ds in eV/Å, which is −dE/ds where the force is the gradient.
        forces: flat, eV/Å.
    """

    place: float
    energy: float
    power: float
    forces: Floats


NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)


def unexplained(samples: Sequence[Sample], k: int) -> float:
    """Return E(b) − E(a) + ∫F·dr between two samples: energy that the force does not show.

    The power is integrated as the polynomial through the six samples around, so of a smooth function h⁷ is
    left, and of a step of the energy all of it.

    Args:
        samples: in the order of their places.
        k: the interval from sample a = k to b = k + 1.
    """
    first = min(max(0, k - 2), max(0, len(samples) - 6))
    around = [(sample.place, np.array(sample.power)) for sample in samples[first : first + 6]]
    a, b = samples[k], samples[k + 1]
    middle, half = (a.place + b.place) / 2, (b.place - a.place) / 2
    power = [float(continued(around, middle + half * node)) for node in NODES]
    return b.energy - a.energy + half * float(np.dot(WEIGHTS, power))


class EnergyHunt:
    """An interval that is halved until it is smooth: it goes where the force does not explain the energy.

    Args:
        samples: of the whole path.
        k: the interval to start with.
        noise: eV and eV/Å, how rough energy and power are without any jump.
    """

    def __init__(self, samples: Sequence[Sample], k: int, noise: tuple[float, float]) -> None:
        self.samples, self.k, self.noise, self.smooth = list(samples), k, noise, False
        self.left_over = abs(unexplained(self.samples, k))

    @property
    def width(self) -> float:
        """Å."""
        return self.samples[self.k + 1].place - self.samples[self.k].place

    @property
    def middle(self) -> float:
        """Å, the place to evaluate next, and in the end the one that is suspected."""
        return (self.samples[self.k + 1].place + self.samples[self.k].place) / 2

    def take(self, sample: Sample) -> None:
        """Learn what the function is in the middle."""
        self.samples.insert(self.k + 1, sample)
        left, right = (abs(unexplained(self.samples, self.k + n)) for n in (0, 1))
        self.k += right > left
        self.left_over = max(left, right)
        self.smooth = self.left_over <= self.limit

    @property
    def limit(self) -> float:
        """eV that noise may leave unexplained."""
        return self.noise[0] + self.width * self.noise[1]

    @property
    def measured(self) -> Measured:
        """How well a smooth interval is explained."""
        where = f"smooth around {self.middle:.4g} Å, energy against work"
        return Measured(self.left_over, self.limit, "eV", where)


class ForceHunt:
    """An interval that is halved until it is smooth: it goes where the force, or its slope, jumps.

    Args:
        samples: of the whole path.
        k: the interval to start with, two or more from either end; a kink may lie in either neighbor.
        noise: eV/Å, how rough a force is without any jump.
    """

    def __init__(self, samples: Sequence[Sample], k: int, noise: float) -> None:
        self.noise, self.smooth = noise, False
        self.misfits: list[float] = []
        self.left, self.right = list(samples[max(0, k - 4) : k]), list(samples[k + 2 : k + 6])
        for n in (k, k + 1):
            if not self._fits_left(samples[n]):
                self.right = [*samples[n : k + 2], *self.right]
                break
            self.left.append(samples[n])

    @property
    def width(self) -> float:
        """Å."""
        return self.right[0].place - self.left[-1].place

    @property
    def middle(self) -> float:
        """Å, the place to evaluate next, and in the end the one that is suspected."""
        return (self.left[-1].place + self.right[0].place) / 2

    def take(self, sample: Sample) -> None:
        """Learn what the function is in the middle; smooth is what is predicted ever better."""
        self.misfits.append(_misfit([*self.left[-3:], *self.right[:3]], sample))
        faded = self.misfits[-1] <= self.misfits[0] * FADES ** (len(self.misfits) - 1)
        self.smooth = self.misfits[-1] <= self.noise and faded
        if self._fits_left(sample):
            self.left.append(sample)
        else:
            self.right.insert(0, sample)

    @property
    def measured(self) -> Measured:
        """How well a smooth interval is predicted by what surrounds it."""
        where = f"smooth around {self.middle:.4g} Å, force against its surroundings"
        return Measured(self.misfits[-1], self.noise, "eV/Å", where)

    def _fits_left(self, sample: Sample) -> bool:
        return _misfit(self.left[-4:], sample) < _misfit(self.right[:4], sample)


def _misfit(around: Sequence[Sample], sample: Sample) -> float:
    """Return by how much the largest force component differs from what samples around predict."""
    predicted = continued([(each.place, each.forces) for each in around], sample.place)
    return float(np.abs(sample.forces - predicted).max())
