"""Jumps of energy, force and slope of the force along a path: measured at a place, and searched for.

A path is evaluated on a grid. Where energy changes by what the force does not show, or a force by what its
surroundings do not predict, the interval is halved: a smooth function soon agrees, a jump never does. A
stencil is put across what is left. A jump is what stays while the stencil shrinks; what is steep goes away.

Pure functions: what is searched is a function that turns places into samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.metrics.noise import MARGIN
from sfumato.systems import Floats

LIMITS = (1e-10, 1e-8, 1e-5)
"""Jumps of the energy in eV, of a force in eV/Å, of its slope along the path in eV/Å²."""

STENCIL = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
"""Places of `jumps`, in units of its width."""

JUMP_NOISE = 3.3
"""Noise of a jump of the values over the noise of one value: √2 |(15, −10, 3)/8|."""

SLOPE_NOISE = 5.3
"""Noise of a jump of the slope, times the width, over the noise of one value: √2 |(−2, 3, −1)|."""

FADES = 0.25
"""By which a misfit falls at each halving of a smooth function, at least; that of a kink halves."""

HALVINGS = 6
"""Times the stencil is halved before what is left counts as a jump."""

SETTLED = 0.05
"""A jump that changes by less than this while the stencil is quartered need not be looked at more closely."""

STAYS = 0.3
"""A jump stays when the stencil is quartered; a kink leaves 0.25 of itself, a smooth function less."""

CURVATURE = 1e3
"""eV/Å⁴, third derivative of a stiff bond's force: sets the width at which noise and curvature balance."""


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


Curve = Callable[[Sequence[float]], list[Sample]]
"""What a potential says along a path: samples at some places."""

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
    def left_over(self) -> float:
        """eV/Å by which the last sample missed what surrounds it; infinite before there is one."""
        return self.misfits[-1] if self.misfits else np.inf

    @property
    def limit(self) -> float:
        """eV/Å that noise may leave."""
        return self.noise

    def _fits_left(self, sample: Sample) -> bool:
        return _misfit(self.left[-4:], sample) < _misfit(self.right[:4], sample)


def _misfit(around: Sequence[Sample], sample: Sample) -> float:
    """Return by how much the largest force component differs from what samples around predict."""
    predicted = continued([(each.place, each.forces) for each in around], sample.place)
    return float(np.abs(sample.forces - predicted).max())


@dataclass(frozen=True)
class Jump:
    """What is left of the discontinuity at one place.

    Args:
        sizes: of energy (eV), force (eV/Å) and slope of the force (eV/Å²).
        tolerances: of the same.
        stays: which of them neither vanish with the stencil nor are within the tolerance.
        width: Å, of the last stencil.
    """

    sizes: tuple[float, float, float]
    tolerances: tuple[float, float, float]
    stays: tuple[bool, bool, bool]
    width: float


def narrow(force_noise: float) -> float:
    """Return the width in Å at which noise and curvature contribute alike to a jump of the force."""
    return float(np.clip((force_noise / CURVATURE) ** (1 / 3), 1e-5, 1e-2))


def sizes_at(curve: Curve, s: float, width: float) -> tuple[float, float, float]:
    """Return what a stencil sees at a place: jumps of energy, force and slope of the force."""
    samples = curve([s + width * offset for offset in STENCIL])
    energy, _ = jumps(np.array([sample.energy for sample in samples]), width)
    force, slope = jumps(np.array([sample.forces for sample in samples]), width)
    return energy, force, slope


def tolerances_of(rough: tuple[float, float], width: float) -> tuple[float, float, float]:
    """Return up to which size a stencil cannot tell jumps of energy, force and slope from noise.

    Args:
        rough: eV and eV/Å, how rough energy and force are without any jump.
        width: of the stencil in Å.
    """
    noise = (JUMP_NOISE * rough[0], JUMP_NOISE * rough[1], SLOPE_NOISE * rough[1] / width)
    energy, force, slope = (low + MARGIN * sigma for low, sigma in zip(LIMITS, noise, strict=True))
    return energy, force, slope


def jump_at(curve: Curve, s: float, rough: tuple[float, float]) -> Jump:
    """Measure the jump at one place with ever narrower stencils.

    Args:
        curve: what is measured.
        s: the place.
        rough: eV and eV/Å, how rough energy and force are without any jump.
    """
    width = 4 * narrow(rough[1])
    history: list[tuple[float, float, float]] = []
    while True:
        history.append(sizes_at(curve, s, width))
        tolerances = tolerances_of(rough, width)
        over = [not size <= limit for size, limit in zip(history[-1], tolerances, strict=True)]
        if not any(over) or _settled(history, over) or len(history) > HALVINGS:
            break
        width /= 2
    before = history[-3] if len(history) > 2 else (0.0,) * 3
    stays = tuple(o and not size <= STAYS * old for o, size, old in zip(over, history[-1], before))
    return Jump(history[-1], tolerances, stays, width)  # type: ignore[arg-type]


def _settled(history: Sequence[tuple[float, float, float]], over: Sequence[bool]) -> bool:
    """Return whether a jump that matters was the same for three widths of the stencil."""
    last = np.array(history[-3:])[:, list(over)]
    return len(last) == 3 and bool((np.ptp(last, axis=0) <= SETTLED * last.max(axis=0)).any())


def hunts(
    curve: Curve, grid: Sequence[Sample], rough: tuple[float, float], drift: float, most: tuple[int, int]
) -> list[EnergyHunt | ForceHunt]:
    """Halve the most suspicious intervals of a path until they are smooth, or too narrow to hold more.

    Args:
        curve: what is searched.
        grid: at least eight samples, equidistant or a smooth function of something that is.
        rough: eV and eV/Å, how rough energy and force are without any jump.
        drift: eV/Å by which the power may be inexact without a jump.
        most: intervals that are halved because of the energy, and of the force.
    """
    forces = np.array([sample.forces for sample in grid])
    limits = tuple(low + 2 * MARGIN * sigma for low, sigma in zip(LIMITS[:2], rough, strict=True))
    work = np.abs([unexplained(grid, k) for k in range(len(grid) - 1)])
    found: list[EnergyHunt | ForceHunt] = [
        EnergyHunt(grid, k, (limits[0], drift))
        for k in suspects(work, limits[0], most[0])
        if work[k] > limits[0]
    ]
    change = fifth(forces)
    found += [
        ForceHunt(grid, k + 2, limits[1])
        for k in suspects(change, limits[1], most[1])
        if change[k] > limits[1]
    ]
    narrowed(curve, found, narrow(rough[1]) / 16)
    return found


def narrowed(curve: Curve, found: Sequence[EnergyHunt | ForceHunt], narrowest: float) -> None:
    """Halve the intervals of some hunts until each is smooth, or this narrow in Å."""
    while active := [hunt for hunt in found if not hunt.smooth and hunt.width > narrowest]:
        for hunt, sample in zip(active, curve([hunt.middle for hunt in active]), strict=True):
            hunt.take(sample)
