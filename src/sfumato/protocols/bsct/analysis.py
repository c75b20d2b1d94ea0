"""The Bond Smoothness Characterization Test: predict bond scans, measure how smooth the prediction is.

Source: Liu et al. 2026, section 3 and appendix A. Every number is defined in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sfumato.execution.records import Record
from sfumato.jobs.evaluate import Evaluate
from sfumato.jobs.frames import energies_and_forces, frames_of
from sfumato.jobs.job import Task
from sfumato.metrics.curves import excess_variation, full_turn, spurious_points, well_and_wall
from sfumato.metrics.extrema import Extremum, false_extrema
from sfumato.metrics.forces import energy_mae_aligned, energy_mae_raw, force_mae
from sfumato.metrics.smoothness import (
    Sides,
    fsd,
    fsd_outside,
    fsd_position,
    work_energy_order,
    work_energy_residual,
)
from sfumato.metrics.stats import Estimate, estimates, estimates_by_stratum, paired_difference
from sfumato.metrics.work import work_energy_excess
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.protocol import Result
from sfumato.reference.scans import lever
from sfumato.systems import Floats, Scan, ScanSet
from sfumato.words import plain

EVALUATE = Evaluate()

Values = dict[str, float]


def select(scan_set: ScanSet, limit_per_bond: int | None) -> list[Scan]:
    """Return the scans of a run: all, or the first few of each bond type in the order of the set."""
    seen: dict[str, int] = {}
    chosen = []
    for scan in scan_set:
        seen[scan.stratum] = seen.get(scan.stratum, 0) + 1
        if limit_per_bond is None or seen[scan.stratum] <= limit_per_bond:
            chosen.append(scan)
    return chosen


def path_positions(scan: Scan, refine: int) -> Floats:
    """Return the frames with refine − 1 more between each two, ((F − 1)·refine + 1, N, 3) Å.

    Linear interpolation is exact for bonds and sites, whose atoms move on straight lines; of an arc it
    follows the chords.
    """
    fine = np.arange((len(scan) - 1) * refine + 1)
    before = fine // refine
    after = np.minimum(before + 1, len(scan) - 1)
    weight = (fine % refine / refine)[:, None, None]
    path: Floats = scan.positions[before] * (1 - weight) + scan.positions[after] * weight
    return path


def plan(scan_set: ScanSet, settings: Settings) -> Iterator[Task]:
    """Yield one task per structure to predict.

    Raises:
        ValueError: the coordinate "alpha", which only the bond of a molecule has.
    """
    for scan in select(scan_set, settings.limit_per_bond):
        if settings.coordinate == "alpha" and (scan.kind != "bond" or scan.pbc.any()):
            raise ValueError(
                f"{scan.name}: coordinate 'alpha' is the way of each of two halves, and here one part moves "
                "alone; leave the setting at 'length'"
            )
        for frame in frames_of(scan, path_positions(scan, settings.refine)):
            yield Task(EVALUATE, frame)


@dataclass(frozen=True, eq=False)
class ScanResult:
    """What one model did on one scan: numbers where all went well, otherwise the reason.

    Args:
        status: "ok", "failed" (a prediction failed) or "incomplete" (frames not evaluated yet).
        reason: empty when ok.
        values: metrics by name; nan means not applicable (n/a).
        energy: (P,) eV along the refined path; forces: (P, N, 3) eV/Å.
    """

    status: str
    reason: str
    values: Values
    energy: Floats | None = None
    forces: Floats | None = None


@dataclass(frozen=True, eq=False)
class ModelResult(Result):
    """One model on all scans of a run."""

    name: str
    identity: str
    scans: Mapping[str, ScanResult]
    seed: int

    @property
    def coverage(self) -> tuple[int, int]:
        """(scans that count, scans of the run)."""
        return sum(scan.status == "ok" for scan in self.scans.values()), len(self.scans)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Mean and 95 % interval of every metric over the scans where it applies."""
        return estimates(self._columns, self._strata, rng=self._rng())

    @cached_property
    def by_bond(self) -> dict[str, dict[str, Estimate]]:
        """The same for each bond type: metric → bond type → estimate."""
        return estimates_by_stratum(self._columns, self._strata, rng=self._rng())

    @property
    def _strata(self) -> list[str]:
        return [name.split("/")[0] for name in self.scans]

    @cached_property
    def _columns(self) -> dict[str, Floats]:
        """Metric → its value on every scan of the run; nan where the scan failed or the metric is n/a."""
        metrics = next((scan.values for scan in self.scans.values() if scan.status == "ok"), {})
        return {
            metric: np.array([scan.values.get(metric, np.nan) for scan in self.scans.values()])
            for metric in metrics
        }

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def as_json(self) -> dict[str, Any]:
        """The model's part of the result file; n/a is null."""
        return {
            "identity": self.identity,
            "scans": {
                name: {"status": scan.status}
                | ({"reason": scan.reason} if scan.reason else {})
                | {key: plain(value) for key, value in scan.values.items()}
                for name, scan in self.scans.items()
            },
            "mean": {name: plain(e.mean) for name, e in self.estimates.items()},
            "interval95": {name: [plain(e.low), plain(e.high)] for name, e in self.estimates.items()},
            "counted": {name: e.n for name, e in self.estimates.items()},
            "by_bond": {
                metric: {
                    bond: {"mean": plain(e.mean), "interval95": [plain(e.low), plain(e.high)]}
                    | {"coverage": [e.n, e.total]}
                    for bond, e in bonds.items()
                }
                for metric, bonds in self.by_bond.items()
            },
            "coverage": list(self.coverage),
        }


def analyse(
    scan_set: ScanSet, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelResult:
    """Turn a model's records into its result: a pure function, the model itself is not needed.

    Args:
        scan_set: the data of the run.
        records: by key; records of other structures are ignored.
        name: the model's name, and `identity` its hash.
        settings: see Settings.
    """
    scans = select(scan_set, settings.limit_per_bond)
    results = {scan.name: _analyse_scan(scan, records, identity, settings) for scan in scans}
    return ModelResult(name, identity, results, settings.seed)


def _analyse_scan(scan: Scan, records: Mapping[str, Record], identity: str, settings: Settings) -> ScanResult:
    keys = EVALUATE.subject(identity).keys(scan, path_positions(scan, settings.refine))
    found = [records.get(key) for key in keys]
    for number, record in enumerate(found):
        if record is not None and record["status"] != "ok":
            return ScanResult("failed", f"frame {number / settings.refine:g}: {record['reason']}", {})
    done = [record for record in found if record is not None]
    if len(done) < len(keys):
        return ScanResult("incomplete", f"{len(done)} of {len(keys)} frames evaluated", {})
    if not scan.labeled.any():
        return ScanResult("failed", "the reference labels no frame of this scan", {})
    energy, forces = energies_and_forces(done, len(scan.numbers))
    return ScanResult("ok", "", scan_metrics(scan, energy, forces, settings), energy, forces)


def scan_metrics(scan: Scan, energy: Floats, forces: Floats, settings: Settings) -> Values:
    """Return every per-scan number of one prediction.

    Args:
        scan: the reference.
        energy: (P,) eV, on the path refined as `settings.refine` says.
        forces: (P, N, 3) eV/Å.
        settings: see Settings.
    """
    use = scan.labeled
    b, reference_energy, reference_forces = scan.coordinate[use], scan.energy[use], scan.forces[use]
    on_frames = slice(None, None, settings.refine)
    e, f = energy[on_frames][use], forces[on_frames][use]
    minimum = int(np.argmin(reference_energy))
    values = {
        **_sides("force_mae", force_mae(reference_forces, f, minimum)),
        **_sides("energy_mae_aligned", energy_mae_aligned(reference_energy, e, minimum)),
        **_sides("energy_mae_raw", energy_mae_raw(reference_energy, e, minimum)),
    }
    pair = (b, reference_energy, reference_forces, f)
    frame = int(np.flatnonzero(use)[minimum])
    return (
        _smoothness(pair, e, settings)
        | values
        | _work(scan, energy, forces, frame, settings)
        | _shape(scan, e)
    )


Forces = tuple[Floats, Floats, Floats, Floats]
"""Coordinate, reference energies and forces, and predicted forces of the labeled frames."""


def _smoothness(pair: Forces, energy: Floats, settings: Settings) -> Values:
    """Return the FSD as published, without the surroundings of the minimum, and where it is read."""
    how, name = settings.fsd, settings.fsd.name
    outside = fsd_outside(*pair, settings=how, energy=energy)
    position = fsd_position(*pair, settings=how, energy=energy)
    return {
        **_sides(name, fsd(*pair, settings=how, energy=energy)),
        **_sides(name.replace("fsd", "fsd_outside", 1), outside),
        name.replace("fsd", "fsd_position", 1): position,
    }


def _work(scan: Scan, energy: Floats, forces: Floats, frame: int, settings: Settings) -> Values:
    """Return the work–energy residual of the path, how fast it falls, and the excess that no step explains.

    Args:
        scan: the reference.
        energy: (P,) eV on the refined path.
        forces: (P, N, 3) eV/Å.
        frame: of the reference minimum.
        settings: see Settings.
    """
    path, start = path_positions(scan, settings.refine), frame * settings.refine
    odd = len(path) - (len(path) + 1) % 2  # a last step that has no partner is left out
    order = work_energy_order(energy[:odd], forces[:odd], path[:odd], min(start // 2, odd // 2))
    name = residual_name(settings)
    return {
        **_sides(name, work_energy_residual(energy, forces, path, start)),
        **_sides(name.replace("residual", "order"), order.order),
        name.replace("residual", "excess"): work_energy_excess(energy, forces, path).height,
    }


def _shape(scan: Scan, energy: Floats) -> Values:
    """Return what is wrong with the shape of the energy curve of the labeled frames, (F,) eV."""
    use = scan.labeled
    b, reference = scan.coordinate[use], scan.energy[use]
    arm = lever(scan) if scan.kind == "torsion" else None
    period = None if arm is None else full_turn(scan.coordinate, float(arm.mean()))
    false = false_extrema(b, reference, energy, period=period)
    spurious = spurious_points(b, reference, energy, period=period)
    well = well_and_wall(b, reference, energy)
    return {
        "false_barrier": false.false_barrier,
        "false_barrier_position": _position(false.barriers),
        "false_barriers": len(false.barriers),
        "false_well": false.false_well,
        "false_well_position": _position(false.wells),
        "false_wells": len(false.wells),
        "excess_variation": excess_variation(b, reference, energy, period=period),
        "spurious_minima": spurious.minima,
        "spurious_maxima": spurious.maxima,
        "spurious_inflections": spurious.inflections,
        "well_position_error": well.position,
        "well_depth_error": well.depth,
        "wall_error": well.wall,
    }


def _position(extrema: tuple[Extremum, ...]) -> float:
    """Return where the largest is on the coordinate, Å; nan where there is none."""
    return extrema[0].position if extrema else float("nan")


def residual_name(settings: Settings) -> str:
    """Return what the work–energy residual is called: its grid belongs to its name."""
    return "work_energy_residual" + ("" if settings.refine == 1 else f"[refine={settings.refine}]")


def compare(first: ModelResult, second: ModelResult, metric: str) -> Any:
    """Return the paired difference first − second of a metric over the scans both models finished.

    Raises:
        ValueError: the models share no scan with that metric.
    """
    pairs = [
        (a.values[metric], b.values[metric], name.split("/")[0])
        for name, a in first.scans.items()
        if a.status == "ok" and (b := second.scans.get(name)) is not None and b.status == "ok"
        if np.isfinite(a.values[metric]) and np.isfinite(b.values[metric])
    ]
    if not pairs:
        raise ValueError(f"{first.name} and {second.name} share no finished scan with {metric}")
    one, two, strata = zip(*pairs, strict=True)
    return paired_difference(
        np.array(one), np.array(two), list(strata), rng=np.random.default_rng(first.seed)
    )


def _sides(name: str, sides: Sides) -> Values:
    return {f"{name}_{side}": value for side, value in sides._asdict().items()}
