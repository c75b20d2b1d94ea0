"""The shape of an energy curve against its reference: stationary points, variation, well and wall.

Every function takes plain arrays, in eV and Å. A path that closes on itself, a full turn of a torsion, is
given with its period: it has no ends, and its first and last frame are neighbors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.arrays import checked, increasing, labeled_frames, require_finite
from sfumato.systems import Floats, Ints

CLOSED = 1e-6
"""Å; a path that ends this close to one period after its start repeats its first frame."""


ENERGY_TOLERANCE, SLOPE_TOLERANCE = 1e-3, 0.1
"""eV and eV/Å; how far a stationary point must stand out, see docs/metrics.md."""

MANY = 4
"""Maxima of a curve; the valleys beside more are searched for all at once."""


class StationaryPoints(NamedTuple):
    """How many minima, maxima and inflections an energy curve has inside its scan."""

    minima: int
    maxima: int
    inflections: int


def peaks(curve: Floats) -> tuple[Ints, Floats]:
    """Return the inner maxima of a curve, (F,), and the prominence of each, as scipy.signal.find_peaks does.

    The prominence is the least descent from the maximum, on either side, before the curve rises above it or
    ends. A level top is one maximum, at its middle.
    """
    y, places = curve, None
    if (y[1:] == y[:-1]).any():
        first = np.flatnonzero(np.append(True, y[1:] != y[:-1]))
        places = (first + np.append(first[1:], len(curve)) - 1) // 2
        y = curve[first]
    rising = y[1:] > y[:-1]
    tops = (rising[:-1] & ~rising[1:]).nonzero()[0] + 1
    if not len(tops):
        return tops, np.zeros(0)
    if len(tops) > MANY:
        heights = y[tops] - np.maximum(_valleys(y, tops, -1), _valleys(y, tops, 1))
    else:
        valleys = [max(_valley(y[p - 1 :: -1], y[p]), _valley(y[p + 1 :], y[p])) for p in tops.tolist()]
        heights = y[tops] - valleys
    return tops if places is None else places[tops], heights


def _valley(side: Floats, top: float) -> float:
    """Return the lowest value on a way from a top until it is higher or ends."""
    higher = side > top
    end = int(higher.argmax())
    return float((side[:end] if higher[end] else side).min())


def _valleys(curve: Floats, tops: Ints, way: int) -> Floats:
    """Return `_valley` of many tops to the left (−1) or to the right (1) at once."""
    y, places = curve[::way], tops if way > 0 else len(curve) - 1 - tops
    after = np.arange(len(y)) > places[:, None]
    higher = after & (y > y[places][:, None])
    reached = np.logical_or.accumulate(higher, axis=1)
    return np.asarray(np.where(after & ~reached, y, np.inf).min(axis=1))


def distinct(coordinate: Floats, period: float | None) -> slice:
    """Return the frames of a path without a last one that repeats the first.

    Args:
        coordinate: (F,) Å, increasing.
        period: Å, of a path that closes on itself; None for one with two ends.

    Raises:
        ValueError: the path is longer than its period.
    """
    if period is None or len(coordinate) < 2:
        return slice(None)
    rest = period - float(coordinate[-1] - coordinate[0])
    if rest < -CLOSED:
        raise ValueError(f"period: {period} Å is shorter than the path, {period - rest} Å")
    return slice(-1) if rest <= CLOSED else slice(None)


def full_turn(coordinate: ArrayLike, arm: float) -> float | None:
    """Return the period of a path around an axis if its frames go once around it, else None.

    Args:
        coordinate: (F,) arc length in Å, increasing.
        arm: distance from the axis in Å.

    Returns:
        2π·arm in Å where the gap from the last frame to the first, one turn on, is at most one and a half
        times the longest step, or none because the last frame repeats the first; None for a part of a turn.
    """
    b = increasing(checked(coordinate, (None,), "coordinate"))
    if len(b) < 3:
        return None
    period = 2 * math.pi * float(arm)
    rest = period - float(b[-1] - b[0])
    return period if -CLOSED <= rest <= 1.5 * float(np.diff(b).max()) else None


def labeled_curves(
    coordinate: ArrayLike, reference_energy: ArrayLike, energy: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Return coordinate, reference and predicted energy of the labeled frames.

    Raises:
        ValueError: a wrong shape, no labeled frame, a prediction that is not finite, or a coordinate that
            does not increase.
    """
    b = checked(coordinate, (None,), "coordinate")
    target = checked(reference_energy, b.shape, "reference energy")
    used = labeled_frames(target)
    predicted = require_finite(checked(energy, b.shape, "predicted energy"), used, "predicted energy")
    return increasing(b[used]), target[used], predicted


def stationary_points(
    coordinate: ArrayLike,
    energy: ArrayLike,
    *,
    energy_tolerance: float = ENERGY_TOLERANCE,
    slope_tolerance: float = SLOPE_TOLERANCE,
    period: float | None = None,
) -> StationaryPoints:
    """Count the minima, maxima and inflections of E(b) that stand out by more than a tolerance.

    An inflection is an extremum of the slope, taken as finite differences at the interval midpoints, so
    the grid may be uneven. The ends of an open path do not count. The default slope tolerance is what an
    energy error of one energy tolerance, up and down again, does to a slope on the released grids
    (Δb ≈ 0.023 Å); docs/metrics.md shows that it separates noise from chemistry on the reference data.

    Args:
        coordinate: (F,) Å, increasing.
        energy: (F,) eV.
        energy_tolerance: prominence in eV that an extremum must reach.
        slope_tolerance: prominence in eV/Å that an extremum of the slope must reach.
        period: Å, of a path that closes on itself (see `full_turn`); None for one with two ends.

    Returns:
        The three counts.

    Raises:
        ValueError: a wrong shape, a value that is not finite, a coordinate that does not increase, a path
            longer than its period, or a negative tolerance.
    """
    b = increasing(checked(coordinate, (None,), "coordinate"))
    E = require_finite(checked(energy, b.shape, "energy"), np.arange(len(b)), "energy")
    if not (energy_tolerance >= 0 and slope_tolerance >= 0):
        raise ValueError(f"tolerances: must not be negative, got {energy_tolerance} and {slope_tolerance}")
    closes = period is not None
    if period is not None:
        once = distinct(b, period)
        b, E = b[once], E[once]
        slope = np.diff(np.append(E, E[:1])) / np.diff(np.append(b, b[:1] + period))
    else:
        slope = np.diff(E) / np.diff(b)

    def count(curve: Floats, tolerance: float) -> int:
        if closes and len(curve):
            # From its lowest value once around: every maximum is inside, with its prominence on the circle.
            curve = np.roll(curve, -int(curve.argmin()))
            curve = np.append(curve, curve[0])
        return int((peaks(curve)[1] >= tolerance).sum())

    return StationaryPoints(
        minima=count(-E, energy_tolerance),
        maxima=count(E, energy_tolerance),
        inflections=count(slope, slope_tolerance) + count(-slope, slope_tolerance),
    )


def spurious_points(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    energy: ArrayLike,
    *,
    energy_tolerance: float = ENERGY_TOLERANCE,
    slope_tolerance: float = SLOPE_TOLERANCE,
    period: float | None = None,
) -> StationaryPoints:
    """Count the minima, maxima and inflections that a prediction has beyond those of the reference.

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV; frames with nan are left out of both curves.
        energy: (F,) predicted, eV.
        energy_tolerance: as `stationary_points`.
        slope_tolerance: as `stationary_points`.
        period: as `stationary_points`.

    Returns:
        max(0, predicted − reference) of each count; a missing point is not negative here.

    Raises:
        ValueError: as `stationary_points`, or no labeled frame.

    Source: the chemical smoothness of Subotnik et al. 2008, as used by Liu et al. 2026, sec. 3.
    """
    b, *curves = labeled_curves(coordinate, reference_energy, energy)
    expected, counted = (
        stationary_points(
            b, E, energy_tolerance=energy_tolerance, slope_tolerance=slope_tolerance, period=period
        )
        for E in curves
    )
    return StationaryPoints(*(max(0, p - r) for p, r in zip(counted, expected)))


def excess_variation(
    coordinate: ArrayLike, reference_energy: ArrayLike, energy: ArrayLike, *, period: float | None = None
) -> float:
    """Return how far the predicted energy goes up and down beyond what one well and the reference need.

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV; frames with nan are left out of both curves.
        energy: (F,) predicted, eV; its zero does not matter.
        period: Å, of a path that closes on itself; None for one with two ends.

    Returns:
        V(predicted) − V(reference) in eV with V = Σ|E_{i+1} − E_i| − (E_first − E_min) − (E_last − E_min),
        which is zero for a curve that only falls to its lowest point and rises after it, whatever its depth,
        place and steepness; every false climb adds twice its height. On a closed path V = Σ|ΔE| − 2 (E_max
        − E_min) around it. Negative where the reference has a barrier that the prediction lacks.

    Raises:
        ValueError: a wrong shape, no labeled frame, or a prediction that is not finite.
    """
    b, *curves = labeled_curves(coordinate, reference_energy, energy)
    once = distinct(b, period)

    expected, counted = (variation_beyond(E[once], period is not None) for E in curves)
    return counted - expected


def variation_beyond(energy: Floats, closed: bool = False) -> float:
    """Return V of `excess_variation` of one curve, (F,) eV; of a closed path each point once."""
    E = energy
    if closed:
        around = float(np.abs(np.diff(np.append(E, E[0]))).sum())
        return around - 2 * float(E.max() - E.min())
    return float(np.abs(np.diff(E)).sum() - (E[0] - E.min()) - (E[-1] - E.min()))


class WellErrors(NamedTuple):
    """Predicted minus reference: place of the minimum in Å, depth and wall height in eV; nan is n/a."""

    position: float
    depth: float
    wall: float


def well_and_wall(coordinate: ArrayLike, reference_energy: ArrayLike, energy: ArrayLike) -> WellErrors:
    """Compare the predicted well with the reference: its place, its depth and its repulsive wall.

    A well's bottom is the vertex of the parabola through the lowest frame and its two neighbors, exact
    for a quadratic on any grid; depth is E(last) − E(bottom), wall is E(first) − E(bottom).

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV; frames with nan are left out of both curves.
        energy: (F,) predicted, eV; its zero does not matter.

    Returns:
        Predicted − reference. The position is nan where either minimum lies at an end of the scan; such
        a curve's bottom is that end's energy, so its depth or wall is zero. All are nan with one frame.

    Raises:
        ValueError: a wrong shape, no labeled frame, or a prediction that is not finite.
    """
    b, target, predicted = labeled_curves(coordinate, reference_energy, energy)
    if len(b) < 2:
        return WellErrors(math.nan, math.nan, math.nan)
    (x0, depth0, wall0), (x1, depth1, wall1) = well_of(b, target), well_of(b, predicted)
    return WellErrors(x1 - x0, depth1 - depth0, wall1 - wall0)


def well_of(b: Floats, E: Floats) -> tuple[float, float, float]:
    """Return the position of the minimum in Å, depth and wall in eV of one curve of two frames or more."""
    m = int(np.argmin(E))
    position, bottom = math.nan, 0.0
    if 0 < m < len(b) - 1:
        left, right = np.diff(b[m - 1 : m + 2])
        low, high = np.diff(E[m - 1 : m + 2]) / (left, right)
        # Newton's form about the lowest frame; the curvature is positive since argmin takes the first.
        curvature = (high - low) / (left + right)
        slope = low + curvature * left
        position, bottom = float(b[m] - slope / (2 * curvature)), float(-(slope**2) / (4 * curvature))
    return position, float(E[-1] - E[m]) - bottom, float(E[0] - E[m]) - bottom
