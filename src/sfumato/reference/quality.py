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
from ase.data import atomic_masses, chemical_symbols
from scipy.interpolate import CubicSpline
from scipy.ndimage import maximum_filter1d

from sfumato.metrics.smoothness import work_energy_residual
from sfumato.reference.scans import measured
from sfumato.systems import Floats, Scan, ScanSet
from sfumato.words import plain

GRID_LIMIT = 1e-6
"""Å; positions with eight decimals give 1.5e-8."""

UNLABELED_LIMIT = 0.05
"""Largest share of frames without a label in one scan: a gap is spanned, a torn scan is not one."""

UNEXPLAINED_LIMIT = 0.010
"""eV, for the median over scans of the largest energy step that the forces do not explain; 0.0002 on
BSCT-SPICE, 0.0007 and 0.0036 on its every 2nd and 3rd frame."""

NET_FORCE_LIMIT = 0.1
"""eV/Å; quadrature grids leave up to 0.05 on BSCT-SPICE, an outer field or a missing atom far more."""

NET_TORQUE_LIMIT = 0.5
"""eV (per rad), about the center of mass; up to 0.27 on BSCT-SPICE, half of its scans below 0.02."""

SPIN_LIMIT = 0.1
"""ħ²; what ⟨S²⟩ may differ from S(S + 1): eight small radicals and O2 have at most 0.015 (ωB97X/def2-SVP), NO
pulled to 2 Å has 1.6. A restricted singlet has exactly 0."""

HYSTERESIS_LIMIT = 1e-3
"""eV; one state converged to 1e-10 hartree from either side agrees a thousand times better, so that more is
another state."""

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
        reason: in words.
    """

    scan: str
    coordinate: float
    size: float
    intervals: int
    reason: str


@dataclass(frozen=True)
class QualityReport:
    """What a set of scans contains and which statements hold.

    Args:
        name: of the set.
        level: level of theory.
        identity: of the contents.
        scans: how many.
        frames: how many, of all scans.
        counts: scans per type.
        atoms: smallest, mean and largest number of atoms per molecule.
        elements: symbols, by atomic number.
        unlabeled: frames without a label, by scan.
        grid_deviation: Å, largest |coordinate as the positions have it − coordinate as stated| by scan.
        work_energy: eV, largest residual by scan, most of it left by the grid; NaN where fewer than two
            frames are labeled.
        unexplained: eV, largest energy step by scan that a cubic spline through the forces does not explain;
            NaN where fewer than four frames are labeled.
        net_force: eV/Å, largest net force by scan; NaN where no frame is labeled.
        net_torque: eV (per rad), largest net torque about the center of mass by scan of a molecule; NaN
            likewise.
        spin: ħ², largest |⟨S²⟩ − S(S + 1)| by scan, where the provenance has ⟨S²⟩.
        hysteresis: eV, largest |E forward − E backward| by scan, where the provenance has it.
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
    unlabeled: dict[str, tuple[int, ...]]
    grid_deviation: dict[str, float]
    work_energy: dict[str, float]
    unexplained: dict[str, float]
    net_force: dict[str, float]
    net_torque: dict[str, float]
    spin: dict[str, float]
    hysteresis: dict[str, float]
    jumps: tuple[Jump, ...]
    statements: tuple[Statement, ...]

    @property
    def passed(self) -> bool:
        """Whether every statement holds."""
        return all(statement.passed for statement in self.statements)

    def as_json(self) -> dict[str, Any]:
        """Return the report in JSON types; what could not be measured is null."""
        found: dict[str, Any] = plain({**asdict(self), "passed": self.passed})
        return found


def _unexplained(scan: Scan) -> tuple[Floats, Floats]:
    """Return per interval the energy step beyond the spline's work, and spline − trapezoid nearby, in eV.

    Raises:
        ValueError: fewer than four labeled frames.
    """
    keep = scan.labeled
    if keep.sum() < 4:
        raise ValueError(f"scan {scan.name}: {int(keep.sum())} labeled frames; at least 4 are needed")
    b, E = scan.coordinate[keep], scan.energy[keep]
    # Of second order at the ends too: on an arc a plain difference would mix in the force along the radius.
    step = np.gradient(scan.positions[keep], b, axis=0, edge_order=2)
    slope = -(scan.forces[keep] * step).sum(axis=(1, 2))
    work = np.diff(CubicSpline(b, slope).antiderivative()(b))
    trapezoid = 0.5 * (slope[1:] + slope[:-1]) * np.diff(b)
    return np.diff(E) - work, maximum_filter1d(np.abs(work - trapezoid), 5, mode="nearest")


def energy_jumps(scan: Scan) -> Floats:
    """Return, per interval between labeled frames, the energy step that the forces do not explain.

    Args:
        scan: at least four labeled frames.

    Returns:
        (L − 1,) eV for L labeled frames: E_{i+1} − E_i − ∫ g db, b the coordinate, with g = −F·dx/db joined
        by a cubic spline, where that exceeds both `JUMP_FLOOR` and `JUMP_RATIO` times the difference between
        spline and trapezoid within two intervals, the measure of what the grid leaves out; else 0. On the 100
        frames of BSCT-SPICE nothing is flagged, and of jumps put in at random all of 30 meV and 95 % of
        15 meV are found; on its every 2nd, 3rd, 5th or 10th frame nothing is flagged either.

    Raises:
        ValueError: fewer than four labeled frames.
    """
    jump, left_out = _unexplained(scan)
    flagged: Floats = np.where(np.abs(jump) > np.maximum(JUMP_FLOOR, JUMP_RATIO * left_out), jump, 0.0)
    return flagged


def _jump(scan: Scan) -> Jump | None:
    jumps = energy_jumps(scan) if scan.labeled.sum() >= 4 else np.zeros(1)
    if not jumps.any():
        return None
    b, k = scan.coordinate[scan.labeled], int(np.abs(jumps).argmax())
    size, intervals = float(jumps[k]), int(np.count_nonzero(jumps))
    more = f" (the largest of {intervals} such steps)" if intervals > 1 else ""
    reason = (
        f"energy jumps by {size:+.3f} eV between {b[k]:.3f} and {b[k + 1]:.3f} Å, which the forces do not "
        f"explain: another SCF solution{more}"
    )
    return Jump(scan.name, float(b[k : k + 2].mean()), size, intervals, reason)


def discontinuity(scan: Scan) -> str | None:
    """Say why a labeled scan must be dropped for a discontinuous energy.

    Args:
        scan: any scan; with fewer than four labeled frames nothing can be said.

    Returns:
        The reason, or None if the energy is as continuous as the grid can tell.

    Source: Liu et al. 2026, Appendix A, step 6.
    """
    jump = _jump(scan)
    return None if jump is None else jump.reason


def _grid_deviation(scan: Scan) -> float:
    return float(np.abs(measured(scan) - scan.coordinate).max(initial=0.0))


def _work_energy(scan: Scan) -> float:
    keep = scan.labeled
    if keep.sum() < 2:
        return math.nan
    energy = scan.energy[keep]
    minimum = int(energy.argmin())
    return work_energy_residual(energy, scan.forces[keep], scan.positions[keep], minimum).full


def _net_force(scan: Scan) -> float:
    if not scan.labeled.any():
        return math.nan
    return float(np.linalg.norm(scan.forces[scan.labeled].sum(axis=1), axis=1).max())


def _net_torque(scan: Scan) -> float:
    if not scan.labeled.any():
        return math.nan
    x, mass = scan.positions[scan.labeled], atomic_masses[scan.numbers][:, None]
    arms = x - (mass * x).sum(axis=1, keepdims=True) / mass.sum()
    torque = np.cross(arms, scan.forces[scan.labeled]).sum(axis=1)
    return float(np.linalg.norm(torque, axis=1).max())


def _noted(scan_set: ScanSet, key: str) -> dict[str, Floats]:
    """Return what the provenance notes by scan: one number, or one per frame with null where none is."""
    noted = scan_set.provenance.get(key, {})
    try:
        return {
            scan.name: np.atleast_1d(np.array(noted[scan.name], dtype=float))
            for scan in scan_set
            if scan.name in noted
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"scan set {scan_set.name!r}: {key} of the provenance: {error}") from None


def _largest(values: Floats) -> float:
    return float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else math.nan


def _spin(scan_set: ScanSet) -> dict[str, float]:
    noted = _noted(scan_set, "spin_squared")
    spin = {scan.name: (scan.multiplicity - 1) / 2 for scan in scan_set}
    return {name: _largest(values - spin[name] * (spin[name] + 1)) for name, values in noted.items()}


def _misnamed(scan: Scan) -> bool:
    symbols, said = [chemical_symbols[z] for z in scan.numbers[scan.atoms]], scan.stratum.split("-")
    return said not in (symbols, symbols[::-1])


def _at_most(name: str, claim: str, by_scan: Mapping[str, float], limit: float, unit: str = "") -> Statement:
    """State that the largest measured value is within the limit; one that cannot be measured fails."""
    measured = {scan: value for scan, value in by_scan.items() if not math.isnan(value)}
    where = max(measured, key=measured.__getitem__, default="")
    value = measured.get(where, math.nan)
    return Statement(name, claim, value <= limit, value, limit, unit, where)


def _contents(
    scan_set: ScanSet, found: Mapping[str, Any], expected: Mapping[str, int] | None
) -> list[Statement]:
    """State that the set contains what it should."""
    shares = {scan.name: float(1.0 - scan.labeled.mean()) if len(scan) else 1.0 for scan in scan_set}
    misnamed = [scan.name for scan in scan_set if _misnamed(scan)]
    statements = [
        _at_most("labels", "no scan lacks more than 5 % of its labels", shares, UNLABELED_LIMIT),
        Statement(
            "types",
            "every scan is of the elements its name says",
            not misnamed,
            len(misnamed),
            0,
            where=next(iter(misnamed), ""),
        ),
        _at_most("grid", "positions are those of the grid", found["grid_deviation"], GRID_LIMIT, "Å"),
    ]
    if expected is not None:
        counts = found["counts"]
        off = {kind: abs(counts.get(kind, 0) - expected.get(kind, 0)) for kind in {*counts, *expected}}
        where = max(off, key=off.__getitem__, default="")
        total = sum(off.values())
        claim = "it has as many scans of each type as published"
        statements.insert(0, Statement("counts", claim, total == 0, total, 0, where=where if total else ""))
    return statements


def _labels(found: Mapping[str, Any]) -> list[Statement]:
    """State that the labels are those of one smooth energy and its forces; only what is known counts."""
    residuals = [value for value in found["unexplained"].values() if not math.isnan(value)]
    median = float(np.median(residuals)) if residuals else math.nan
    jumps = {jump.scan: abs(jump.size) for jump in found["jumps"]}
    claim = "energies are the work of the forces (median over scans of the largest step they leave)"
    statements = [
        Statement("work–energy", claim, median <= UNEXPLAINED_LIMIT, median, UNEXPLAINED_LIMIT, "eV"),
        _at_most("net force", "forces add up to nearly nothing", found["net_force"], NET_FORCE_LIMIT, "eV/Å"),
        Statement(
            "jumps",
            "no scan has an energy jump (another solution of the self-consistent field)",
            not jumps,
            len(jumps),
            0,
            where=max(jumps, key=jumps.__getitem__, default=""),
        ),
    ]
    for key, claim, limit, unit in (
        ("net_torque", "forces do not turn the molecule", NET_TORQUE_LIMIT, "eV"),
        ("spin", "⟨S²⟩ is that of the spin asked for", SPIN_LIMIT, "ħ²"),
        ("hysteresis", "energies are the same forward and backward", HYSTERESIS_LIMIT, "eV"),
    ):
        if found[key]:
            statements.append(_at_most(key.replace("_", " "), claim, found[key], limit, unit))
    return statements


def check_scans(scan_set: ScanSet, expected: Mapping[str, int] | None = None) -> QualityReport:
    """Measure the quality of a set of reference scans.

    Args:
        scan_set: the scans.
        expected: number of scans of each type, where it is known.

    Returns:
        Contents, measured values by scan, and statements with their limits.

    Raises:
        ValueError: a set without scans, or one whose provenance notes something else than numbers.

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
        "unexplained": {
            scan.name: _largest(_unexplained(scan)[0]) if scan.labeled.sum() >= 4 else math.nan
            for scan in scan_set
        },
        "net_force": {scan.name: _net_force(scan) for scan in scan_set},
        "net_torque": {scan.name: _net_torque(scan) for scan in scan_set if not scan.pbc.any()},
        "spin": _spin(scan_set),
        "hysteresis": {name: _largest(gap) for name, gap in _noted(scan_set, "hysteresis").items()},
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
        unlabeled={
            scan.name: tuple(np.flatnonzero(~scan.labeled).tolist())
            for scan in scan_set
            if not scan.labeled.all()
        },
        statements=(*_contents(scan_set, found, expected), *_labels(found)),
        **found,
    )
