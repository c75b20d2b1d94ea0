"""False barriers and false wells of a predicted energy curve: how high, and where.

Two kinds are reported alike. A *stationary* one is a maximum or minimum of the predicted energy that the
reference does not have. A *loaded* one is a bump or a dip on a slope: too weak to turn the slope around, it
becomes a barrier or a well as soon as the rest of the molecule pulls at the bond with the slope's own force.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from sfumato.metrics.curves import distinct, labeled_curves, peaks
from sfumato.metrics.smoothness import checked
from sfumato.systems import Bools, Floats

FLOOR = 1e-3
"""eV; extrema lower than this are never reported, those higher than `CEILING` times it always."""

CEILING = 5.0
"""Noise of more than a millielectronvolt is a defect, and no excuse for the extrema it makes."""

NOISE_FACTOR = 5.0
"""Of 100 level frames with noise of standard deviation σ, 90 % have no prominence above 5.1 σ."""

ORDER = 8
"""Of the differences that separate noise from the curve."""

WINDOW = 0.8
"""Å; the running median over this follows the smooth course of an error of the slope, and any edge in it."""

NARROWEST = 9
"""Intervals in a window; a coarser grid cannot tell a bump from the course of the curve."""

REACH = 0.3
"""Å; an extremum of the prediction may be one of the reference this far away, …"""

ALIKE = 3.0
"""… if it is no more than this many times as high."""


class Extremum(NamedTuple):
    """A barrier or a well: its place on the coordinate in Å and its height, or depth, in eV."""

    position: float
    height: float


class FalseExtrema(NamedTuple):
    """Barriers and wells that the reference lacks, the largest first, and what counts as one.

    Args:
        barriers: of the predicted energy.
        wells: likewise.
        noise: eV, the standard deviation of what is random in the predicted energy from frame to frame.
        threshold: eV, the least height that is reported.
    """

    barriers: tuple[Extremum, ...]
    wells: tuple[Extremum, ...]
    noise: float
    threshold: float

    @property
    def false_barrier(self) -> float:
        """Height of the largest false barrier in eV; 0 where there is none."""
        return self.barriers[0].height if self.barriers else 0.0

    @property
    def false_well(self) -> float:
        """Depth of the largest false well in eV; 0 where there is none."""
        return self.wells[0].height if self.wells else 0.0


def energy_noise(coordinate: ArrayLike, energy: ArrayLike) -> float:
    """Return the standard deviation of what is random in an energy curve from frame to frame.

    Args:
        coordinate: (F,) Å; only runs of nine frames at equal distances are looked at.
        energy: (F,) eV.

    Returns:
        eV: the median of |Δ⁸E| over 0.6745·√12870, which is σ for independent normal errors; of the smooth
        curves of BSCT-SPICE it is 0.01 meV, and at most 0.14 meV. 0 where no such run exists.

    Raises:
        ValueError: a wrong shape.
    """
    b = checked(coordinate, (None,), "coordinate")
    E = checked(energy, b.shape, "energy")
    if len(b) <= ORDER:
        return 0.0
    steps, differences = np.diff(b), np.diff(E - E.mean(), ORDER)
    if steps.max() > 1.01 * steps.min():
        runs = sliding_window_view(steps, ORDER)
        differences = differences[runs.max(axis=1) <= 1.01 * runs.min(axis=1)]
    if not len(differences):
        return 0.0
    return float(np.median(np.abs(differences)) / 0.6745 / math.sqrt(math.comb(2 * ORDER, ORDER)))


def excess_energy(coordinate: Floats, reference_energy: Floats, energy: Floats) -> Floats:
    """Return what a predicted energy does beside its smooth course.

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV.
        energy: (F,) predicted, eV.

    Returns:
        (F,) eV, zero in the first frame: the integral of d − (running median of d over `WINDOW`), d the error
        of the slope. A running median returns every monotonic stretch as it is, so that a shift, a scaling,
        a step or a kink of the slope leave no extremum here, while a bump or dip narrower than a quarter of
        the window is left whole. All zeros where the window has fewer than `NARROWEST` intervals.
    """
    steps = np.diff(coordinate)
    if not len(steps):
        return np.zeros(len(coordinate))
    half = round(WINDOW / float(np.median(steps))) // 2
    if 2 * half + 1 < NARROWEST:
        return np.zeros(len(coordinate))
    error = np.diff(energy - reference_energy) / steps
    course = np.median(sliding_window_view(np.pad(error, half, mode="edge"), 2 * half + 1), axis=1)
    return np.concatenate([[0.0], np.cumsum((error - course) * steps)])


def false_extrema(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    energy: ArrayLike,
    *,
    period: float | None = None,
    floor: float = FLOOR,
) -> FalseExtrema:
    """Find the barriers and wells of a predicted energy curve that the reference does not have.

    Heights are prominences (the persistence of the extremum): the least descent from a barrier, or climb out
    of a well, on either side before the curve goes beyond it or ends. A *stationary* extremum is one of E(b)
    that is not within 0.3 Å of one of the reference of at least a third of its height; the prediction's
    minimum next to the reference's lowest is never false, only misplaced. A *loaded* one is an extremum of
    `excess_energy`, its height taken within half a window, between a maximum and a minimum of the slope of
    E(b) that the reference lacks (the curve bends there as the reference does nowhere near), where the smooth
    course is no steeper than the reference beyond its minimum: a load that the bond itself can bear. Where
    both are of one bump it counts once, with the larger height.

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV; frames with nan are left out of both curves.
        energy: (F,) predicted, eV; its zero does not matter.
        period: Å, of a path that closes on itself (see `curves.full_turn`); None for one with two ends.
        floor: eV, the least height that counts.

    Returns:
        Those at least as high as the threshold, five times the noise but at least `floor` and at most five
        times `floor`. Extrema at the ends of an open path are none. A loaded bump wider than 0.25 Å at half
        its height is reported with less than its height, half of it at 0.5 Å; one that bends less than the
        curve does by itself has to be stationary to be seen.

    Raises:
        ValueError: a wrong shape, no labeled frame, a prediction that is not finite, a coordinate that does
            not increase, a path longer than its period, or a floor that is not positive.
    """
    if not floor > 0:
        raise ValueError(f"floor: must be a positive number of eV, got {floor}")
    b, target, predicted = labeled_curves(coordinate, reference_energy, energy)
    once = distinct(b, period)
    b, target, predicted = b[once], target[once], predicted[once]
    noise = energy_noise(b, predicted)
    threshold = min(max(floor, NOISE_FACTOR * noise), CEILING * floor)
    inside = np.ones(len(b), dtype=bool)
    if period is not None:
        inside = np.repeat([False, True, False], len(b))
        b = np.concatenate([b - period, b, b + period])
        target, predicted = np.tile(target, 3), np.tile(predicted, 3)
    excess = excess_energy(b, target, predicted)
    bearable = _bearable(b, target, predicted - excess)
    bends = _bends(b, target, predicted, threshold)
    found = []
    for sign in (1, -1):
        bumps = _maxima(b, sign * excess, threshold, reach=WINDOW / 2)
        bumps = [x for x in bumps if bearable[np.searchsorted(b, x.position)]]
        own = [bend for kind, *bend in bends if kind == sign]
        false = _false(b, sign * target, sign * predicted, bumps, own, threshold, sign < 0 and period is None)
        kept = [x for x in false if b[inside][0] <= x.position <= b[inside][-1]]
        found.append(tuple(sorted(kept, key=lambda x: -x.height)))
    return FalseExtrema(found[0], found[1], noise, threshold)


def _false(
    b: Floats,
    target: Floats,
    energy: Floats,
    bumps: list[Extremum],
    bends: list[list[float]],
    threshold: float,
    pinned: bool,
) -> list[Extremum]:
    """Return the false maxima of a curve (of wells: of the negative curve).

    Args:
        b: (F,) Å.
        target: (F,) eV, of the reference.
        energy: (F,) eV, of the prediction.
        bumps: of the excess.
        bends: from, to, in Å; what counts of the bumps, and what belongs to one bump.
        threshold: eV.
        pinned: whether the maximum next to the reference's highest is real wherever it is.
    """
    own, real = _maxima(b, energy, threshold), _maxima(b, target, FLOOR)
    top = int(target.argmax())
    highest = float(b[top]) if pinned and 0 < top < len(b) - 1 else None
    stationary = _unmatched(own, real, highest)
    found = []
    for first, last in bends:
        near = [x for x in stationary if first <= x.position <= last]
        loaded = [x for x in bumps if first <= x.position <= last]
        stationary = [x for x in stationary if x not in near]
        if near or loaded:
            found.append(max(near + loaded, key=lambda x: x.height))
    return found + stationary


def _maxima(b: Floats, curve: Floats, least: float, reach: float = math.inf) -> list[Extremum]:
    """Return the maxima at least so high, looking for descents no further than `reach` from each."""
    places, heights = peaks(curve)
    if reach < math.inf:
        for k, p in enumerate(places):
            near = np.flatnonzero(np.abs(b - b[p]) <= reach)
            inner, own = peaks(curve[near])
            heights[k] = own[inner == p - near[0]].max(initial=0.0)
    return [Extremum(float(b[p]), float(h)) for p, h in zip(places, heights) if h >= least]


def _unmatched(own: list[Extremum], real: list[Extremum], pinned: float | None) -> list[Extremum]:
    """Return those of the prediction's extrema that are none of the reference's.

    Args:
        own: of the prediction.
        real: of the reference.
        pinned: Å, the reference's lowest point, whose nearest own minimum is real; None for maxima.
    """
    left, known = list(own), list(real)
    if pinned is not None and left and known:
        left.remove(min(left, key=lambda x: abs(x.position - pinned)))
        known.remove(min(known, key=lambda x: abs(x.position - pinned)))
    for true in sorted(known, key=lambda x: -x.height):
        near = [x for x in left if abs(x.position - true.position) <= REACH]
        near = [x for x in near if x.height <= ALIKE * true.height]
        if near:
            left.remove(min(near, key=lambda x: abs(x.position - true.position)))
    return left


def _bends(b: Floats, target: Floats, energy: Floats, threshold: float) -> list[tuple[int, float, float]]:
    """Return the stretches between neighboring extrema of the slope that the reference lacks.

    Returns:
        Kind (1: from a maximum of the slope to a minimum, −1: from a minimum to a maximum), and the first and
        last frame in Å. A pair of which each is within `REACH` of one of the reference is its own bend.
    """
    if len(b) < 3:
        return []
    steps, middle = np.diff(b), (b[1:] + b[:-1]) / 2
    least = 2 * threshold / float(np.median(steps))

    def extrema(curve: Floats) -> list[tuple[float, int, float]]:
        slope = np.diff(curve) / steps
        return [
            (x.position, kind, x.height) for kind in (1, -1) for x in _maxima(middle, kind * slope, least)
        ]

    own, known = sorted(extrema(energy)), set()
    for place, kind, _ in sorted(extrema(target), key=lambda x: -x[2]):
        near = [x for x in own if x[1] == kind and x not in known and abs(x[0] - place) <= REACH]
        if near:
            known.add(min(near, key=lambda x: abs(x[0] - place)))
    return [
        (one[1], float(b[b <= one[0]][-1]), float(b[b >= two[0]][0]))
        for one, two in pairwise(own)
        if one[1] != two[1] and not (one in known and two in known)
    ]


def _bearable(b: Floats, target: Floats, course: Floats) -> Bools:
    """Return the frames, (F,), where a curve is no steeper than the reference beyond its minimum."""
    if len(b) < 3:
        return np.zeros(len(b), dtype=bool)
    beyond = slice(int(target.argmin()), None)
    steepest = float((np.diff(target[beyond]) / np.diff(b[beyond])).max(initial=0.0))
    return np.asarray(np.abs(np.gradient(course, b)) <= steepest)
