"""Molecular dynamics as a job: from a relaxed structure, in batches, in segments that survive a kill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sfumato.dynamics.conditions import Broken, Collapsed, Condition, Exploded, Left
from sfumato.dynamics.integrators import Integrator, langevin, velocity_verlet
from sfumato.dynamics.kept import Kept
from sfumato.dynamics.observe import Energies, Observer, Swing, Work
from sfumato.dynamics.simulation import Simulation
from sfumato.dynamics.state import State, maxwell_boltzmann, stream_of
from sfumato.execution.records import Record, RecordError, array, encode, failed, ok
from sfumato.execution.runner import Chunk, Item
from sfumato.files import temporary_folder
from sfumato.io.trajectories import Motion, write_trajectory
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Task
from sfumato.jobs.relax import Relax, surface_of
from sfumato.jobs.segments import SEGMENTS, Group, Pulse, grouped
from sfumato.jobs.tracks import Track, TrackJob
from sfumato.potentials.potential import SKIN, Potential, Session
from sfumato.systems import Batch, Floats

SAMPLES = 4000
"""Of a trajectory that are kept; of longer ones every so many steps, with the extremes between them."""

SEGMENT_ATOM_STEPS, LONGEST_SEGMENT = 100_000, 1000
"""A segment is about this long: seconds to minutes, which is what a kill costs."""

SWING_SPAN = 10.0
"""fs within which the kinetic temperature is watched, as published."""

TIMED = 3
"""Predictions by which a trajectory's cost is estimated."""

BATCH = ("numbers", "positions", "index", "cell", "pbc", "charge", "multiplicity")
STATE = ("velocities", "energy", "forces", "bath", "stream", "free")


@dataclass(frozen=True, eq=False)
class Start(Track):
    """A structure that is to move: its velocities are drawn by seed and temperature.

    Args:
        seed: of velocities and random forces, which depend on it, on the temperature and on the elements, and
            not on the potential.
        kelvin: of the velocities, and of the bath where there is one.
    """

    seed: int = 0
    kelvin: float = 300.0

    def parts(self) -> Sequence[ArrayLike | str]:
        """See `Track`."""
        return (f"{self.seed}/{self.kelvin!r}",)

    @property
    def stream(self) -> int:
        """Of its random numbers."""
        return stream_of(self.seed, repr(self.kelvin), self.numbers.tolist())

    def plain(self) -> Frame:
        """The structure alone."""
        return Frame(self.numbers, self.positions, self.charge, self.multiplicity, self.cell, self.pbc)


RELAX = Relax()


@dataclass(frozen=True)
class Trajectory(TrackJob):
    """Dynamics of structures, each relaxed first; the payload of an item is a `Start`.

    Args:
        timestep: fs.
        steps: after those of `settle`.
        relax: how the structure is relaxed.
        friction: 1/ps of a Langevin bath; None for constant energy (velocity Verlet).
        settle: steps at another temperature before.
        settle_kelvin: that temperature.
        compare: also whether neighbors that are kept give what fresh ones give, at every step; the atoms then
            follow fresh ones. A potential that keeps none is not compared.
        zoom: points on the line through the interval in which work left most unexplained; 0 for none.
        dtype: a precision the potential must offer besides its own; empty for its own. One that does not
            offer it has a record without numbers that says so.
        save: fs from frame to frame of the trajectory file; 0 for none.
        breaks: whether a replica leaves when a bond breaks; otherwise the first break is noted.
        surface: "" for the potential, or a name of `models.pair.PAIRS` in its place.
    """

    timestep: float
    steps: int
    relax: Relax = RELAX
    friction: float | None = None
    settle: int = 0
    settle_kelvin: float = 0.0
    compare: bool = False
    zoom: int = 0
    dtype: str = ""
    save: float = 0.0
    breaks: bool = False
    surface: str = ""
    name: ClassVar[str] = "trajectory"
    version: ClassVar[int] = 1

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.settle + self.steps

    @property
    def every(self) -> int:
        """Steps from sample to sample."""
        return max(1, -(-self.total // SAMPLES))

    @property
    def _frame_steps(self) -> int:
        return max(1, round(self.save / self.timestep)) if self.save else 0

    @property
    def integrator(self) -> Integrator:
        """How states go on."""
        if self.friction is None:
            return velocity_verlet(self.timestep)
        return langevin(self.timestep, self.friction)

    def together(self, potential: Potential) -> int:
        """As many as the potential likes in a batch."""
        return potential.abilities.batch

    def before(self, frame: Frame) -> Task | None:
        """The relaxation."""
        return Task(self.relax, frame.plain()) if isinstance(frame, Start) else None

    def prepared(self, frame: Frame, record: Record) -> Frame:
        """Return the structure at rest."""
        return replace(frame, positions=array(record, "positions", (len(frame.numbers), 3)))

    def needless(self, potential: Potential) -> str:
        """Say why a potential needs no such trajectory; empty if it does."""
        if self.compare and type(potential.session(Batch.of([_ATOM]), SKIN)) is Session:
            return "keeps no neighbors"
        if self.dtype and self.dtype == potential.abilities.dtype:
            return f"is in {self.dtype} anyway"
        if self.dtype and self.dtype not in potential.abilities.dtypes:
            return f"does not offer {self.dtype}"
        return ""

    def estimate(self, potential: Potential, frames: Sequence[Frame]) -> float | None:
        """Time a few predictions of the first batch."""
        potential = surface_of(potential, self.surface)
        if not frames or self.needless(potential):
            return 0.0
        if self.dtype:
            potential = potential.to(dtype=self.dtype)
        batch = Batch.of([frame.system() for frame in frames[: self.together(potential)]])
        session = potential.session(batch, SKIN)
        session.predict(batch.positions)
        start = time.perf_counter()
        for _ in range(TIMED):
            session.predict(session.batch.positions)
        each = (time.perf_counter() - start) / TIMED / len(batch.numbers)
        atoms = sum(len(frame.numbers) for frame in frames)
        return each * atoms * self.total * (2 if self.compare else 1)

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """Do everything at once; nothing but the records is kept."""
        with temporary_folder("trajectory") as folder:
            return self.work_in(potential, chunk, folder)

    def work_in(self, potential: Potential, chunk: Chunk, folder: Path) -> list[Record]:
        """Go on with what the folder has of a chunk, to the end.

        Args:
            potential: by which.
            chunk: items.
            folder: for segments, and for the trajectories in the end.
        """
        potential = surface_of(potential, self.surface)
        reason = self.needless(potential)
        if reason:
            return [ok(item.key, seconds=0.0, needless=reason) for item in chunk]
        if self.dtype:
            potential = potential.to(dtype=self.dtype)
        records: dict[str, Record] = {}
        sound: list[Item] = []
        for item in chunk:
            try:
                item.payload.system()
                sound.append(item)
            except ValueError as error:
                records[item.key] = failed(item.key, str(error))
        payloads = {item.key: item.payload for item in sound}
        for group in grouped(tuple(sound), folder / SEGMENTS):
            if not group.count:
                self._begin(potential, group, [payloads[key] for key in group.keys])
            self._go_on(potential, group)
            found = self._records(group, payloads.keys(), folder / "trajectories")
            if self.zoom and self.friction is None:
                self._zoom(potential, group, found)
            records |= found
        return [records[item.key] for item in chunk]

    def _begin(self, potential: Potential, group: Group, starts: Sequence[Start]) -> None:
        """Write the first state of a group."""
        begun = time.perf_counter()
        batch = Batch.of([start.system() for start in starts])
        kelvin = np.array([start.kelvin for start in starts])
        first = np.full(len(batch), self.settle_kelvin) if self.settle else kelvin
        stream = np.array([start.stream for start in starts])
        velocities = maxwell_boltzmann(batch, first, stream)
        state = self.integrator.init(potential.session(batch, SKIN), velocities, kelvin, stream)
        failures = {str(k): why.reason for k, why in state.failures.items()}
        facts = {"failures": failures, "seconds": time.perf_counter() - begun}
        group.write(0, _stored(state) | {"rows": np.arange(len(batch))}, facts)

    def _go_on(self, potential: Potential, group: Group) -> None:
        """Add segments until the end."""
        count = group.count
        arrays, facts = group.read(count - 1)
        first = arrays if count == 1 else group.read(0)[0]
        start = _batch(first)
        state = _state(arrays, facts)
        length = int(np.clip(SEGMENT_ATOM_STEPS // len(start.numbers), 10, LONGEST_SEGMENT))
        pulse = Pulse(group, self.total * self.timestep, state.step * self.timestep)
        observers = self._observers(potential, start)
        while state.step < self.total and len(arrays["rows"]):
            begun = time.perf_counter()
            settling = state.step < self.settle
            bath = np.full(len(start), self.settle_kelvin) if settling else first["bath"]
            state = state.at(bath[arrays["rows"]])
            session = potential.session(state.batch, SKIN)  # anew, as after a kill
            if self.compare:
                session = Session(potential, state.batch)
            for k, observer in enumerate(observers):
                observer.recall({name: arrays.get(f"memory/{k}/{name}") for name in observer.memory})
            simulation = Simulation(
                session,
                state,
                self.integrator,
                start,
                arrays["rows"],
                observers,
                self._conditions(start),
                self.every,
                self._frame_steps,
                *_history(facts),
            )
            end = self.settle if settling else self.total
            simulation.advance(
                min(length, end - state.step),
                lambda now: pulse(now.step * self.timestep, len(now)),
            )
            arrays, facts = _segment(simulation, facts["seconds"] + time.perf_counter() - begun)
            group.write(count, arrays, facts)
            state, count = simulation.state, count + 1
        pulse.end()

    def _observers(self, potential: Potential, batch: Batch) -> list[Observer]:
        seen: list[Observer] = [Energies(batch)]
        if self.friction is None:
            seen.append(Work(batch, self.timestep))
        else:
            seen.append(Swing(batch, max(1, round(SWING_SPAN / self.timestep))))
        return [*seen, Kept(potential, batch, SKIN)] if self.compare else seen

    def _conditions(self, batch: Batch) -> list[Condition]:
        return [Exploded(), Collapsed(), Broken(batch, fatal=self.breaks)]

    def _records(self, group: Group, wanted: Any, place: Path) -> dict[str, Record]:
        """Return the records of those items of a finished group that are asked for."""
        parts = [group.read(0), *(group.read(k, ("seen/", "frames/")) for k in range(1, group.count))]
        start, facts = _batch(parts[0][0]), parts[-1][1]
        history = _history(facts)
        found: dict[str, Record] = {}
        for k, key in enumerate(group.keys):
            if key not in wanted:
                continue
            left = history[0].get(k)
            if left is not None and left.step == 0 and left.kind == "no answer":
                found[key] = failed(key, left.reason)
                continue
            steps, series = _series(parts, k)
            record = ok(
                key,
                seconds=facts["seconds"] / len(group.keys),
                atoms=int(np.diff(start.offsets)[k]),
                free=int(parts[0][0]["free"][k]),
                kelvin=float(parts[0][0]["bath"][k]),
                timestep=self.timestep,
                settle=self.settle,
                total=self.total,
                left=None if left is None else vars(left),
                noted={kind: vars(why) for kind, why in history[1].get(k, {}).items()},
                steps=encode(steps),
                series={name: encode(values) for name, values in series.items()},
            )
            if self.save:
                path = place / f"{key[:20]}.h5"
                write_trajectory(path, self._motion(parts, k, steps, series, record))
                record["trajectory"] = path.name
            found[key] = record
        return found

    def _zoom(self, potential: Potential, group: Group, records: dict[str, Record]) -> None:
        """Add to each record energies and work along the interval in which work left most unexplained."""
        memory = group.read(group.count - 1, ("memory/1/worst",))[0]
        start = _batch(group.read(0, BATCH)[0])
        for k, key in enumerate(group.keys):
            r = float(memory["memory/1/worst"][k]) if memory else 0.0
            record = records.get(key)
            if record is None or record["status"] != "ok" or not r:
                continue
            (system,) = start.take([k])
            own = slice(start.offsets[k], start.offsets[k + 1])
            ends = [memory[f"memory/1/worst_{end}"][own] for end in ("from", "to")]
            parts = np.linspace(0.0, 1.0, self.zoom)[:, None, None]
            path = ends[0] + parts * (ends[1] - ends[0])
            batch = replace(Batch.of([system] * self.zoom), positions=path.reshape(-1, 3))
            seen = potential.predict(batch)
            if not seen.failures:
                work = (seen.forces.reshape(path.shape) * (ends[1] - ends[0])).sum(axis=(1, 2))
                record["zoom"] = {"unexplained": r, "energy": encode(seen.energy), "work": encode(work)}

    def _motion(
        self,
        parts: Sequence[tuple[Any, Any]],
        k: int,
        steps: Floats,
        series: dict[str, Floats],
        record: Record,
    ) -> Motion:
        """Return the frames of a replica."""
        start = _batch(parts[0][0])
        (system,) = start.take([k])
        frames = [frame for arrays, _ in parts[1:] for frame in _frames(arrays, start, k)]
        facts = {
            name: value for name, value in record.items() if not isinstance(value, dict) or name == "left"
        }
        return Motion(
            system,
            self.timestep * np.array([step for step, _ in frames], dtype=float),
            np.array([x for _, x in frames]).reshape(-1, len(system), 3),
            self.timestep * steps,
            series,
            facts,
        )


_ATOM = Start(np.array([1]), np.zeros((1, 3)), 0, 2).system()


def seen_in(record: Record) -> tuple[Floats, dict[str, Floats]]:
    """Return the steps at which a trajectory was sampled, (M,), and what was seen by name, (M,) each.

    Raises:
        RecordError: the record holds something else.
    """
    steps = array(record, "steps", (None,))
    series = record.get("series")
    if not isinstance(series, dict):
        raise RecordError(f"damaged record {str(record.get('key'))[:16]}: 'series' is not a table of arrays")
    named = series | {"key": record.get("key")}
    return steps, {name: array(named, name, (len(steps),)) for name in series}


def _stored(state: State) -> dict[str, Any]:
    """Return a state as named arrays."""
    return {name: getattr(state.batch, name) for name in BATCH} | {
        name: getattr(state, name) for name in STATE
    }


def _batch(arrays: dict[str, Any]) -> Batch:
    return Batch(**{name: arrays[name] for name in BATCH})


def _state(arrays: dict[str, Any], facts: dict[str, Any]) -> State:
    from sfumato.systems import Failure

    failures = {int(k): Failure(why) for k, why in facts.get("failures", {}).items()}
    return State(
        _batch(arrays), **{name: arrays[name] for name in STATE}, step=facts.get("step", 0), failures=failures
    )


def _history(facts: dict[str, Any]) -> tuple[dict[int, Left], dict[int, dict[str, Left]]]:
    """Return who left, and what was noted."""
    left = {int(row): Left(**why) for row, why in facts.get("left", {}).items()}
    noted = {
        int(row): {kind: Left(**why) for kind, why in kinds.items()}
        for row, kinds in facts.get("noted", {}).items()
    }
    return left, noted


def _segment(simulation: Simulation, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return everything that the next segment needs, and what was seen in this one."""
    arrays = _stored(simulation.state) | {"rows": simulation.rows}
    for k, observer in enumerate(simulation.observers):
        arrays |= {f"memory/{k}/{name}": values for name, values in observer.memory.items()}
    seen = simulation.seen
    arrays["seen/steps"] = np.array(seen.steps, dtype=float)
    arrays |= {f"seen/series/{name}": np.array(values) for name, values in seen.series.items()}
    for step, rows, positions in seen.frames:
        arrays |= {f"frames/{step:012d}/rows": rows, f"frames/{step:012d}/positions": positions}
    facts = {
        "step": simulation.state.step,
        "seconds": seconds,
        "left": {str(row): vars(why) for row, why in simulation.left.items()},
        "noted": {
            str(row): {kind: vars(why) for kind, why in kinds.items()}
            for row, kinds in simulation.noted.items()
        },
    }
    return arrays, facts


def _series(parts: Sequence[tuple[Any, Any]], k: int) -> tuple[Floats, dict[str, Floats]]:
    """Return the steps at which a replica was sampled, and what was seen of it."""
    segments = [arrays for arrays, _ in parts[1:]]
    if not segments:
        return np.zeros(0), {}
    prefix = "seen/series/"
    names = [name.removeprefix(prefix) for name in segments[0] if name.startswith(prefix)]
    steps = np.concatenate([arrays["seen/steps"] for arrays in segments])
    values = {
        name: np.concatenate([arrays[prefix + name][:, k] for arrays in segments if prefix + name in arrays])
        for name in names
    }
    here = np.isfinite(values["potential"])
    return steps[here], {name: series[here] for name, series in values.items()}


def _frames(arrays: dict[str, Any], start: Batch, k: int) -> list[tuple[int, Floats]]:
    """Return the (step, positions) of a replica in a segment."""
    sizes = np.diff(start.offsets)
    found = []
    for name in sorted(name for name in arrays if name.startswith("frames/") and name.endswith("/rows")):
        rows = arrays[name]
        place = np.flatnonzero(rows == k)
        if len(place):
            first = int(sizes[rows[: place[0]]].sum())
            x = arrays[name.removesuffix("rows") + "positions"][first : first + sizes[k]]
            found.append((int(name.split("/")[1]), x))
    return found
