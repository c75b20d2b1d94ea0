"""All numbers about the shape of an energy curve: what they share is computed once, the reference's too.

They are those that `false_extrema`, `spurious_points`, `excess_variation`, `well_and_wall` give one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.arrays import checked
from sfumato.metrics.curves import (
    ENERGY_TOLERANCE,
    SLOPE_TOLERANCE,
    StationaryPoints,
    WellErrors,
    excess_variation,
    peaks,
    spurious_points,
    variation_beyond,
    well_and_wall,
    well_of,
)
from sfumato.metrics.extrema import CurveReference, FalseExtrema, Peaks, curve_reference, extrema_beyond
from sfumato.systems import Floats


class Shape(NamedTuple):
    """What is wrong with the shape of one predicted curve."""

    false: FalseExtrema
    spurious: StationaryPoints
    variation: float
    well: WellErrors


@dataclass(frozen=True, eq=False)
class ShapeReference:
    """A reference curve, and its own numbers.

    Args:
        coordinate: (F,) Å.
        energy: (F,) eV; nan where the reference failed.
        curve: the same as the search for false extrema needs it.
        points: of an open path.
        variation: likewise, eV.
        well: likewise, place in Å, depth and wall in eV; nan with one frame.
    """

    coordinate: Floats
    energy: Floats
    curve: CurveReference
    points: StationaryPoints
    variation: float
    well: tuple[float, float, float]


def shape_reference(
    coordinate: ArrayLike, reference_energy: ArrayLike, *, period: float | None = None
) -> ShapeReference:
    """Prepare a reference curve for many predictions.

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        period: Å, of a path that closes on itself; None for one with two ends.

    Raises:
        ValueError: a wrong shape, no labeled frame, a coordinate that does not increase, or a path longer
            than its period.
    """
    b = checked(coordinate, (None,), "coordinate")
    target = checked(reference_energy, b.shape, "reference energy")
    curve = curve_reference(b, target, period=period)
    points = _points(*_peaks(curve.coordinate, curve.energy))
    variation = variation_beyond(curve.energy)
    return ShapeReference(b, target, curve, points, variation, _well(curve.coordinate, curve.energy))


def shape_numbers(reference: ShapeReference, energy: ArrayLike) -> Shape:
    """Return all numbers about the shape of a predicted curve.

    Args:
        reference: of `shape_reference`.
        energy: (F,) predicted, eV.

    Raises:
        ValueError: a prediction that is not finite, or a wrong shape.
    """
    curve = reference.curve
    predicted = curve.predicted(energy)
    if curve.period is not None:
        given = (reference.coordinate, reference.energy, energy)
        return Shape(
            extrema_beyond(curve, predicted),
            spurious_points(*given, period=curve.period),
            excess_variation(*given, period=curve.period),
            well_and_wall(*given),
        )
    tops, bends = _peaks(curve.coordinate, predicted)
    own, expected = _points(tops, bends), reference.points
    well = zip(_well(curve.coordinate, predicted), reference.well)
    return Shape(
        extrema_beyond(curve, predicted, tops, bends),
        StationaryPoints(*(max(0, p - r) for p, r in zip(own, expected))),
        variation_beyond(predicted) - reference.variation,
        WellErrors(*(found - true for found, true in well)),
    )


def _peaks(b: Floats, energy: Floats) -> tuple[dict[int, Peaks], dict[int, Peaks]]:
    """Return the peaks of a curve (1) and its negative (−1), and those of its slope."""
    slope = np.diff(energy) / np.diff(b)
    return {s: peaks(s * energy) for s in (1, -1)}, {s: peaks(s * slope) for s in (1, -1)}


def _points(tops: dict[int, Peaks], bends: dict[int, Peaks]) -> StationaryPoints:
    """Count as `stationary_points` does with its default tolerances."""

    def count(found: Peaks, tolerance: float) -> int:
        return int((found[1] >= tolerance).sum())

    return StationaryPoints(
        count(tops[-1], ENERGY_TOLERANCE),
        count(tops[1], ENERGY_TOLERANCE),
        count(bends[1], SLOPE_TOLERANCE) + count(bends[-1], SLOPE_TOLERANCE),
    )


def _well(b: Floats, energy: Floats) -> tuple[float, float, float]:
    return well_of(b, energy) if len(b) > 1 else (math.nan,) * 3
