"""False barriers and false wells of a predicted energy curve: how high, and where.

Two kinds are reported alike. A *stationary* one is a maximum or minimum of the predicted energy that the
reference does not have. A *loaded* one is a bump or a dip on a slope: too weak to turn the slope around, it
becomes a barrier or a well as soon as the rest of the molecule pulls at the bond with the slope's own force.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from sfumato.metrics.arrays import checked, increasing, labeled_frames, require_finite
from sfumato.metrics.curves import distinct, peaks
from sfumato.systems import Bools, Floats, Ints

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
    return _noise(checked(energy, b.shape, "energy"), _even_runs(b))


def _even_runs(b: Floats) -> Bools | None:
    """Return which runs of `ORDER` steps, (F − ORDER,), have equal ones; None: all, or there is no run."""
    steps = np.diff(b)
    if len(steps) < ORDER or steps.max() <= 1.01 * steps.min():
        return None
    runs = sliding_window_view(steps, ORDER)
    return np.asarray(runs.max(axis=1) <= 1.01 * runs.min(axis=1))


def _noise(energy: Floats, even: Bools | None) -> float:
    if len(energy) <= ORDER:
        return 0.0
    size = np.abs(np.diff(energy - energy.mean(), ORDER))
    if even is not None:
        size = size[even]
    if not len(size):
        return 0.0
    half = len(size) // 2
    ordered = np.partition(size, (half - 1, half) if half else 0)
    median = ordered[half] if len(size) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return float(median / 0.6745 / math.sqrt(math.comb(2 * ORDER, ORDER)))


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
    return _beside(steps, _half_window(steps), energy - reference_energy)


def _half_window(steps: Floats) -> int:
    """Return the intervals on either side of the middle of a window."""
    return round(WINDOW / float(np.median(steps))) // 2 if len(steps) else 0


def _beside(steps: Floats, half: int, error: Floats) -> Floats:
    """Return `excess_energy` of an error of the energy, (F,) eV, with steps of (F − 1,) Å."""
    if not len(steps) or 2 * half + 1 < NARROWEST:
        return np.zeros(len(error))
    slope = (error[1:] - error[:-1]) / steps
    padded = np.concatenate([np.full(half, slope[0]), slope, np.full(half, slope[-1])])
    course = np.partition(sliding_window_view(padded, 2 * half + 1), half, axis=1)[:, half]
    excess = np.zeros(len(error))
    np.cumsum((slope - course) * steps, out=excess[1:])
    return excess


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
    reference = curve_reference(coordinate, reference_energy, period=period, floor=floor)
    return extrema_beyond(reference, reference.predicted(energy))


Peaks = tuple[Ints, Floats]
"""Of a curve: what `curves.peaks` returns."""


@dataclass(frozen=True, eq=False)
class CurveReference:
    """A reference curve as the numbers about its shape need it, the same for every prediction.

    Args:
        frames: F, of the whole curve.
        used: (f,) the frames that count: labeled, and each point of a closed path once.
        coordinate: (f,) Å there.
        energy: (f,) eV there.
        period: Å, of a path that closes on itself; None for one with two ends.
        floor: eV, the least height that counts.
        b: (f,) or (3f,) Å: the coordinate, of a closed path with a turn before and after.
        target: (f,) or (3f,) eV, the energy likewise.
        real: 1 → the maxima of the target, −1 → its minima, of at least `FLOOR`.
        bends: place, kind and height in eV/Å of the extrema of its slope.
        steepest: eV/Å, beyond its minimum.
        steps: (f − 1,) or (3f − 1,) Å, of `b`.
        half: intervals on either side of the middle of a window.
        even: which runs of frames noise is read from; None for all.
    """

    frames: int
    used: Ints
    coordinate: Floats
    energy: Floats
    period: float | None
    floor: float
    b: Floats
    target: Floats
    real: dict[int, list[Extremum]]
    bends: list[tuple[float, int, float]]
    steepest: float
    steps: Floats
    half: int
    even: Bools | None

    def predicted(self, energy: ArrayLike) -> Floats:
        """Return a predicted curve in the frames that count, (f,) eV.

        Args:
            energy: (F,) eV.

        Raises:
            ValueError: a wrong shape, or a value in these frames that is not finite.
        """
        return require_finite(
            checked(energy, (self.frames,), "predicted energy"), self.used, "predicted energy"
        )

    def around(self, curve: Floats) -> Floats:
        """Return a curve, (f,), as `target` is: of a closed path with a turn before and after."""
        return curve if self.period is None else np.tile(curve, 3)


def curve_reference(
    coordinate: ArrayLike, reference_energy: ArrayLike, *, period: float | None = None, floor: float = FLOOR
) -> CurveReference:
    """Prepare a reference curve for many predictions.

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        period: Å, of a path that closes on itself.
        floor: eV, the least height that counts.

    Raises:
        ValueError: as `false_extrema`.
    """
    if not floor > 0:
        raise ValueError(f"floor: must be a positive number of eV, got {floor}")
    b = checked(coordinate, (None,), "coordinate")
    target = checked(reference_energy, b.shape, "reference energy")
    used = labeled_frames(target)
    used = used[distinct(increasing(b[used]), period)]
    b, target = b[used], target[used]
    once, energy = b, target
    if period is not None:
        b, target = np.concatenate([b - period, b, b + period]), np.tile(target, 3)
    real = {sign: _maxima(b, peaks(sign * target), FLOOR) for sign in (1, -1)}
    steepest, bends, steps = 0.0, [], np.diff(b)
    if len(b) > 2:
        slope = np.diff(target) / steps
        bends = _slope_extrema(b, {kind: peaks(kind * slope) for kind in (1, -1)}, -math.inf)
        beyond = slice(int(target.argmin()), None)
        steepest = float((np.diff(target[beyond]) / np.diff(b[beyond])).max(initial=0.0))
    return CurveReference(
        frames=len(np.asarray(coordinate)),
        used=used,
        coordinate=once,
        energy=energy,
        period=period,
        floor=floor,
        b=b,
        target=target,
        real=real,
        bends=bends,
        steepest=steepest,
        steps=steps,
        half=_half_window(steps),
        even=_even_runs(once),
    )


def extrema_beyond(
    reference: CurveReference,
    predicted: Floats,
    tops: dict[int, Peaks] | None = None,
    bends: dict[int, Peaks] | None = None,
) -> FalseExtrema:
    """Return what `false_extrema` returns.

    Args:
        reference: of `curve_reference`.
        predicted: (f,) eV, in the frames that count.
        tops: peaks of the predicted curve (1) and of its negative (−1), if they are known already; of an
            open path only.
        bends: likewise of its slope.
    """
    b, target = reference.b, reference.target
    noise = _noise(predicted, reference.even)
    threshold = min(max(reference.floor, NOISE_FACTOR * noise), CEILING * reference.floor)
    closed, energy = reference.period is not None, reference.around(predicted)
    if tops is None or closed:
        tops = {sign: peaks(sign * energy) for sign in (1, -1)}
    if len(b) > 2 and (bends is None or closed):
        slope = np.diff(energy) / reference.steps
        bends = {kind: peaks(kind * slope) for kind in (1, -1)}
    excess = _beside(reference.steps, reference.half, energy - target)
    bumps = {sign: _maxima(b, peaks(sign * excess), threshold, sign * excess) for sign in (1, -1)}
    if any(bumps.values()):
        bearable = _bearable(reference, energy - excess)
        bumps = {
            s: [x for x in some if bearable[np.searchsorted(b, x.position)]] for s, some in bumps.items()
        }
    stationary = {sign: _stationary(reference, sign, _maxima(b, tops[sign], threshold)) for sign in (1, -1)}
    stretches = []
    if bends is not None and len(b) > 2 and (any(bumps.values()) or any(stationary.values())):
        stretches = _bends(reference, bends, threshold)
    first, last, found = reference.coordinate[0], reference.coordinate[-1], []
    for sign in (1, -1):
        own = [bend for kind, *bend in stretches if kind == sign]
        false = _merged(stationary[sign], bumps[sign], own)
        kept = [x for x in false if first <= x.position <= last]
        found.append(tuple(sorted(kept, key=lambda x: -x.height)))
    return FalseExtrema(found[0], found[1], noise, threshold)


def _stationary(reference: CurveReference, sign: int, own: list[Extremum]) -> list[Extremum]:
    """Return the maxima of the prediction (sign 1), or its minima (−1), that are none of the reference."""
    b, top = reference.b, int((sign * reference.target).argmax())
    pinned = sign < 0 and reference.period is None and 0 < top < len(b) - 1
    return _unmatched(own, reference.real[sign], float(b[top]) if pinned else None)


def _merged(stationary: list[Extremum], bumps: list[Extremum], bends: list[list[float]]) -> list[Extremum]:
    """Return the false extrema of one kind, each bump once.

    Args:
        stationary: of the prediction.
        bumps: of the excess.
        bends: from, to, in Å; what counts of the bumps, and what belongs to one bump.
    """
    found = []
    for first, last in bends:
        near = [x for x in stationary if first <= x.position <= last]
        loaded = [x for x in bumps if first <= x.position <= last]
        stationary = [x for x in stationary if x not in near]
        if near or loaded:
            found.append(max(near + loaded, key=lambda x: x.height))
    return found + stationary


def _maxima(b: Floats, found: Peaks, least: float, curve: Floats | None = None) -> list[Extremum]:
    """Return the maxima at least so high.

    Args:
        b: (f,) Å.
        found: the peaks of a curve.
        least: height that counts.
        curve: (f,); given, heights are those within half a `WINDOW` of each maximum.
    """
    places, heights = found
    if not len(places):
        return []
    high = heights >= least  # a descent cannot be longer on a part of the way
    places, heights = places[high], heights[high]
    if curve is not None:
        for k, p in enumerate(places):
            near = (np.abs(b - b[p]) <= WINDOW / 2).nonzero()[0]
            inner, own = peaks(curve[near[0] : near[-1] + 1])
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


def _slope_extrema(b: Floats, found: dict[int, Peaks], least: float) -> list[tuple[float, int, float]]:
    """Return place in Å, kind (1: maximum) and height in eV/Å of the extrema of a slope."""
    middle = (b[1:] + b[:-1]) / 2
    return [(x.position, kind, x.height) for kind in (1, -1) for x in _maxima(middle, found[kind], least)]


def _bends(
    reference: CurveReference, found: dict[int, Peaks], threshold: float
) -> list[tuple[int, float, float]]:
    """Return the stretches between neighboring extrema of the predicted slope that the reference lacks.

    Returns:
        Kind (1: from a maximum of the slope to a minimum, −1: from a minimum to a maximum), and the first and
        last frame in Å. A pair of which each is within `REACH` of one of the reference is its own bend.
    """
    b = reference.b
    least = 2 * threshold / float(np.median(reference.steps))
    own, known = sorted(_slope_extrema(b, found, least)), set()
    expected = [x for x in reference.bends if x[2] >= least]
    for place, kind, _ in sorted(expected, key=lambda x: -x[2]):
        near = [x for x in own if x[1] == kind and x not in known and abs(x[0] - place) <= REACH]
        if near:
            known.add(min(near, key=lambda x: abs(x[0] - place)))
    return [
        (one[1], float(b[b <= one[0]][-1]), float(b[b >= two[0]][0]))
        for one, two in pairwise(own)
        if one[1] != two[1] and not (one in known and two in known)
    ]


def _bearable(reference: CurveReference, course: Floats) -> Bools:
    """Return the frames, (f,), where a curve is no steeper than the reference beyond its minimum."""
    b = reference.b
    if len(b) < 3:
        return np.zeros(len(b), dtype=bool)
    return np.asarray(np.abs(np.gradient(course, b)) <= reference.steepest)
