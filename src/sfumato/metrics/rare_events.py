"""Force errors on the atoms that are migrating: magnitude, direction, and the area over their distributions.

For an atom with predicted force F and reference force G

    δF = ‖F‖ − ‖G‖   (eV/Å)        δθ = arccos(F·G / ‖F‖‖G‖)   (degrees)

and for N atoms with errors X ≥ 0 below a limit L, of which C(x) is the share with X ≤ x,

    err = 1 − (1/L) ∫₀ᴸ C(x) dx = mean(min(X, L)) / L,

which is 0 for no error and 1 where every error is beyond the limit. The released tables take the integral by
the trapezoid rule on 50 equidistant points, which is not quite the mean; both are here.

Source: Liu, He & Mo 2023, npj Comput. Mater. 9, 174 (δF, δθ); Liu & Mo 2024, npj Comput. Mater. 10, 159 (the
released tables, whose numbers for the Γ-point DFT these functions reproduce to every digit).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.errors import Table, pooled
from sfumato.metrics.stats import Estimate
from sfumato.systems import Bools, Floats, Ints

MAGNITUDE_LIMIT, ANGLE_LIMIT = 1.0, 60.0
"""eV/Å and degrees at which the distributions end."""

POINTS = 50
"""Of the trapezoid rule, as released."""

LARGE_MAGNITUDE, LARGE_ANGLES = 0.5, (15.0, 30.0)
"""eV/Å and degrees beyond which an atom counts as wrong."""

EDGES = (0.0, 1e-6, 2.6, 3.2, 4.2, 5.0, np.inf)
"""Å between the bins of the distance to the nearest migrating atom; the first holds the migrating atoms."""

VACANCY_EDGES = (0.0, 1.2, 1.6, 2.0, 2.6, 3.2, 4.2, 5.0, np.inf)
"""Å between the bins of the distance to the nearest vacancy."""


def magnitude_errors(predicted: ArrayLike, reference: ArrayLike) -> Floats:
    """Return the signed error of the size of each force.

    Args:
        predicted: (N, 3) eV/Å; NaN where there is no prediction.
        reference: (N, 3) eV/Å.

    Returns:
        (N,) eV/Å, δF = ‖F‖ − ‖G‖; NaN where either is.

    Raises:
        ValueError: shapes that differ.
    """
    f, g = _forces(predicted, reference)
    return np.asarray(np.linalg.norm(f, axis=1) - np.linalg.norm(g, axis=1))


def angle_errors(predicted: ArrayLike, reference: ArrayLike) -> Floats:
    """Return the angle between the two forces on each atom.

    Args:
        predicted: (N, 3) eV/Å; NaN where there is no prediction.
        reference: (N, 3) eV/Å.

    Returns:
        (N,) degrees, 0 to 180. Where only the predicted force is zero it is 90°, as for a direction drawn at
        random; where the reference is zero there is no direction to be wrong about: NaN.

    Raises:
        ValueError: shapes that differ.
    """
    f, g = _forces(predicted, reference)
    # Exact for small angles, where the arc cosine loses half of its digits.
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(f, g), axis=1), (f * g).sum(axis=1)))
    angle = np.where((f == 0).all(axis=1), 90.0, angle)
    return np.where((g == 0).all(axis=1), np.nan, angle)


def area_over_cdf(errors: ArrayLike, limit: float, points: int | None = POINTS) -> float:
    """Return the area over the cumulative distribution of errors, as a share of the limit.

    Args:
        errors: (N,) not negative; NaN is left out.
        limit: where the distribution ends.
        points: of the trapezoid rule; None for the exact integral.

    Returns:
        0 (no error) to 1; NaN where no error is known.

    Raises:
        ValueError: a limit that is not positive, fewer than two points, or a negative error.
    """
    x = np.asarray(errors, dtype=float)
    known = x[~np.isnan(x)]
    return float(areas(known, limit, points).mean()) if len(known) else float("nan")


def areas(errors: Floats, limit: float, points: int | None = POINTS) -> Floats:
    """Return what each error adds to the area over the distribution; their mean is the area.

    Args:
        errors: (N,) not negative; NaN stays NaN.
        limit: where the distribution ends.
        points: of the trapezoid rule; None for the exact integral.

    Returns:
        (N,) between 0 and 1: min(X, L)/L, or the area over the step at X by the trapezoid rule.

    Raises:
        ValueError: as `area_over_cdf`.
    """
    if not limit > 0:
        raise ValueError(f"limit: must be positive, got {limit}")
    if points is not None and points < 2:
        raise ValueError(f"points: at least 2, got {points}")
    if (errors < 0).any():
        raise ValueError("errors: must not be negative; take their absolute values first")
    if points is None:
        return np.asarray(np.minimum(errors, limit) / limit)
    grid = np.linspace(0.0, limit, points)
    # The step of one error is 0 before the first grid point that reaches it and 1 from there on.
    first = np.searchsorted(grid, errors, "left")
    over = np.clip((first - 0.5) / (points - 1), 0.0, 1.0)
    return np.where(np.isnan(errors), np.nan, over)


def score_table(
    predicted: ArrayLike, reference: ArrayLike, index: Ints, structures: int, points: int | None = POINTS
) -> Table:
    """Return what every structure adds to the scores of some atoms.

    Args:
        predicted: (N, 3) eV/Å; NaN where there is no prediction.
        reference: (N, 3) eV/Å.
        index: (N,) the structure of each atom.
        structures: S.
        points: of the trapezoid rule; None for the exact integral.

    Returns:
        For `sfumato.metrics.errors.pooled`: "err_M" and "err_A" (areas), "rms_dF_rmse" (eV/Å), "mean_dF" of
        |δF| (eV/Å), "mean_angle" (degrees), the shares "over_0.5", "over_15deg", "over_30deg", "force_rmse"
        and "force_mae" of components (eV/Å).
    """
    f, g = _forces(predicted, reference)
    size, angle = np.abs(magnitude_errors(f, g)), angle_errors(f, g)
    off = f - g
    columns: dict[str, tuple[Floats, float]] = {
        "err_M": (areas(size, MAGNITUDE_LIMIT, points), 1.0),
        "err_A": (areas(angle, ANGLE_LIMIT, points), 1.0),
        "rms_dF_rmse": (size**2, 1.0),
        "mean_dF": (size, 1.0),
        "mean_angle": (angle, 1.0),
        f"over_{LARGE_MAGNITUDE:g}": (_beyond(size, LARGE_MAGNITUDE), 1.0),
        **{f"over_{limit:g}deg": (_beyond(angle, limit), 1.0) for limit in LARGE_ANGLES},
        "force_rmse": ((off**2).sum(axis=1), 3.0),
        "force_mae": (np.abs(off).sum(axis=1), 3.0),
    }
    table: Table = {}
    for name, (values, weight) in columns.items():
        known = np.isfinite(values)
        above = np.bincount(index, np.where(known, values, 0.0), structures)
        below = weight * np.bincount(index, known, structures)
        table[name] = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    return table


def scores(table: Table, snapshots: Ints, seed: int) -> dict[str, Estimate]:
    """Return every score of a table with its interval, snapshots resampled.

    Args:
        table: of `score_table`, or with more columns.
        snapshots: (S,) what is resampled as one: the snapshot, or the trajectory, of each structure.
        seed: of the resamples.

    Returns:
        By name, with "rms_dF" for the root of the mean of δF². Structures without an atom that counts are not
        part of N: a snapshot in which nothing migrates says nothing about migration.
    """
    patterns: dict[bytes, list[str]] = {}
    for name, (_, below) in table.items():
        patterns.setdefault((below > 0).tobytes(), []).append(name)
    found: dict[str, Estimate] = {}
    for pattern, names in patterns.items():
        rows = np.flatnonzero(np.frombuffer(pattern, dtype=bool))
        some = {name: (table[name][0][rows], table[name][1][rows]) for name in names}
        found |= pooled(some, snapshots[rows], seed)
    ordered = {name: found[name] for name in table}
    return {name.removesuffix("_rmse") if name.startswith("rms_") else name: e for name, e in ordered.items()}


def by_distance(
    predicted: ArrayLike, reference: ArrayLike, distance: ArrayLike, edges: tuple[float, ...]
) -> list[dict[str, float]]:
    """Return the errors of atoms by their distance from what happens.

    Args:
        predicted: (N, 3) eV/Å; NaN where there is no prediction.
        reference: (N, 3) eV/Å.
        distance: (N,) Å; NaN where it is unknown.
        edges: Å between the bins; a bin holds its lower edge.

    Returns:
        For each bin that holds an atom: "from", "to" (Å), "atoms", "mean_dF" of |δF| (eV/Å), "mean_angle"
        (degrees), "force_rmse" of components (eV/Å).
    """
    f, g = _forces(predicted, reference)
    r = np.asarray(distance, dtype=float)
    known = np.isfinite(f).all(axis=1) & np.isfinite(r)
    size, angle = np.abs(magnitude_errors(f, g)), angle_errors(f, g)
    rows = []
    for low, high in pairwise(edges):
        some = known & (r >= low) & (r < high)
        if some.any():
            angles = angle[some][np.isfinite(angle[some])]
            rows.append(
                {
                    "from": low,
                    "to": high,
                    "atoms": int(some.sum()),
                    "mean_dF": float(size[some].mean()),
                    "mean_angle": float(angles.mean()) if len(angles) else float("nan"),
                    "force_rmse": float(np.sqrt(((f - g)[some] ** 2).mean())),
                }
            )
    return rows


def detection(flags: Bools, truth: Bools) -> Mapping[str, float]:
    """Return how well detected atoms agree with the true ones.

    Args:
        flags: (N,) atoms detected.
        truth: (N,) atoms to detect.

    Returns:
        "precision", "recall" and "f1", their harmonic mean; NaN where they are not defined.

    Raises:
        ValueError: lengths that differ.
    """
    if flags.shape != truth.shape:
        raise ValueError(f"{len(flags)} flags for {len(truth)} atoms")
    hits, detected, there = int((flags & truth).sum()), int(flags.sum()), int(truth.sum())
    return {
        "precision": hits / detected if detected else float("nan"),
        "recall": hits / there if there else float("nan"),
        "f1": 2 * hits / (detected + there) if detected + there else float("nan"),
    }


def _beyond(values: Floats, limit: float) -> Floats:
    return np.where(np.isnan(values), np.nan, values > limit)


def _forces(predicted: ArrayLike, reference: ArrayLike) -> tuple[Floats, Floats]:
    f, g = np.asarray(predicted, dtype=float), np.asarray(reference, dtype=float)
    if f.shape != g.shape or f.ndim != 2 or f.shape[1] != 3:
        raise ValueError(f"forces: expected two arrays of shape (N, 3), got {f.shape} and {g.shape}")
    return f, g
