"""The Bond Smoothness Characterization Test: predict bond scans, measure how smooth the prediction is.

Source: Liu et al. 2026, section 3 and appendix A. Every number is defined in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from sfumato.execution.records import Record
from sfumato.jobs.evaluate import Evaluate
from sfumato.jobs.frames import energies_and_forces, frames_of
from sfumato.jobs.job import Task
from sfumato.metrics.stats import (
    Estimate,
    PairedDifference,
    estimates,
    estimates_by_stratum,
    paired_differences,
)
from sfumato.protocols.bsct.measure import (
    Reference,
    Values,
    measure,
    path_positions,
    reference,
    residual_name,
    scan_metrics,
)
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.protocol import Result
from sfumato.systems import Floats, Scan, ScanSet
from sfumato.words import plain

__all__ = [
    "EVALUATE",
    "ModelResult",
    "ScanResult",
    "analyse",
    "compare",
    "path_positions",
    "plan",
    "residual_name",
    "scan_metrics",
    "select",
]

EVALUATE = Evaluate()


def select(scan_set: ScanSet, limit_per_bond: int | None) -> list[Scan]:
    """Return the scans of a run: all, or the first few of each bond type in the order of the set."""
    seen: dict[str, int] = {}
    chosen = []
    for scan in scan_set:
        seen[scan.stratum] = seen.get(scan.stratum, 0) + 1
        if limit_per_bond is None or seen[scan.stratum] <= limit_per_bond:
            chosen.append(scan)
    return chosen


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
        limits: what the search for false extrema rests on, eV: the noise of the energy, and the threshold.
    """

    status: str
    reason: str
    values: Values
    energy: Floats | None = None
    forces: Floats | None = None
    limits: Values = field(default_factory=dict)


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
    def by_bond(self) -> ByType:
        """The same for each bond type: metric → bond type → estimate, computed when it is asked for."""
        return ByType(self._columns, self._strata, self.seed)

    def prepare(self) -> None:
        """See Result: the means of all, and by type of the FSD, which comes first."""
        _ = self.estimates, self.by_bond.get(next(iter(self._columns), ""))

    def remember(self, estimates: dict[str, Estimate], by_bond: Mapping[str, dict[str, Estimate]]) -> None:
        """Take over estimates that were computed before from the same values."""
        vars(self)["estimates"] = estimates
        self.by_bond.known.update(by_bond)

    def column(self, metric: str, names: Sequence[str]) -> Floats:
        """Return a metric on some scans, (S,); nan where a scan failed or is missing, and where it is n/a."""
        nothing: Values = {}
        rows = (self.scans[name].values if name in self.scans else nothing for name in names)
        return np.array([row.get(metric, np.nan) for row in rows])

    @property
    def _strata(self) -> list[str]:
        return [name.split("/")[0] for name in self.scans]

    @cached_property
    def _columns(self) -> dict[str, Floats]:
        """Metric → its value on every scan of the run; nan where the scan failed or the metric is n/a."""
        metrics = next((scan.values for scan in self.scans.values() if scan.status == "ok"), {})
        return {metric: self.column(metric, list(self.scans)) for metric in metrics}

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each metric and type of scan, "all" first: mean, 95 % interval, scans counted."""

        def row(kind: str, metric: str, e: Estimate) -> dict[str, Any]:
            numbers = {"mean": e.mean, "low95": e.low, "high95": e.high, "scans": e.n, "of": e.total}
            return {"type": kind, "metric": metric, **numbers}

        rows = []
        for metric, estimate in self.estimates.items():
            rows.append(row("all", metric, estimate))
            rows += [row(kind, metric, e) for kind, e in self.by_bond[metric].items()]
        return rows

    __repr__ = Result.__repr__

    def as_json(self) -> dict[str, Any]:
        """The model's part of the result file; n/a is null."""
        return {
            "identity": self.identity,
            "scans": {
                name: {"status": scan.status}
                | ({"reason": scan.reason} if scan.reason else {})
                | {key: plain(value) for key, value in (scan.values | scan.limits).items()}
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


class ByType(Mapping[str, dict[str, Estimate]]):
    """Estimates of each stratum alone, by metric; tables and pages need few of them.

    Attributes:
        known: those that were asked for so far.
    """

    def __init__(self, columns: Mapping[str, Floats], strata: Sequence[str], seed: int) -> None:
        self._columns, self._strata, self._seed = columns, strata, seed
        self.known: dict[str, dict[str, Estimate]] = {}

    def __getitem__(self, metric: str) -> dict[str, Estimate]:
        if metric not in self.known:
            self._compute({metric: self._columns[metric]})
        return self.known[metric]

    def __iter__(self) -> Iterator[str]:
        lacking = {name: column for name, column in self._columns.items() if name not in self.known}
        if lacking:  # all at once cost little more than one
            self._compute(lacking)
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def _compute(self, columns: Mapping[str, Floats]) -> None:
        rng = np.random.default_rng(self._seed)
        self.known |= estimates_by_stratum(columns, self._strata, rng=rng)


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
    scans, references = select(scan_set, settings.limit_per_bond), _references(scan_set, settings)
    results = {scan.name: _analyse_scan(scan, records, identity, references) for scan in scans}
    return ModelResult(name, identity, results, settings.seed)


class _References:
    """What all models need of each scan, prepared when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._paths: dict[str, Floats] = {}
        self._known: dict[str, Reference] = {}

    def path(self, scan: Scan) -> Floats:
        """Return the refined path of a scan."""
        if scan.name not in self._paths:
            self._paths[scan.name] = path_positions(scan, self.settings.refine)
        return self._paths[scan.name]

    def of(self, scan: Scan) -> Reference:
        """Return what the numbers of a scan need."""
        if scan.name not in self._known:
            self._known[scan.name] = reference(scan, self.path(scan), self.settings)
        return self._known[scan.name]


@lru_cache(maxsize=1)
def _references(scan_set: ScanSet, settings: Settings) -> _References:
    return _References(settings)


def _analyse_scan(
    scan: Scan, records: Mapping[str, Record], identity: str, references: _References
) -> ScanResult:
    keys, settings = EVALUATE.subject(identity).keys(scan, references.path(scan)), references.settings
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
    values, limits = measure(references.of(scan), energy, forces, settings)
    return ScanResult("ok", "", values, energy, forces, limits)


def compare(first: ModelResult, second: ModelResult, metric: str) -> PairedDifference:
    """Return the paired difference first − second of a metric over the scans both models finished.

    Raises:
        ValueError: the models share no scan with that metric.
    """
    (found,) = differences([(first, second)], metric)
    if found is None:
        raise ValueError(f"{first.name} and {second.name} share no finished scan with {metric}")
    return found


def differences(
    pairs: Sequence[tuple[ModelResult, ModelResult]], metric: str
) -> list[PairedDifference | None]:
    """Return what `compare` returns for each of many pairs, with resamples that they share; None: no scan.

    Args:
        pairs: of models of one run.
        metric: its key in results.
    """
    models = {id(model): model for pair in pairs for model in pair}
    names = list(dict.fromkeys(name for model in models.values() for name in model.scans))
    columns = {key: model.column(metric, names) for key, model in models.items()}
    found: dict[str, PairedDifference] = {}
    for seed in {first.seed for first, _ in pairs}:
        some = {
            str(k): (columns[id(one)], columns[id(two)])
            for k, (one, two) in enumerate(pairs)
            if one.seed == seed and np.isfinite(columns[id(one)] + columns[id(two)]).any()
        }
        strata = [name.split("/")[0] for name in names]
        found |= paired_differences(some, strata, rng=np.random.default_rng(seed))
    return [
        replace(found[str(k)], total=found[str(k)].n) if str(k) in found else None for k in range(len(pairs))
    ]
