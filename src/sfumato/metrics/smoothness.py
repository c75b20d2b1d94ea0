"""How smooth and how physical a predicted energy curve is along a scan.

Every function takes plain arrays, in eV, Å and eV/Å. A quantity that does not exist (a side of the scan
without frames) is nan, which reports print as "n/a"; a prediction that is not finite is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from sfumato.systems import Floats, Ints
from sfumato.words import nearest

Coordinate = Literal["length", "alpha"]
Minimum = Literal["reference", "own"]


class Sides(NamedTuple):
    """A number over the whole scan and over its two sides; nan where a side has fewer than two frames.

    The frame of the reference minimum belongs to both sides.
    """

    full: float
    compress: float
    stretch: float

    @classmethod
    def of_frames(cls, values: Floats, minimum: int, reduce: Callable[[Floats], float]) -> Sides:
        """Reduce one value per frame, (F,), over each side of frame `minimum`."""
        parts = (values, values[: minimum + 1], values[minimum:])
        return cls(*(float(reduce(part)) if len(part) >= 2 else math.nan for part in parts))

    @classmethod
    def of_intervals(cls, values: Floats, minimum: int, reduce: Callable[[Floats], float]) -> Sides:
        """Reduce one value per interval between frames, (F − 1,), over each side of frame `minimum`."""
        parts = (values, values[:minimum], values[minimum:])
        return cls(*(float(reduce(part)) if len(part) else math.nan for part in parts))


@dataclass(frozen=True)
class FSDSettings:
    """What an FSD value depends on beside the scan and the potential; a changed one shows in the name.

    Args:
        floor: ε in eV/Å; squared force differences below ε² count as ε².
        stride: use every stride-th labeled frame; 1 is the grid as given.
        coordinate: "length" differentiates by the bond length; "alpha" by the displacement of each
            fragment, half the change of the bond length, which doubles the value (Eq. 3 literally).
        minimum: "reference" measures the predicted forces from the reference force at the reference
            minimum; "own" from the predicted force at the predicted minimum.

    Raises:
        ValueError: a floor that is not positive, a stride below 1, or an unknown word.
    """

    floor: float = 1.0
    stride: int = 1
    coordinate: Coordinate = "length"
    minimum: Minimum = "reference"

    def __post_init__(self) -> None:
        object.__setattr__(self, "floor", float(self.floor))
        if not (math.isfinite(self.floor) and self.floor > 0):
            raise ValueError(
                f"floor: must be a positive number of eV/Å, got {self.floor}; the squared force "
                "difference is exactly zero at the reference minimum, so its logarithm needs a floor"
            )
        if isinstance(self.stride, bool) or not isinstance(self.stride, int) or self.stride < 1:
            raise ValueError(f"stride: must be a whole number of frames, 1 or more, got {self.stride}")
        _check_word("coordinate", self.coordinate, get_args(Coordinate))
        _check_word("minimum", self.minimum, get_args(Minimum))

    @property
    def name(self) -> str:
        """ "fsd", followed by every setting that differs from its default."""
        changed = [
            f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default
        ]
        return f"fsd[{','.join(changed)}]" if changed else "fsd"


def _check_word(what: str, word: str, valid: tuple[str, ...]) -> None:
    if word not in valid:
        raise ValueError(f"{what}: {word!r} is not one of {', '.join(valid)}; {nearest(str(word), valid)}")


def checked(values: ArrayLike, shape: tuple[int | None, ...], what: str) -> Floats:
    """Return `values` as floats of the expected shape (None: any length), or say what is wrong."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape)):
        expected = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{what}: expected shape {expected}, got {array.shape}")
    return array


def labeled_frames(*references: Floats) -> Ints:
    """Return the frames in which every reference array, each (F, …), is finite.

    Raises:
        ValueError: there are none.
    """
    finite = np.logical_and.reduce([np.isfinite(r).reshape(len(r), -1).all(axis=1) for r in references])
    if not finite.any():
        raise ValueError("no frame has a finite reference: there is nothing to compare with")
    return np.flatnonzero(finite)


def require_finite(values: Floats, frames: Ints, what: str) -> Floats:
    """Return `values[frames]`, or name the frames in which it is not finite.

    Raises:
        ValueError: a value in `frames` is not finite.
    """
    chosen = values[frames]
    bad = frames[~np.isfinite(chosen).reshape(len(chosen), -1).all(axis=1)]
    if len(bad):
        listed = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        raise ValueError(f"{what}: not finite in {len(bad)} of {len(frames)} frames ({listed})")
    return chosen


def check_minimum(minimum: int, frames: int) -> int:
    """Return `minimum` if it is one of `frames` frame numbers counted from 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= minimum < frames:
        raise ValueError(f"minimum: frame {minimum} is not one of 0…{frames - 1}")
    return int(minimum)


def _increasing(coordinate: Floats) -> Floats:
    if not (np.diff(coordinate) > 0).all():
        raise ValueError("coordinate: must be finite and increase from frame to frame")
    return coordinate


def _log_ratio(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    reference_forces: ArrayLike,
    forces: ArrayLike,
    *,
    settings: FSDSettings,
    energy: ArrayLike | None,
) -> tuple[Floats, Floats, int]:
    """Return the coordinate and L of the frames used, and the reference minimum among them."""
    length = checked(coordinate, (None,), "coordinate")
    target = checked(reference_energy, (len(length),), "reference energy")
    truth = checked(reference_forces, (len(length), None, 3), "reference forces")
    predicted = checked(forces, truth.shape, "predicted forces")
    used = labeled_frames(target, truth)[:: settings.stride]
    predicted, truth = require_finite(predicted, used, "predicted forces"), truth[used]
    m = int(np.argmin(target[used]))
    zero = truth[m]
    if settings.minimum == "own":
        if energy is None:
            raise ValueError('energy: minimum="own" needs the predicted energies to find that minimum')
        own = require_finite(checked(energy, (len(length),), "predicted energy"), used, "predicted energy")
        zero = predicted[int(np.argmin(own))]

    def log_square(change: Floats) -> Floats:
        return np.asarray(np.log(np.maximum((change**2).sum(axis=(1, 2)), settings.floor**2)))

    return _increasing(length[used]), log_square(predicted - zero) - log_square(truth - truth[m]), m


def _slopes(length: Floats, log_ratio: Floats, settings: FSDSettings) -> Floats:
    step = np.diff(length) / (2.0 if settings.coordinate == "alpha" else 1.0)
    return np.asarray(np.abs(np.diff(log_ratio)) / step)


def fsd_log_ratio(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    reference_forces: ArrayLike,
    forces: ArrayLike,
    *,
    settings: FSDSettings = FSDSettings(),
    energy: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Return the log-ratio of predicted to reference squared force changes in every frame of a scan.

    Args:
        coordinate: (F,) bond length in Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        reference_forces: (F, N, 3) eV/Å; nan likewise.
        forces: (F, N, 3) predicted, eV/Å.
        settings: floor ε, grid and minimum.
        energy: (F,) predicted, eV; needed for `minimum="own"` only.

    Returns:
        The bond length of each frame used in Å, and L = ln max(A, ε²) − ln max(R, ε²) there, without a
        unit; A and R are the predicted and the reference ‖ΔF‖² from the minimum.

    Raises:
        ValueError: as `fsd_profile`.

    Source: Liu et al. 2026, Eq. 2, with a floor, as its released package computes it.
    """
    return _log_ratio(
        coordinate, reference_energy, reference_forces, forces, settings=settings, energy=energy
    )[:2]


def fsd_profile(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    reference_forces: ArrayLike,
    forces: ArrayLike,
    *,
    settings: FSDSettings = FSDSettings(),
    energy: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Return the slope of the log-ratio of squared force changes in every interval of a scan.

    Args:
        coordinate: (F,) bond length in Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        reference_forces: (F, N, 3) eV/Å; nan likewise.
        forces: (F, N, 3) predicted, eV/Å.
        settings: floor, grid, coordinate and minimum.
        energy: (F,) predicted, eV; needed for `minimum="own"` only.

    Returns:
        The middle of each interval between labeled frames in Å of bond length, and |ΔL|/Δb there in 1/Å.

    Raises:
        ValueError: no labeled frame, a prediction that is not finite, a wrong shape, or a coordinate
            that does not increase.

    Source: Liu et al. 2026, Eq. 2 and 3, before the maximum is taken.
    """
    length, log_ratio = fsd_log_ratio(
        coordinate, reference_energy, reference_forces, forces, settings=settings, energy=energy
    )
    return (length[1:] + length[:-1]) / 2, _slopes(length, log_ratio, settings)


def fsd(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    reference_forces: ArrayLike,
    forces: ArrayLike,
    *,
    settings: FSDSettings = FSDSettings(),
    energy: ArrayLike | None = None,
) -> Sides:
    """Return the Force Smoothness Deviation of one scan: the largest value of `fsd_profile`.

    Args:
        coordinate: (F,) bond length in Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        reference_forces: (F, N, 3) eV/Å; nan likewise.
        forces: (F, N, 3) predicted, eV/Å.
        settings: floor, grid, coordinate and minimum.
        energy: (F,) predicted, eV; needed for `minimum="own"` only.

    Returns:
        1/Å, over the whole scan and on each side of the reference minimum.

    Raises:
        ValueError: as `fsd_profile`.

    Source: Liu et al. 2026, Eq. 3, per bond length and with a floor, as its released package computes it.
    """
    length, log_ratio, m = _log_ratio(
        coordinate, reference_energy, reference_forces, forces, settings=settings, energy=energy
    )
    return Sides.of_intervals(_slopes(length, log_ratio, settings), m, np.max)


def work_energy_residual(energy: ArrayLike, forces: ArrayLike, positions: ArrayLike, minimum: int) -> Sides:
    """Return the largest mismatch between an energy step and the work of the forces along a path.

    Args:
        energy: (F,) eV.
        forces: (F, N, 3) eV/Å.
        positions: (F, N, 3) Å; consecutive frames are joined by straight lines.
        minimum: the frame at which the sides are split.

    Returns:
        max |E_{i+1} − E_i + ½ (F_i + F_{i+1})·(x_{i+1} − x_i)| in eV. The trapezoid is exact where forces
        are linear; otherwise a smooth potential leaves a residual falling as the cube of the step, and a
        discontinuous or non-conservative one leaves a residual falling more slowly or not at all.

    Raises:
        ValueError: a wrong shape, or a value that is not finite.
    """
    E = checked(energy, (None,), "energy")
    every = np.arange(len(E))
    F = require_finite(checked(forces, (len(E), None, 3), "forces"), every, "forces")
    x = require_finite(checked(positions, F.shape, "positions"), every, "positions")
    E = require_finite(E, every, "energy")
    minimum = check_minimum(minimum, len(E))
    work = (0.5 * (F[1:] + F[:-1]) * np.diff(x, axis=0)).sum(axis=(1, 2))
    return Sides.of_intervals(np.abs(np.diff(E) + work), minimum, np.max)


class StationaryPoints(NamedTuple):
    """How many minima, maxima and inflections an energy curve has inside its scan."""

    minima: int
    maxima: int
    inflections: int


def _peaks(curve: Floats, tolerance: float) -> int:
    """Count the inner maxima whose prominence, as in scipy.signal.find_peaks, reaches a tolerance."""
    y = curve[np.concatenate([[True], np.diff(curve) != 0])] if len(curve) else curve
    rising = np.diff(y) > 0
    count = 0
    for p in np.flatnonzero(rising[:-1] & ~rising[1:]) + 1:
        left, right = y[:p][::-1], y[p + 1 :]
        valleys = [
            side[: np.argmax(side > y[p]) if (side > y[p]).any() else None].min() for side in (left, right)
        ]
        count += y[p] - max(valleys) >= tolerance
    return int(count)


def stationary_points(
    coordinate: ArrayLike,
    energy: ArrayLike,
    *,
    energy_tolerance: float = 1e-3,
    slope_tolerance: float = 0.1,
) -> StationaryPoints:
    """Count the minima, maxima and inflections of E(b) that stand out by more than a tolerance.

    An inflection is an extremum of the slope, taken as finite differences at the interval midpoints, so
    the grid may be uneven. The ends of the scan do not count. The default slope tolerance is what an
    energy error of one energy tolerance, up and down again, does to a slope on the released grids
    (Δb ≈ 0.023 Å); docs/metrics.md shows that it separates noise from chemistry on the reference data.

    Args:
        coordinate: (F,) Å, increasing.
        energy: (F,) eV.
        energy_tolerance: prominence in eV that an extremum must reach.
        slope_tolerance: prominence in eV/Å that an extremum of the slope must reach.

    Returns:
        The three counts.

    Raises:
        ValueError: a wrong shape, a value that is not finite, a coordinate that does not increase, or a
            negative tolerance.
    """
    b = _increasing(checked(coordinate, (None,), "coordinate"))
    E = require_finite(checked(energy, b.shape, "energy"), np.arange(len(b)), "energy")
    if not (energy_tolerance >= 0 and slope_tolerance >= 0):
        raise ValueError(f"tolerances: must not be negative, got {energy_tolerance} and {slope_tolerance}")
    slope = np.diff(E) / np.diff(b)

    return StationaryPoints(
        minima=_peaks(-E, energy_tolerance),
        maxima=_peaks(E, energy_tolerance),
        inflections=_peaks(slope, slope_tolerance) + _peaks(-slope, slope_tolerance),
    )


def spurious_points(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    energy: ArrayLike,
    *,
    energy_tolerance: float = 1e-3,
    slope_tolerance: float = 0.1,
) -> StationaryPoints:
    """Count the minima, maxima and inflections that a prediction has beyond those of the reference.

    Args:
        coordinate: (F,) Å, increasing.
        reference_energy: (F,) eV; frames with nan are left out of both curves.
        energy: (F,) predicted, eV.
        energy_tolerance: as `stationary_points`.
        slope_tolerance: as `stationary_points`.

    Returns:
        max(0, predicted − reference) of each count; a missing point is not negative here.

    Raises:
        ValueError: as `stationary_points`, or no labeled frame.

    Source: the chemical smoothness of Subotnik et al. 2008, as used by Liu et al. 2026, sec. 3.
    """
    b, target, predicted = _labeled_curves(coordinate, reference_energy, energy)
    true, found = (
        stationary_points(b, E, energy_tolerance=energy_tolerance, slope_tolerance=slope_tolerance)
        for E in (target, predicted)
    )
    return StationaryPoints(*(max(0, p - r) for p, r in zip(found, true)))


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
    b, target, predicted = _labeled_curves(coordinate, reference_energy, energy)
    if len(b) < 2:
        return WellErrors(math.nan, math.nan, math.nan)
    (x0, depth0, wall0), (x1, depth1, wall1) = _well(b, target), _well(b, predicted)
    return WellErrors(x1 - x0, depth1 - depth0, wall1 - wall0)


def _well(b: Floats, E: Floats) -> tuple[float, float, float]:
    """Return the position of the minimum, the depth and the wall of one curve."""
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


def _labeled_curves(
    coordinate: ArrayLike, reference_energy: ArrayLike, energy: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Return coordinate, reference and predicted energy of the labeled frames, checked."""
    b = checked(coordinate, (None,), "coordinate")
    target = checked(reference_energy, b.shape, "reference energy")
    used = labeled_frames(target)
    predicted = require_finite(checked(energy, b.shape, "predicted energy"), used, "predicted energy")
    return _increasing(b[used]), target[used], predicted
