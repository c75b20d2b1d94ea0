"""How good a set of reference scans is: what it contains, and statements that it passes or fails.

A potential can be judged no better than its reference. Every statement carries the measured value and its
limit, so that a set that fails one says by how much.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from scipy.interpolate import CubicSpline
from scipy.ndimage import maximum_filter1d

from sfumato.metrics.smoothness import work_energy_residual
from sfumato.systems import Floats, Scan, ScanSet

GRID_LIMIT = 1e-6
"""Å; positions with eight decimals give 1.5e-8."""

UNLABELLED_LIMIT = 0.05
"""Largest share of frames without a label in one scan: a gap is spanned, a torn scan is not one."""

WORK_ENERGY_LIMIT = 0.02
"""eV, for the median over scans of the largest residual; 0.007 on BSCT-SPICE, whose 100 frames leave that
much by the curvature of the repulsive wall alone."""

NET_FORCE_LIMIT = 0.1
"""eV/Å; quadrature grids leave up to 0.05 on BSCT-SPICE, an outer field or a missing atom far more."""

JUMP_FLOOR = 0.010
"""eV; the largest mismatch of a clean BSCT-SPICE scan is 0.0025."""

JUMP_RATIO = 3.0
"""A jump must exceed this times what the finite grid itself leaves nearby."""


@dataclass(frozen=True)
class Statement:
    """One claim about the set.

    Args:
        name: short.
        claim: the sentence that is true if it passed.
        passed: whether it is.
        value: what was measured.
        limit: the largest value that passes.
        unit: of both; empty for counts and shares.
        where: the scan that the value comes from, where it is of one.
    """

    name: str
    claim: str
    passed: bool
    value: float
    limit: float
    unit: str = ""
    where: str = ""


@dataclass(frozen=True)
class Jump:
    """The largest energy step of a scan that its forces do not explain.

    Args:
        scan: its name.
        coordinate: Å, the middle of the interval.
        size: eV, signed.
        intervals: how many intervals of the scan were flagged.
    """

    scan: str
    coordinate: float
    size: float
    intervals: int


@dataclass(frozen=True)
class QualityReport:
    """What a set of scans contains and which statements hold.

    Args:
        name: of the set.
        level: level of theory.
        identity: of the contents.
        scans: how many.
        frames: how many, of all scans.
        counts: scans per bond type.
        atoms: smallest, mean and largest number of atoms per molecule.
        elements: symbols, by atomic number.
        unlabelled: frames without a label, by scan.
        grid_deviation: Å, largest |bond length − coordinate| by scan.
        work_energy: eV, largest residual by scan; NaN where fewer than two frames are labelled.
        net_force: eV/Å, largest net force by scan; NaN where no frame is labelled.
        jumps: scans with an energy jump.
        statements: the claims.
    """

    name: str
    level: str
    identity: str
    scans: int
    frames: int
    counts: dict[str, int]
    atoms: tuple[int, float, int]
    elements: tuple[str, ...]
    unlabelled: dict[str, tuple[int, ...]]
    grid_deviation: dict[str, float]
    work_energy: dict[str, float]
    net_force: dict[str, float]
    jumps: tuple[Jump, ...]
    statements: tuple[Statement, ...]

    @property
    def passed(self) -> bool:
        """Whether every statement holds."""
        return all(statement.passed for statement in self.statements)

    def as_json(self) -> dict[str, Any]:
        """Return the report in JSON types; what could not be measured is null."""
        found: dict[str, Any] = _plain({**asdict(self), "passed": self.passed})
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def energy_jumps(scan: Scan) -> Floats:
    """Return, per interval between labelled frames, the energy step that the forces do not explain.

    Args:
        scan: at least four labelled frames.

    Returns:
        (L − 1,) eV for L labelled frames: E_{i+1} − E_i − ∫ g db, with g = −F·dx/db joined by a cubic
        spline, where that exceeds both `JUMP_FLOOR` and `JUMP_RATIO` times the difference between spline
        and trapezoid within two intervals, the measure of what the grid leaves out; else 0. On the 100
        frames of BSCT-SPICE nothing is flagged, and of jumps put in at random all of 30 meV and 95 % of
        15 meV are found; on its every 2nd, 3rd, 5th or 10th frame nothing is flagged either.

    Raises:
        ValueError: fewer than four labelled frames.
    """
    keep = scan.labelled
    if keep.sum() < 4:
        raise ValueError(f"scan {scan.name}: {int(keep.sum())} labelled frames; at least 4 are needed")
    b, E = scan.coordinate[keep], scan.energy[keep]
    slope = -(scan.forces[keep] * np.gradient(scan.positions[keep], b, axis=0)).sum(axis=(1, 2))
    work = np.diff(CubicSpline(b, slope).antiderivative()(b))
    trapezoid = 0.5 * (slope[1:] + slope[:-1]) * np.diff(b)
    left_out = maximum_filter1d(np.abs(work - trapezoid), 5, mode="nearest")
    jump = np.diff(E) - work
    flagged: Floats = np.where(np.abs(jump) > np.maximum(JUMP_FLOOR, JUMP_RATIO * left_out), jump, 0.0)
    return flagged


def _jump(scan: Scan) -> Jump | None:
    jumps = energy_jumps(scan) if scan.labelled.sum() >= 4 else np.zeros(1)
    if not jumps.any():
        return None
    b, k = scan.coordinate[scan.labelled], int(np.abs(jumps).argmax())
    return Jump(scan.name, float(b[k : k + 2].mean()), float(jumps[k]), int(np.count_nonzero(jumps)))


def _grid_deviation(scan: Scan) -> float:
    i, j = scan.atoms
    lengths = np.linalg.norm(scan.positions[:, j] - scan.positions[:, i], axis=1)
    return float(np.abs(lengths - scan.coordinate).max(initial=0.0))


def _work_energy(scan: Scan) -> float:
    keep = scan.labelled
    if keep.sum() < 2:
        return math.nan
    energy = scan.energy[keep]
    minimum = int(energy.argmin())
    return work_energy_residual(energy, scan.forces[keep], scan.positions[keep], minimum).full


def _net_force(scan: Scan) -> float:
    if not scan.labelled.any():
        return math.nan
    return float(np.linalg.norm(scan.forces[scan.labelled].sum(axis=1), axis=1).max())


def _misnamed(scan: Scan) -> bool:
    return sorted(scan.stratum.split("-")) != sorted(chemical_symbols[z] for z in scan.numbers[scan.atoms])


def _at_most(name: str, claim: str, by_scan: Mapping[str, float], limit: float, unit: str = "") -> Statement:
    """State that the largest measured value is within the limit; one that cannot be measured fails."""
    measured = {scan: value for scan, value in by_scan.items() if not math.isnan(value)}
    where = max(measured, key=measured.__getitem__, default="")
    value = measured.get(where, math.nan)
    return Statement(name, claim, value <= limit, value, limit, unit, where)


def _statements(
    scan_set: ScanSet, report: Mapping[str, Any], expected: Mapping[str, int] | None
) -> tuple[Statement, ...]:
    shares = {scan.name: float(1.0 - scan.labelled.mean()) if len(scan) else 1.0 for scan in scan_set}
    misnamed = [scan.name for scan in scan_set if _misnamed(scan)]
    residuals = [value for value in report["work_energy"].values() if not math.isnan(value)]
    median = float(np.median(residuals)) if residuals else math.nan
    jumps = {jump.scan: abs(jump.size) for jump in report["jumps"]}
    statements = [
        _at_most("labels", "no scan lacks more than 5 % of its labels", shares, UNLABELLED_LIMIT),
        Statement(
            "bond types",
            "every scan is of the bond its name says",
            not misnamed,
            len(misnamed),
            0,
            where=next(iter(misnamed), ""),
        ),
        _at_most("grid", "bond lengths are those of the grid", report["grid_deviation"], GRID_LIMIT, "Å"),
        Statement(
            "work–energy",
            "energies are the work of the forces (median of the largest residual per scan)",
            median <= WORK_ENERGY_LIMIT,
            median,
            WORK_ENERGY_LIMIT,
            "eV",
        ),
        _at_most(
            "net force", "forces add up to nearly nothing", report["net_force"], NET_FORCE_LIMIT, "eV/Å"
        ),
        Statement(
            "jumps",
            "no scan has an energy jump (another solution of the self-consistent field)",
            not jumps,
            len(jumps),
            0,
            where=max(jumps, key=jumps.__getitem__, default=""),
        ),
    ]
    if expected is not None:
        found = report["counts"]
        off = {bond: abs(found.get(bond, 0) - expected.get(bond, 0)) for bond in {*found, *expected}}
        where = max(off, key=off.__getitem__, default="")
        total = sum(off.values())
        claim = "it has as many scans of each bond type as published"
        statements.insert(0, Statement("counts", claim, total == 0, total, 0, where=where if total else ""))
    return tuple(statements)


def check_scans(scan_set: ScanSet, expected: Mapping[str, int] | None = None) -> QualityReport:
    """Measure the quality of a set of reference scans.

    Args:
        scan_set: the scans.
        expected: number of scans of each bond type, where it is known.

    Returns:
        Contents, measured values by scan, and statements with their limits.

    Raises:
        ValueError: a set without scans.

    Source:
        Liu et al. 2026, Appendix A, step 6 (scans with discontinuous energies are to be excluded).
    """
    if not len(scan_set):
        raise ValueError(f"scan set {scan_set.name!r} has no scans to check")
    sizes = [len(scan.numbers) for scan in scan_set]
    kinds = np.unique(np.concatenate([scan.numbers for scan in scan_set]))
    found: dict[str, Any] = {
        "counts": dict(sorted(Counter(scan.stratum for scan in scan_set).items())),
        "grid_deviation": {scan.name: _grid_deviation(scan) for scan in scan_set},
        "work_energy": {scan.name: _work_energy(scan) for scan in scan_set},
        "net_force": {scan.name: _net_force(scan) for scan in scan_set},
        "jumps": tuple(jump for scan in scan_set if (jump := _jump(scan)) is not None),
    }
    return QualityReport(
        name=scan_set.name,
        level=scan_set.level,
        identity=scan_set.identity,
        scans=len(scan_set),
        frames=sum(len(scan) for scan in scan_set),
        atoms=(min(sizes), float(np.mean(sizes)), max(sizes)),
        elements=tuple(chemical_symbols[z] for z in kinds),
        unlabelled={
            scan.name: tuple(np.flatnonzero(~scan.labelled).tolist())
            for scan in scan_set
            if not scan.labelled.all()
        },
        statements=_statements(scan_set, found, expected),
        **found,
    )
