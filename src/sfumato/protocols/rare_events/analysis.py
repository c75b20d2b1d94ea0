"""Scores of forces on migrating atoms: a pure function of data and records.

Each number is defined in `sfumato.metrics.rare_events`; `docs/rare-events.md` explains them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.execution.records import Record, array, number
from sfumato.io.rare_events import RareEvents, RareEventSet
from sfumato.jobs.evaluate import Evaluate
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Task
from sfumato.metrics.errors import Table
from sfumato.metrics.rare_events import (
    EDGES,
    POINTS,
    VACANCY_EDGES,
    angle_errors,
    by_distance,
    magnitude_errors,
    score_table,
    scores,
)
from sfumato.metrics.stats import Estimate
from sfumato.protocols.protocol import Result
from sfumato.protocols.rare_events.data import used
from sfumato.protocols.rare_events.settings import Settings
from sfumato.systems import Floats
from sfumato.words import plain

EVALUATE = Evaluate()

WORST = 5
"""Migrating atoms with the largest force errors that are named."""

ALL = ("force_rmse", "force_mae")
"""Numbers over all atoms; over the migrating ones they are called migrating_…."""


@dataclass(frozen=True)
class Worst:
    """A migrating atom with a large force error.

    Args:
        snapshot: its number in the set.
        atom: its number in the snapshot.
        reference: (3,) eV/Å, the force it should have.
        predicted: (3,) eV/Å, the force it has.
        error: eV/Å, the size of their difference.
        angle: degrees between them; NaN where the reference is zero.
    """

    snapshot: int
    atom: int
    reference: tuple[float, ...]
    predicted: tuple[float, ...]
    error: float
    angle: float


@dataclass(frozen=True, eq=False)
class SetScores:
    """Forces of one model, or of another level of theory, on the snapshots of one defect.

    Args:
        data: the snapshots.
        energy: (S,) eV; NaN where there is none.
        forces: (N, 3) eV/Å; NaN likewise.
        numbers: score → estimate.
        by_r: errors by the distance from the nearest migrating atom.
        by_r_v: errors by the distance from the nearest vacancy.
    """

    data: RareEventSet
    energy: Floats
    forces: Floats
    numbers: Mapping[str, Estimate]
    by_r: list[dict[str, float]]
    by_r_v: list[dict[str, float]]

    @property
    def magnitudes(self) -> Floats:
        """|δF| (eV/Å) of the migrating atoms that were predicted."""
        return self._known(np.abs(magnitude_errors(self.forces, self.data.forces)))

    @property
    def angles(self) -> Floats:
        """δθ (degrees) of the migrating atoms that were predicted."""
        return self._known(angle_errors(self.forces, self.data.forces))

    def _known(self, values: Floats) -> Floats:
        values = values[self.data.migrating]
        return values[np.isfinite(values)]

    @property
    def worst(self) -> list[Worst]:
        """The migrating atoms with the largest force errors, the worst first."""
        off = np.linalg.norm(self.forces - self.data.forces, axis=1)
        off[~self.data.migrating | ~np.isfinite(off)] = -1.0
        angle, batch = angle_errors(self.forces, self.data.forces), self.data.batch
        rows = [k for k in np.argsort(-off, kind="stable")[:WORST].tolist() if off[k] >= 0]
        return [
            Worst(
                snapshot := int(batch.index[k]),
                k - int(batch.offsets[snapshot]),
                tuple(self.data.forces[k].tolist()),
                tuple(self.forces[k].tolist()),
                float(off[k]),
                float(angle[k]),
            )
            for k in rows
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers in JSON types."""
        numbers = {
            name: {"value": e.mean, "interval95": [e.low, e.high], "coverage": [e.n, e.total]}
            for name, e in self.numbers.items()
        }
        return numbers | {"by_r": self.by_r, "by_r_v": self.by_r_v}


@dataclass(frozen=True, eq=False)
class ModelScores(Result):
    """One model on the testing sets.

    Args:
        name: of the model.
        identity: its hash.
        sets: of each defect.
        floor: defect → other level of theory → its scores against the same truth.
        failed: (snapshot, reason) of what was not predicted.
        missing: snapshots that were not evaluated yet.
    """

    name: str
    identity: str
    sets: Mapping[str, SetScores]
    floor: Mapping[str, Mapping[str, SetScores]]
    failed: tuple[tuple[str, str], ...]
    missing: int

    @property
    def coverage(self) -> tuple[int, int]:
        """(snapshots predicted, snapshots of the run)."""
        energies = [one.energy for one in self.sets.values()]
        return sum(int(np.isfinite(e).sum()) for e in energies), sum(map(len, energies))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each number and set: mean, 95 % interval, snapshots counted."""
        return [
            {"set": name, "metric": key, "mean": e.mean, "low95": e.low, "high95": e.high}
            | {"snapshots": e.n, "of": e.total}
            for name, one in self.sets.items()
            for key, e in one.numbers.items()
        ]

    __repr__ = Result.__repr__

    def as_json(self) -> dict[str, Any]:
        """Return the numbers in JSON types; what there is not is null."""
        found: dict[str, Any] = plain(
            {
                "identity": self.identity,
                "coverage": list(self.coverage),
                "sets": {
                    name: one.as_json()
                    | {
                        "migrating_atoms": int(one.data.migrating.sum()),
                        "snapshots": len(one.data),
                        "worst": [vars(worst) for worst in one.worst],
                        "floor": {
                            level: other.as_json() for level, other in self.floor.get(name, {}).items()
                        },
                    }
                    for name, one in self.sets.items()
                },
                "failed": [{"snapshot": which, "reason": reason} for which, reason in self.failed],
                "not evaluated": self.missing,
            }
        )
        return found


def plan(events: RareEvents, settings: Settings) -> Iterator[Task]:
    """Yield one task per snapshot.

    Raises:
        ValueError: no set of the defect that settings choose.
    """
    for one in used(events, settings):
        for system in one.batch:
            yield Task(EVALUATE, Frame.of(system))


def analyse(
    events: RareEvents, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelScores:
    """Turn a model's records into its scores.

    Args:
        events: the data of the run.
        records: by key; records of other structures are ignored.
        name: the model's name, and `identity` its hash.
        settings: see Settings.
    """
    whose, sets, floor = EVALUATE.subject(identity), {}, {}
    failed: list[tuple[str, str]] = []
    missing = 0
    for one in used(events, settings):
        found = [records.get(whose.key(Frame.of(system))) for system in one.batch]
        missing += sum(record is None for record in found)
        failed += [
            (f"{one.name} {k}", str(r["reason"]))
            for k, r in enumerate(found)
            if r is not None and r["status"] != "ok"
        ]
        sizes = np.diff(one.batch.offsets).tolist()
        energy = np.array([_energy(record) for record in found])
        forces = np.concatenate([_forces(record, n) for record, n in zip(found, sizes, strict=True)])
        sets[one.name] = score(one, energy, forces, settings)
        floor[one.name] = {level: score(one, *labels, settings) for level, labels in one.others.items()}
    return ModelScores(name, identity, sets, floor, tuple(failed), missing)


def score(data: RareEventSet, energy: Floats, forces: Floats, settings: Settings) -> SetScores:
    """Compare predictions with the truth of a set.

    Args:
        data: the snapshots.
        energy: (S,) eV; NaN where there is none.
        forces: (N, 3) eV/Å; NaN likewise.
        settings: of the integral and the bootstrap.
    """
    points = None if settings.exact else POINTS
    index, size, some = data.batch.index, len(data), data.migrating
    migrating = score_table(forces[some], data.forces[some], index[some], size, points)
    everywhere = score_table(forces, data.forces, index, size, points)
    table: Table = {f"migrating_{key}" if key in ALL else key: pair for key, pair in migrating.items()}
    table |= {key: everywhere[key] for key in ALL} | _energies(data, energy)
    return SetScores(
        data,
        energy,
        forces,
        scores(table, data.snapshots, settings.seed),
        by_distance(forces, data.forces, data.r, EDGES),
        by_distance(forces, data.forces, data.r_v, VACANCY_EDGES),
    )


def _energies(data: RareEventSet, energy: Floats) -> Table:
    """Return what each snapshot adds to the energy errors (eV/atom), with and without the mean error."""
    off = (energy - data.energy) / np.diff(data.batch.offsets)
    known = np.isfinite(off)
    shifted = off - (off[known].mean() if known.any() else 0.0)
    return {
        name: (np.where(known, values, 0.0) ** 2, known.astype(float))
        for name, values in (("energy_rmse", off), ("relative_energy_rmse", shifted))
    }


def _energy(record: Record | None) -> float:
    return number(record, "energy") if record is not None and record["status"] == "ok" else np.nan


def _forces(record: Record | None, atoms: int) -> Floats:
    if record is None or record["status"] != "ok":
        return np.full((atoms, 3), np.nan)
    return array(record, "forces", (atoms, 3))
