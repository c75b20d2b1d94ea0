"""Errors of energies and forces on labeled structures, per subset: predict every frame, compare.

Each number is defined in `sfumato.metrics.errors`; `docs/training.md` explains them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sfumato.execution.records import Record, array, number
from sfumato.frames import FrameSet
from sfumato.jobs.evaluate import Evaluate
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Task
from sfumato.metrics.errors import (
    Table,
    by_magnitude,
    element_energies,
    energy_errors,
    fitted_errors,
    force_errors,
    pooled,
)
from sfumato.metrics.stats import Estimate
from sfumato.protocols.errors.settings import Settings
from sfumato.protocols.protocol import Result
from sfumato.systems import Floats, Ints, symbols
from sfumato.words import plain

ALL = "all"

EVALUATE = Evaluate()


@dataclass(frozen=True, eq=False)
class Turned:
    """A frame that is also predicted turned.

    Args:
        row: its number in the selection.
        rotation: (3, 3), of column vectors.
        frame: the structure, turned.
    """

    row: int
    rotation: Floats
    frame: Frame


def chosen_split(frames: FrameSet, asked: str | None) -> str:
    """Return the split that is asked for, or else test, val or everything, whichever is there first."""
    return asked or next((name for name in ("test", "val") if frames.split.counts().get(name)), ALL)


def select(frames: FrameSet, split: str, limit: int | None) -> Ints:
    """Return the frames of a run.

    Args:
        frames: the set.
        split: which; `ALL` for everything.
        limit: only the first so many of each subset.

    Raises:
        ValueError: no frame is in that split.
    """
    rows = np.arange(len(frames)) if split == ALL else frames.split.where(split)
    if limit is None:
        return rows
    codes = frames.subset.codes[rows]
    return np.sort(np.concatenate([rows[codes == code][:limit] for code in np.unique(codes)]))


def frames_of(frames: FrameSet) -> list[Frame]:
    """Return the structures of a set as items of work."""
    return [Frame.of(system) for system in frames.batch]


def turned(frames: FrameSet, settings: Settings) -> list[Turned]:
    """Return the frames that are also predicted turned, each by a rotation of its own."""
    from scipy.spatial.transform import Rotation

    count = min(settings.turned, len(frames))
    rows = np.unique(np.linspace(0, len(frames) - 1, count).astype(int)) if count else np.zeros(0, dtype=int)
    found = []
    for row, system in zip(rows.tolist(), frames.take(rows).batch, strict=True):
        quaternion = np.random.default_rng([settings.seed, row]).standard_normal(4)
        r = Rotation.from_quat(quaternion).as_matrix()
        numbers, charge, spin = system.numbers, system.charge, system.multiplicity
        here = Frame(numbers, system.positions @ r.T, charge, spin, system.cell @ r.T, system.pbc)
        found.append(Turned(row, r, here))
    return found


def plan(whole: FrameSet, settings: Settings) -> Iterator[Task]:
    """Yield one task per structure to predict: the frames, then some of them turned."""
    frames = used(whole, settings)
    for frame in (*frames_of(frames), *(turn.frame for turn in turned(frames, settings))):
        yield Task(EVALUATE, frame)


def used(whole: FrameSet, settings: Settings) -> FrameSet:
    """Return the frames of a data set that settings choose."""
    return whole.take(select(whole, chosen_split(whole, settings.split), settings.limit_per_subset))


@dataclass(frozen=True, eq=False)
class ModelErrors(Result):
    """One model on the frames of a run.

    Args:
        name: of the model.
        identity: its hash.
        frames: that it was asked about.
        split: which split they are.
        energy: (S,) eV as predicted; nan where it could not be.
        forces: (N, 3) eV/Å likewise.
        subsets: subset, "all" first → number → estimate.
        magnitude: force error by size of the reference force, see `by_magnitude`.
        failed: (frame, reason) of what was not predicted.
        missing: frames that were not evaluated yet.
    """

    name: str
    identity: str
    frames: FrameSet
    split: str
    energy: Floats
    forces: Floats
    subsets: Mapping[str, Mapping[str, Estimate]]
    magnitude: list[tuple[float, float, float, int]]
    failed: tuple[tuple[int, str], ...]
    missing: int

    @cached_property
    def coverage(self) -> tuple[int, int]:
        """(frames predicted, frames of the run)."""
        return int(np.isfinite(self.energy).sum()), len(self.energy)

    @cached_property
    def element_energies(self) -> dict[int, float]:
        """Energy (eV) of each element, fitted to the errors; empty where frames do not tell them apart."""
        counts = element_counts(self.frames)[np.isfinite(self.energy)]
        there = np.flatnonzero(counts.any(axis=0))
        if np.linalg.matrix_rank(counts[:, there]) < len(there):
            return {}
        off = (self.energy - self.frames.labels.energy)[np.isfinite(self.energy)]
        fitted = element_energies(off, counts)[there]
        return dict(zip(there.tolist(), fitted.tolist())) if np.isfinite(fitted).all() else {}

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each number and subset, "all" first: mean, 95 % interval, frames counted."""
        return [
            {"subset": subset, "metric": key, "mean": e.mean, "low95": e.low, "high95": e.high}
            | {"frames": e.n, "of": e.total}
            for subset, numbers in self.subsets.items()
            for key, e in numbers.items()
        ]

    __repr__ = Result.__repr__

    def as_json(self) -> dict[str, Any]:
        """Return the numbers in JSON types; what there is not is null."""
        found: dict[str, Any] = plain(
            {
                "identity": self.identity,
                "coverage": list(self.coverage),
                "subsets": {
                    subset: {
                        name: {"value": e.mean, "interval95": [e.low, e.high], "coverage": [e.n, e.total]}
                        for name, e in numbers.items()
                    }
                    for subset, numbers in self.subsets.items()
                },
                "force_mae_by_magnitude": [
                    {"from": low, "to": high, "force_mae": error, "atoms": atoms}
                    for low, high, error, atoms in self.magnitude
                ],
                "fitted_element_energies": {
                    symbols([z]): energy for z, energy in self.element_energies.items()
                },
                "failed": [{"frame": frame, "reason": reason} for frame, reason in self.failed],
                "not evaluated": self.missing,
            }
        )
        return found


def analyse(
    whole: FrameSet, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelErrors:
    """Turn a model's records into its errors: a pure function, the model itself is not needed.

    Args:
        whole: the data of the run.
        records: by key; records of other structures are ignored.
        name: the model's name, and `identity` its hash.
        settings: see Settings.
    """
    frames, whose = used(whole, settings), EVALUATE.subject(identity)
    found = [records.get(whose.key(frame)) for frame in frames_of(frames)]
    energy = np.array([_energy(record) for record in found])
    atoms = np.diff(frames.batch.offsets)
    parts = [_forces(record, n) for record, n in zip(found, atoms.tolist(), strict=True)]
    forces = np.concatenate([*parts, np.zeros((0, 3))])
    turns = [(turn, records.get(whose.key(turn.frame))) for turn in turned(frames, settings)]
    table = compare(frames, energy, forces) | _rotation(frames, energy, parts, turns)
    reference = frames.labels.forces
    return ModelErrors(
        name,
        identity,
        frames,
        chosen_split(whole, settings.split),
        energy,
        forces,
        _by_subset(frames, table, settings.seed),
        by_magnitude(forces, reference),
        tuple((k, r["reason"]) for k, r in enumerate(found) if r is not None and r["status"] != "ok"),
        sum(record is None for record in found),
    )


def compare(frames: FrameSet, energy: Floats, forces: Floats) -> Table:
    """Return what each frame adds to the errors of energies and forces."""
    batch, labels = frames.batch, frames.labels
    counts = element_counts(frames)
    _, code = np.unique(counts, axis=0, return_inverse=True)
    off = energy - labels.energy
    return {
        **energy_errors(off, np.diff(batch.offsets), code.reshape(-1)),
        **fitted_errors(off, counts),
        **force_errors(forces, labels.forces, batch.index, len(batch)),
    }


def element_counts(frames: FrameSet) -> Ints:
    """Return (S, 119), how many atoms of each element every structure has."""
    batch = frames.batch
    counts = np.zeros((len(batch), 119), dtype=np.int64)
    np.add.at(counts, (batch.index, batch.numbers), 1)
    return counts


def _rotation(
    frames: FrameSet, energy: Floats, forces: list[Floats], turns: list[tuple[Turned, Record | None]]
) -> Table:
    """Return what turned frames say: energy per atom and forces, turned back, must not have changed."""
    numbers = np.zeros((4, len(frames)))
    for turn, record in turns:
        off = _energy(record) - energy[turn.row]
        if np.isfinite(off):
            before = forces[turn.row]
            back = _forces(record, len(before)) @ turn.rotation
            numbers[:, turn.row] = abs(off) / len(before), 1, np.abs(back - before).sum(), before.size
    return {"rotation_energy": (numbers[0], numbers[1]), "rotation_force": (numbers[2], numbers[3])}


def _by_subset(frames: FrameSet, table: Table, seed: int) -> dict[str, dict[str, Estimate]]:
    rows = {ALL: np.arange(len(frames))}
    if len(np.unique(frames.subset.codes)) > 1:
        present = [name for k, name in enumerate(frames.subset.names) if (frames.subset.codes == k).any()]
        rows |= {name: frames.subset.where(name) for name in present}
    return {
        name: pooled(
            {key: (above[some], below[some]) for key, (above, below) in table.items()},
            frames.molecule.codes[some],
            seed,
        )
        for name, some in rows.items()
    }


def _energy(record: Record | None) -> float:
    return number(record, "energy") if record is not None and record["status"] == "ok" else np.nan


def _forces(record: Record | None, atoms: int) -> Floats:
    if record is None or record["status"] != "ok":
        return np.full((atoms, 3), np.nan)
    return array(record, "forces", (atoms, 3))
