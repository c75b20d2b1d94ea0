"""How smooth and how physical a predicted energy curve is along a scan.

Every function takes plain arrays, in eV, Å and eV/Å. A quantity that does not exist (a side of the scan
without frames) is nan, which reports print as "n/a"; a prediction that is not finite is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.arrays import (
    Sides,
    check_minimum,
    checked,
    increasing,
    labeled_frames,
    require_finite,
)
from sfumato.systems import Floats, Ints
from sfumato.words import nearest

Coordinate = Literal["length", "alpha"]
Minimum = Literal["reference", "own"]

OUTSIDE = 0.1
"""Å from the minimum; beyond, the FSD no longer reads where the well sits."""


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


@dataclass(frozen=True, eq=False)
class FSDReference:
    """A scan's reference as the FSD needs it, the same for every prediction.

    Args:
        settings: of the FSD.
        used: (f,) the frames that count.
        length: (f,) Å, the coordinate there.
        log_square: (f,) ln max(R, ε²), R the squared force change in (eV/Å)².
        minimum: the lowest of these frames.
        zero: (N, 3) eV/Å, the force there.
        shape: (F, N, 3) of the forces of all frames.
    """

    settings: FSDSettings
    used: Ints
    length: Floats
    log_square: Floats
    minimum: int
    zero: Floats
    shape: tuple[int, ...]


class FSDNumbers(NamedTuple):
    """What is read off one log-ratio: `fsd`, `fsd_outside` and `fsd_position`."""

    whole: Sides
    outside: Sides
    position: float


def fsd_reference(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    reference_forces: ArrayLike,
    settings: FSDSettings = FSDSettings(),
) -> FSDReference:
    """Prepare the reference of a scan for the FSDs of many predictions.

    Args:
        coordinate: (F,) bond length in Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        reference_forces: (F, N, 3) eV/Å; nan likewise.
        settings: floor, grid, coordinate and minimum.

    Raises:
        ValueError: no labeled frame, a wrong shape, or a coordinate that does not increase.
    """
    length = checked(coordinate, (None,), "coordinate")
    target = checked(reference_energy, (len(length),), "reference energy")
    truth = checked(reference_forces, (len(length), None, 3), "reference forces")
    used = labeled_frames(target, truth)[:: settings.stride]
    shape, truth = truth.shape, truth[used]
    m = int(np.argmin(target[used]))
    log_square = _log_square(truth - truth[m], settings)
    return FSDReference(settings, used, increasing(length[used]), log_square, m, truth[m], shape)


def fsd_numbers(reference: FSDReference, forces: ArrayLike, energy: ArrayLike | None = None) -> FSDNumbers:
    """Return `fsd`, `fsd_outside` and `fsd_position` of a prediction at the cost of one.

    Args:
        reference: of `fsd_reference`.
        forces: (F, N, 3) predicted, eV/Å.
        energy: (F,) predicted, eV; needed for `minimum="own"` only.

    Raises:
        ValueError: a prediction that is not finite, or a wrong shape.
    """
    settings, length, m = reference.settings, reference.length, reference.minimum
    slopes = _slopes(length, _log_ratio(reference, forces, energy), settings)
    return FSDNumbers(
        Sides.largest(slopes, m),
        _outside(length, slopes, m, OUTSIDE),
        _position(length, slopes, m),
    )


def _log_square(change: Floats, settings: FSDSettings) -> Floats:
    return np.asarray(np.log(np.maximum((change**2).sum(axis=(1, 2)), settings.floor**2)))


def _log_ratio(reference: FSDReference, forces: ArrayLike, energy: ArrayLike | None) -> Floats:
    """Return L of the frames used, (f,)."""
    used, zero = reference.used, reference.zero
    predicted = require_finite(checked(forces, reference.shape, "predicted forces"), used, "predicted forces")
    if reference.settings.minimum == "own":
        if energy is None:
            raise ValueError('energy: minimum="own" needs the predicted energies to find that minimum')
        every = checked(energy, reference.shape[:1], "predicted energy")
        zero = predicted[int(np.argmin(require_finite(every, used, "predicted energy")))]
    return _log_square(predicted - zero, reference.settings) - reference.log_square


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
    reference = fsd_reference(coordinate, reference_energy, reference_forces, settings)
    return reference.length, _log_ratio(reference, forces, energy)


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
    reference = fsd_reference(coordinate, reference_energy, reference_forces, settings)
    return fsd_numbers(reference, forces, energy).whole


def fsd_outside(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    reference_forces: ArrayLike,
    forces: ArrayLike,
    *,
    settings: FSDSettings = FSDSettings(),
    energy: ArrayLike | None = None,
    margin: float = OUTSIDE,
) -> Sides:
    """Return the Force Smoothness Deviation of one scan without the surroundings of its minimum.

    Within about 0.1 Å of the minimum the logarithm of the FSD magnifies forces that are smooth but off by a
    shift of the well; beyond, what is left are features of the curve.

    Args:
        coordinate: (F,) bond length in Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        reference_forces: (F, N, 3) eV/Å; nan likewise.
        forces: (F, N, 3) predicted, eV/Å.
        settings: as `fsd`.
        energy: as `fsd`.
        margin: Å; intervals with an end closer than this to the frame of the reference minimum do not count.

    Returns:
        1/Å, as `fsd`; nan on a side without an interval beyond the margin.

    Raises:
        ValueError: as `fsd_profile`.
    """
    reference = fsd_reference(coordinate, reference_energy, reference_forces, settings)
    length = reference.length
    slopes = _slopes(length, _log_ratio(reference, forces, energy), settings)
    return _outside(length, slopes, reference.minimum, margin)


def _outside(length: Floats, slopes: Floats, minimum: int, margin: float) -> Sides:
    far = np.abs(length - length[minimum]) >= margin - 1e-9
    sides = Sides.largest(np.where(far[1:] & far[:-1], slopes, -np.inf), minimum)
    return Sides(*(value if math.isfinite(value) else math.nan for value in sides))


def fsd_position(
    coordinate: ArrayLike,
    reference_energy: ArrayLike,
    reference_forces: ArrayLike,
    forces: ArrayLike,
    *,
    settings: FSDSettings = FSDSettings(),
    energy: ArrayLike | None = None,
) -> float:
    """Return where on the scan its Force Smoothness Deviation is read.

    Args:
        coordinate: (F,) bond length in Å, increasing.
        reference_energy: (F,) eV; nan where the reference failed.
        reference_forces: (F, N, 3) eV/Å; nan likewise.
        forces: (F, N, 3) predicted, eV/Å.
        settings: as `fsd`.
        energy: as `fsd`.

    Returns:
        Å, the middle of the interval with the largest slope minus the bond length of the reference minimum;
        nan with fewer than two frames, and where all slopes are zero.

    Raises:
        ValueError: as `fsd_profile`.
    """
    reference = fsd_reference(coordinate, reference_energy, reference_forces, settings)
    return fsd_numbers(reference, forces, energy).position


def _position(length: Floats, slopes: Floats, minimum: int) -> float:
    if not slopes.any():
        return math.nan
    largest = int(slopes.argmax())
    return float((length[largest] + length[largest + 1]) / 2 - length[minimum])


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
    F, x = checked(forces, (len(E), None, 3), "forces"), checked(positions, (len(E), None, 3), "positions")
    return Sides.largest(unexplained_energy(E, F, x), check_minimum(minimum, len(E)))


def unexplained_energy(energy: Floats, forces: Floats, positions: Floats) -> Floats:
    """Return (F − 1,) eV, the energy of each step that the trapezoid of the forces leaves.

    Raises:
        ValueError: a wrong shape, or a value that is not finite.
    """
    every = np.arange(len(energy))
    E = require_finite(energy, every, "energy")
    F = require_finite(forces, every, "forces")
    x = require_finite(checked(positions, F.shape, "positions"), every, "positions")
    return residuals(E, F, np.diff(x, axis=0))


def residuals(energy: Floats, forces: Floats, steps: Floats) -> Floats:
    """Return `unexplained_energy` of numbers that are finite; steps: (F − 1, N, 3) Å from frame to frame."""
    work = (0.5 * (forces[1:] + forces[:-1]) * steps).sum(axis=(1, 2))
    return np.asarray(np.abs(energy[1:] - energy[:-1] + work))


class WorkEnergyOrder(NamedTuple):
    """The work–energy residual of one path at two steps, and how fast it falls.

    Args:
        coarse: eV, as `work_energy_residual`, on every other frame.
        fine: eV, on all frames.
        order: without a unit, the lowest of the intervals on each side; nan where nothing can be measured.
        position: the number of the coarse interval, from 0, with the lowest order; −1 where there is none.
    """

    coarse: Sides
    fine: Sides
    order: Sides
    position: int


def work_energy_order(
    energy: ArrayLike, forces: ArrayLike, positions: ArrayLike, minimum: int, *, least: float = 1e-4
) -> WorkEnergyOrder:
    """Return how fast the work–energy residual falls when the step is halved.

    Args:
        energy: (2K + 1,) eV along a path with one more frame in the middle of every step.
        forces: (2K + 1, N, 3) eV/Å.
        positions: (2K + 1, N, 3) Å.
        minimum: the coarse frame, 0…K, at which the sides are split.
        least: eV; an interval counts whose residual on the halved step reaches it.

    Returns:
        For each interval log₂ of the coarse residual, the largest of it and its two neighbors, over the
        larger residual of its two halves: 3 where energy and force are smooth (2.5 and more where the
        grid is coarse), about 1 where the force is not a gradient, 0 at a jump of the energy. At a jump of
        the force it depends on where in the interval that is: below 2 for three in four places. The lowest
        is quoted, so that one bad interval is not hidden by a steep wall.

    Raises:
        ValueError: an even number of frames, a wrong shape, or a value that is not finite.
    """
    E = checked(energy, (None,), "energy")
    if len(E) % 2 == 0:
        raise ValueError(f"energy: {len(E)} frames are not those of a path with every step halved: 2K + 1")
    F, x = checked(forces, (len(E), None, 3), "forces"), checked(positions, (len(E), None, 3), "positions")
    fine = unexplained_energy(E, F, x)
    return order_of(unexplained_energy(E[::2], F[::2], x[::2]), fine, minimum, least)


def order_of(coarse: Floats, fine: Floats, minimum: int, least: float = 1e-4) -> WorkEnergyOrder:
    """Return what `work_energy_order` returns, from the residuals of all steps.

    Args:
        coarse: (K,) eV.
        fine: (2K,) eV, on the halved steps.
        minimum: the coarse frame, 0…K, at which the sides are split.
        least: eV.
    """
    minimum = check_minimum(minimum, len(coarse) + 1)
    halves = fine.reshape(-1, 2).max(axis=1)
    # Where the third derivative changes its sign one interval leaves nothing, and its neighbors say how much.
    around = coarse.copy()
    around[:-1] = np.maximum(around[:-1], coarse[1:])
    around[1:] = np.maximum(around[1:], coarse[:-1])
    counted = halves >= least
    order = np.full(len(halves), np.inf)
    order[counted] = np.log2(np.maximum(around[counted], np.finfo(float).tiny) / halves[counted])
    lowest = Sides.largest(-order, minimum)
    return WorkEnergyOrder(
        Sides.largest(coarse, minimum),
        Sides.largest(fine, 2 * minimum),
        Sides(*(-value if math.isfinite(value) else math.nan for value in lowest)),
        int(order.argmin()) if counted.any() else -1,
    )
