"""Energy conservation at constant energy: drift of every structure, over all of them, and who is to blame.

Source: Fu et al. 2025, section 5 (the test); Liu et al. 2026, appendix E. Numbers are explained in
docs/dynamics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from sfumato.datasets.metals import metal
from sfumato.datasets.structures import Setup, Setups
from sfumato.execution.records import Record, RecordError, array, number
from sfumato.jobs.job import Task
from sfumato.jobs.relax import Relax
from sfumato.jobs.trajectory import Trajectory, seen_in
from sfumato.metrics.drift import Residuals, drift_over, zoom
from sfumato.metrics.stats import Estimate, estimates
from sfumato.protocols.nve.blame import Blame, Track, blame, overall
from sfumato.protocols.nve.settings import Settings
from sfumato.protocols.protocol import Result
from sfumato.protocols.simulated import MOST_FORCE, reason_of, relaxation, start_of
from sfumato.systems import Floats
from sfumato.words import plain

FRAMES = 500
"""Of a trajectory file, about, and not closer than 10 fs."""

ZOOM = 65
"""Points on the line through the interval in which work left most unexplained."""

DRIVER_STEP, DRIVER_KELVIN = 5.0, 300.0
"""fs and K, of the Lennard-Jones crystal that the same driver must conserve."""

HOTTER = 10.0
"""Times the temperature at which neighbors that are kept are compared with fresh ones: atoms must come and
go, and what is compared need not be the dynamics of anything."""

REQUIRED = ("base", "half", "quarter")
OPTIONAL = ("double", "kept")
"""Runs that a model may have no use for: in double precision, and with fresh neighbors."""


def plan(data: Setups, settings: Settings) -> Iterator[Task]:
    """Yield relaxations, the runs, and what is repeated."""
    every = [runs_of(setup, settings) for setup in data] + [driver_runs(settings)]
    for runs in every:
        yield relaxation(runs["base"])
    for name in (*REQUIRED, *OPTIONAL):
        for runs in every:
            if name in runs:
                yield runs[name]


def runs_of(setup: Setup, settings: Settings) -> dict[str, Task]:
    """Return the trajectories of a structure by their names.

    Args:
        setup: the structure.
        settings: settled.
    """
    assert settings.time is not None
    assert settings.repeat is not None
    timestep = settings.timestep or setup.timestep
    relax = Relax(force=settings.force, steps=settings.relax_steps, most=MOST_FORCE)
    steps, repeat = max(1, round(1e3 * settings.time / timestep)), settings.repeat
    save = max(10.0, 1e3 * settings.time / FRAMES)
    whole = Trajectory(timestep, max(steps, repeat), relax, save=save)
    part = replace(whole, save=0.0)
    jobs = {
        "base": whole,
        "half": replace(part, timestep=timestep / 2, steps=2 * repeat),
        "quarter": replace(part, timestep=timestep / 4, steps=2 * repeat, zoom=ZOOM),
        "double": replace(part, timestep=timestep / 4, steps=repeat, dtype="float64", zoom=ZOOM),
        "kept": replace(part, steps=repeat, compare=True),
    }
    kelvin = settings.temperature or setup.kelvin
    starts = {
        name: start_of(setup, HOTTER * kelvin if name == "kept" else kelvin, settings.seed) for name in jobs
    }
    return {name: Task(job, starts[name]) for name, job in jobs.items()}


def driver_runs(settings: Settings) -> dict[str, Task]:
    """Return the runs of a Lennard-Jones crystal by the same driver, whatever the model."""
    setup = Setup("Lennard-Jones", metal("Cu"), DRIVER_KELVIN, DRIVER_STEP, "ASE")
    usual = Settings(size=settings.size, time=0.5, repeat=100, seed=settings.seed)
    runs = {}
    for name, task in runs_of(setup, usual).items():
        if name in REQUIRED and isinstance(task.job, Trajectory):
            relax = replace(task.job.relax, surface="lj")
            runs[name] = Task(replace(task.job, surface="lj", relax=relax, save=0.0), task.frame)
    return runs


@dataclass(frozen=True, eq=False)
class Conserved:
    """What one model did with one structure.

    Args:
        status: "ok", "failed" or "incomplete".
        reason: empty when ok.
        tracks: the runs by name.
        blame: the culprit.
        force: eV/Å that the relaxation left.
    """

    status: str
    reason: str
    tracks: Mapping[str, Track] = field(default_factory=dict)
    blame: Blame | None = None
    force: float = math.nan

    @cached_property
    def _finest(self) -> Residuals:
        return self.tracks.get("double", self.tracks["quarter"]).residuals

    @cached_property
    def values(self) -> dict[str, float]:
        """Numbers by name; empty unless ok."""
        if self.status != "ok":
            return {}
        base = self.tracks["base"]
        slopes = base.slopes
        drift = float(slopes.mean())
        per_atom = 1e3 / base.atoms
        spread = float(np.std(base.kinetic)) * per_atom
        span = float(base.time[-1] - base.time[0])
        sums = base.unexplained[np.isfinite(base.unexplained)]
        return {
            "drift": abs(drift),
            "signed_drift": drift,
            "end_error": base.end_error,
            "drift_ratio": abs(drift) * span / spread if spread > 0 else math.nan,
            "step_jump": base.step_jump,
            "scatter": base.scatter,
            "unexplained_drift": per_atom * float(sums[-1]) / span if len(sums) and span > 0 else math.nan,
            "unexplained_jump": 1e3 * self._finest.jump,
        }


METRICS = ("end_error", "drift_ratio", "step_jump", "scatter", "unexplained_drift", "unexplained_jump")
"""Besides the drift, which has an interval of its own kind."""


@dataclass(frozen=True, eq=False)
class ModelConservation(Result):
    """One model on all structures of a run.

    Args:
        name: of the model.
        identity: its hash.
        structures: name → what it did.
        driver: the Lennard-Jones crystal in the same driver.
        seed: of the bootstrap.
    """

    name: str
    identity: str
    structures: Mapping[str, Conserved]
    driver: Conserved
    seed: int

    @property
    def coverage(self) -> tuple[int, int]:
        """(structures that count, structures of the run)."""
        return len(self.done), len(self.structures)

    @cached_property
    def done(self) -> dict[str, Conserved]:
        """The structures that have a result."""
        return {name: one for name, one in self.structures.items() if one.status == "ok"}

    @cached_property
    def drifts(self) -> dict[str, Estimate]:
        """Structure → its drift in meV per atom and ps, with interval."""
        return {
            name: drift_over({name: one.tracks["base"].slopes}, self._rng())
            for name, one in self.done.items()
        }

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Mean and 95 % interval of every number over structures; of the drift, its size."""
        slopes = {name: one.tracks["base"].slopes for name, one in self.done.items()}
        total = len(self.structures)
        drift = drift_over(slopes, self._rng(), size=True, total=total)
        columns = {
            name: np.array([one.values.get(name, np.nan) for one in self.structures.values()])
            for name in METRICS
        }
        return {"drift": drift} | estimates(columns, ["all"] * total, rng=self._rng())

    @cached_property
    def blame(self) -> tuple[str, list[str], str]:
        """The culprit, the structures that show it, and the reason."""
        driver = self.driver.blame
        if driver is not None and self.driver_failed:
            return (
                "integrator",
                [],
                f"the driver fails with Lennard-Jones ({driver.culprit}: {driver.reason})",
            )
        found = {name: one.blame for name, one in self.done.items() if one.blame is not None}
        culprit, names = overall(found)
        reasons = [found[name].reason for name in names or list(found)[:1]]
        return culprit, names, reasons[0] if reasons else "no structure has a result"

    @property
    def driver_failed(self) -> bool:
        """Whether the driver did not conserve the energy of Lennard-Jones: then the model is not to blame."""
        return self.driver.blame is not None and self.driver.blame.culprit != "none"

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def as_json(self) -> dict[str, Any]:
        """The model's part of the result file; n/a is null."""
        culprit, names, reason = self.blame
        found: dict[str, Any] = plain(
            {
                "identity": self.identity,
                "mean": {name: e.mean for name, e in self.estimates.items()},
                "interval95": {name: [e.low, e.high] for name, e in self.estimates.items()},
                "counted": {name: e.n for name, e in self.estimates.items()},
                "culprit": culprit if self.done else None,
                "culprit_reason": reason,
                "culprit_structures": names,
                "driver": _blame_json(self.driver),
                "structures": {name: self._structure_json(name) for name in self.structures},
                "coverage": list(self.coverage),
            }
        )
        return found

    def _structure_json(self, name: str) -> dict[str, Any]:
        one = self.structures[name]
        if one.status != "ok":
            return {"status": one.status, "reason": one.reason}
        base, e = one.tracks["base"], self.drifts[name]
        return {
            "status": "ok",
            "atoms": base.atoms,
            "ps": float(base.time[-1]),
            "left": base.left or None,
            "relaxed_to": one.force,
            **one.values,
            "drift_interval95": [e.low, e.high],
            **_blame_json(one),
        }


def _blame_json(one: Conserved) -> dict[str, Any]:
    if one.blame is None:
        return {"culprit": None, "reason": one.reason}
    return {"culprit": one.blame.culprit, "reason": one.blame.reason, "numbers": one.blame.numbers}


def analyse(
    data: Setups, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelConservation:
    """Turn a model's records into its result: a pure function, the model itself is not needed.

    Args:
        data: of the run.
        records: by key.
        name: the model's name, and `identity` its hash.
        settings: settled.
    """
    found = {setup.name: _conserved(runs_of(setup, settings), records, identity) for setup in data}
    driver = _conserved(driver_runs(settings), records, identity)
    return ModelConservation(name, identity, found, driver, settings.seed)


def _conserved(runs: Mapping[str, Task], records: Mapping[str, Record], identity: str) -> Conserved:
    first = records.get(relaxation(runs["base"]).key(identity))
    own = {name: records.get(task.key(identity)) for name, task in runs.items()}
    known = {name: record for name, record in own.items() if record is not None}
    if reason := reason_of(first, *known.values()):
        return Conserved("failed", reason)
    if first is None or len(known) < len(own):
        return Conserved("incomplete", f"{len(known)} of {len(own)} runs finished")
    tracks = {name: _track(record) for name, record in known.items() if "needless" not in record}
    return Conserved("ok", "", tracks, blame(tracks), number(first, "force"))


def _track(record: Record) -> Track:
    steps, seen = seen_in(record)
    timestep = number(record, "timestep")
    left = record.get("left") or {}
    try:
        return Track(
            timestep=timestep,
            time=1e-3 * timestep * steps,
            potential=seen["potential"],
            kinetic=seen["kinetic"],
            shadow=seen["shadow"],
            unexplained=seen["unexplained"],
            jumps=seen["energy_jump"],
            atoms=int(number(record, "atoms")),
            left=str(left.get("reason", "")),
            kind=str(left.get("kind", "")),
            left_at=1e-3 * timestep * float(left["step"]) if left else math.inf,
            kept=_largest(seen.get("kept_energy")),
            zoomed=_zoomed(record),
        )
    except KeyError as error:
        raise RecordError(f"damaged record {str(record.get('key'))[:16]}: {error} is missing") from None


def _zoomed(record: Record) -> str:
    """Return of what kind the worst residual is."""
    near = record.get("zoom")
    if not isinstance(near, dict):
        return ""
    named = near | {"key": record.get("key")}
    return zoom(number(named, "unexplained"), array(named, "energy", (None,)), array(named, "work", (None,)))


def _largest(values: Floats | None) -> float:
    known = values[~np.isnan(values)] if values is not None else np.zeros(0)
    return float(known.max()) if len(known) else math.nan
