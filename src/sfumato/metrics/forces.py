"""Mean absolute errors of energies and forces along a scan.

Frames whose reference is nan are left out; a prediction that is not finite in the others is an error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.arrays import Sides, check_minimum, checked, labeled_frames, require_finite
from sfumato.systems import Floats


def force_mae(reference: ArrayLike, predicted: ArrayLike, minimum: int) -> Sides:
    """Return the mean absolute error of the force components.

    Args:
        reference: (F, N, 3) eV/Å; nan where the reference failed.
        predicted: (F, N, 3) eV/Å.
        minimum: frame of the reference minimum; it belongs to both sides.

    Returns:
        eV/Å, the mean over frames, atoms and directions.

    Raises:
        ValueError: a wrong shape, no labeled frame, an unlabeled minimum, or a prediction not finite.

    Source: Liu et al. 2026, sec. 3, as its released package computes it.
    """
    errors, m = _errors(reference, predicted, (None, None, 3), minimum, "forces")
    return Sides.of_frames(np.abs(errors).mean(axis=(1, 2)), m, np.mean)


def energy_mae_raw(reference: ArrayLike, predicted: ArrayLike, minimum: int) -> Sides:
    """Return the mean absolute error of the energies as they are, zeros of energy included.

    Args:
        reference: (F,) eV; nan where the reference failed.
        predicted: (F,) eV.
        minimum: frame of the reference minimum; it belongs to both sides.

    Returns:
        eV. Tens of thousands for a potential with another zero of energy: compatibility only.

    Raises:
        ValueError: as `force_mae`.

    Source: the released package of Liu et al. 2026.
    """
    errors, m = _errors(reference, predicted, (None,), minimum, "energy")
    return Sides.of_frames(np.abs(errors), m, np.mean)


def energy_mae_aligned(reference: ArrayLike, predicted: ArrayLike, minimum: int) -> Sides:
    """Return the mean absolute error of the energies measured from the frame of the reference minimum.

    Args:
        reference: (F,) eV; nan where the reference failed.
        predicted: (F,) eV.
        minimum: frame of the reference minimum; it belongs to both sides.

    Returns:
        eV. The error of the aligned frame is zero by construction, and counts as a frame.

    Raises:
        ValueError: as `force_mae`.
    """
    errors, m = _errors(reference, predicted, (None,), minimum, "energy")
    return Sides.of_frames(np.abs(errors - errors[m]), m, np.mean)


class MeanErrors(NamedTuple):
    """`force_mae`, `energy_mae_aligned` and `energy_mae_raw` of one prediction."""

    force: Sides
    energy_aligned: Sides
    energy_raw: Sides


def mean_errors(
    reference_energy: Floats, reference_forces: Floats, energy: Floats, forces: Floats, minimum: int
) -> MeanErrors:
    """Return all mean errors of a scan whose frames are all labeled.

    Args:
        reference_energy: (F,) eV, finite.
        reference_forces: (F, N, 3) eV/Å, finite.
        energy: (F,) predicted, eV.
        forces: (F, N, 3) predicted, eV/Å.
        minimum: frame of the reference minimum; it belongs to both sides.

    Raises:
        ValueError: a prediction that is not finite.
    """
    every = np.arange(len(reference_energy))
    errors = require_finite(energy, every, "predicted energy") - reference_energy
    of_forces = require_finite(forces, every, "predicted forces") - reference_forces
    return MeanErrors(
        Sides.of_frames(np.abs(of_forces).mean(axis=(1, 2)), minimum, np.mean),
        Sides.of_frames(np.abs(errors - errors[minimum]), minimum, np.mean),
        Sides.of_frames(np.abs(errors), minimum, np.mean),
    )


def _errors(
    reference: ArrayLike, predicted: ArrayLike, shape: tuple[int | None, ...], minimum: int, what: str
) -> tuple[Floats, int]:
    """Return predicted − reference in the labeled frames, and the place of `minimum` among them."""
    target = checked(reference, shape, f"reference {what}")
    found = checked(predicted, target.shape, f"predicted {what}")
    used = labeled_frames(target)
    if check_minimum(minimum, len(target)) not in used:
        raise ValueError(f"minimum: the reference {what} of frame {minimum} is not finite")
    return require_finite(found, used, f"predicted {what}") - target[used], int(
        np.searchsorted(used, minimum)
    )
