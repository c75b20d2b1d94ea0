"""Hot dynamics: the largest sudden change of the kinetic temperature, and who reaches the end.

Source: Liu et al. 2026, section 5.2, figure 5 and table 1. Numbers are explained in docs/dynamics.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sfumato.datasets.structures import Setup, Setups
from sfumato.dynamics.conditions import Broken
from sfumato.dynamics.state import hottest
from sfumato.execution.records import Record, RecordError, number
from sfumato.jobs.job import Task
from sfumato.jobs.relax import Relax
from sfumato.jobs.trajectory import Trajectory, seen_in
from sfumato.metrics.stats import Estimate, stratified_bootstrap
from sfumato.protocols.heat.settings import Settings
from sfumato.protocols.protocol import Result
from sfumato.protocols.simulated import MOST_FORCE, reason_of, relaxation, start_of
from sfumato.systems import Floats
from sfumato.words import plain

FRAMES = 200
"""Of a trajectory file, about, and not closer than 10 fs."""

CHANCE = 1e-6
"""That heat alone makes a trajectory pass for one with a spike."""

SURE = 1.96
"""Standard normal deviates of 95 %."""


def plan(data: Setups, settings: Settings) -> Iterator[Task]:
    """Yield relaxations and trajectories: the coolest first, seed by seed."""
    for setup in data:
        yield relaxation(task_of(setup, settings.temperatures[0], 0, settings))
    for kelvin, seed, setup in each_of(data, settings):
        yield task_of(setup, kelvin, seed, settings)


def each_of(data: Setups, settings: Settings) -> Iterator[tuple[float, int, Setup]]:
    """Yield (K, number of the seed, structure) of every trajectory of a run with settled settings."""
    assert settings.seeds is not None
    for kelvin in settings.temperatures:
        for seed in range(settings.seeds):
            for setup in data:
                yield kelvin, seed, setup


def task_of(setup: Setup, kelvin: float, seed: int, settings: Settings) -> Task:
    """Return one trajectory.

    Args:
        setup: the structure.
        kelvin: of the bath.
        seed: its number, from 0.
        settings: settled.
    """
    assert settings.time is not None
    assert settings.settle is not None
    timestep = settings.timestep or setup.timestep
    settle = round(1e3 * settings.settle / timestep)
    job = Trajectory(
        timestep,
        max(1, round(1e3 * settings.time / timestep)),
        Relax(force=settings.force, steps=settings.relax_steps, most=MOST_FORCE),
        friction=settings.friction,
        settle=settle,
        settle_kelvin=setup.kelvin if settle else 0.0,
        save=max(10.0, 1e3 * settings.time / FRAMES),
    )
    return Task(job, start_of(setup, kelvin, settings.seed + seed))


@dataclass(frozen=True, eq=False)
class Hot:
    """What one structure did at one temperature with one seed.

    Args:
        status: "ok", "failed" or "incomplete"; who leaves early is ok, and says why in `left`.
        reason: empty when ok.
        structure: its name.
        kelvin: of the bath.
        seed: its number, from 0.
        time: (M,) ps since the heat began, negative before.
        temperature: (M,) K, the kinetic temperature.
        swing: (M,) K, the largest change of it within 10 fs since the sample before.
        free: degrees of freedom.
        steps: in the heat, as planned.
        left: why it ended early, of which `kind`, at what ps.
        broke_at: ps when a bond was 1.75 times its length; infinite where none was.
        broke: which.
    """

    status: str
    reason: str
    structure: str
    kelvin: float
    seed: int
    time: Floats
    temperature: Floats
    swing: Floats
    free: int = 0
    steps: int = 0
    left: str = ""
    kind: str = ""
    left_at: float = math.inf
    broke_at: float = math.inf
    broke: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.structure}, {self.kelvin:g} K, seed {self.seed}"

    @property
    def jump(self) -> float:
        """K, largest change of the kinetic temperature within 10 fs; before the heat where it left then."""
        known = np.isfinite(self.swing) & ((self.time > 0) | (self.left_at <= 0))
        return float(self.swing[known].max()) if known.any() else math.nan

    @property
    def limit(self) -> float:
        """K, that the kinetic temperature comes to once in `1 / CHANCE` such trajectories in a bath."""
        chance = CHANCE / max(self.steps, 1)
        return float(hottest(np.array([self.kelvin]), np.array([self.free]), chance)[0])

    @property
    def spiked(self) -> bool:
        """Whether the kinetic temperature changed by more than a bath can explain."""
        return self.jump > self.limit

    @property
    def warmth(self) -> float:
        """K, mean kinetic temperature in the second half of the heat; nan where it left before."""
        late = self.temperature[self.time > 0.5 * self.time[-1]] if len(self.time) else self.temperature
        return float(late.mean()) if len(late) and self.survived else math.nan

    @property
    def survived(self) -> bool:
        """Whether it reached the end."""
        return not self.left


@dataclass(frozen=True)
class Share:
    """How many of the trajectories that have a result do something.

    Args:
        k: that do, of `n`.
    """

    k: int
    n: int

    @property
    def part(self) -> float:
        """k of n; nan of none."""
        return self.k / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 %.

        Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209.
        """
        if not self.n:
            return math.nan, math.nan
        p, z2 = self.part, SURE**2 / self.n
        middle = (p + z2 / 2) / (1 + z2)
        half = SURE / (1 + z2) * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {"count": self.k, "of": self.n, "fraction": self.part, "interval95": list(self.interval)}


@dataclass(frozen=True, eq=False)
class ModelHeat(Result):
    """One model on all trajectories of a run.

    Args:
        name: of the model.
        identity: its hash.
        trajectories: name → what it did, the coolest first.
        seed: of the bootstrap.
        time: ps of heat.
    """

    name: str
    identity: str
    trajectories: Mapping[str, Hot]
    seed: int
    time: float

    @property
    def coverage(self) -> tuple[int, int]:
        """(trajectories that count, trajectories of the run)."""
        done = sum(one.status == "ok" for one in self.trajectories.values())
        return done, len(self.trajectories)

    @property
    def temperatures(self) -> list[float]:
        """K, rising."""
        return sorted({one.kelvin for one in self.trajectories.values()})

    def done(self, kelvin: float) -> list[Hot]:
        """Return the trajectories of a temperature that have a result."""
        return [one for one in self.trajectories.values() if one.kelvin == kelvin and one.status == "ok"]

    @cached_property
    def jumps(self) -> dict[float, Estimate]:
        """K → mean over trajectories of the largest change of the kinetic temperature within 10 fs, in K."""
        return {kelvin: self._mean_jump(kelvin) for kelvin in self.temperatures}

    def _mean_jump(self, kelvin: float) -> Estimate:
        asked = [one for one in self.trajectories.values() if one.kelvin == kelvin]
        values = np.array([one.jump if one.status == "ok" else math.nan for one in asked])
        rng = np.random.default_rng(self.seed)
        e = stratified_bootstrap(values, [one.structure for one in asked], rng=rng, total=len(asked))
        return replace(e, low=max(e.low, 0.0) if math.isfinite(e.low) else e.low)

    def survived(self, kelvin: float) -> Share:
        """Return how many reached the end."""
        done = self.done(kelvin)
        return Share(sum(one.survived for one in done), len(done))

    def intact(self, kelvin: float) -> Share:
        """Return in how many all bonds of the start held to the end."""
        done = self.done(kelvin)
        return Share(sum(one.survived and math.isinf(one.broke_at) for one in done), len(done))

    def spiked(self, kelvin: float) -> Share:
        """Return how many have a spike."""
        done = self.done(kelvin)
        return Share(sum(one.spiked for one in done), len(done))

    def warmth(self, kelvin: float) -> float:
        """Return K, the mean kinetic temperature in the second halves of those that reached the end."""
        known = [one.warmth for one in self.done(kelvin) if one.survived]
        return float(np.mean(known)) if known else math.nan

    def reasons(self, kelvin: float) -> dict[str, int]:
        """Return how many left by kind of reason, the most frequent first."""
        return dict(Counter(one.kind for one in self.done(kelvin) if one.left).most_common())

    def as_json(self) -> dict[str, Any]:
        """The model's part of the result file; n/a is null."""
        found: dict[str, Any] = plain(
            {
                "identity": self.identity,
                "mean": {f"max_jump_{kelvin:g}K": e.mean for kelvin, e in self.jumps.items()},
                "interval95": {f"max_jump_{kelvin:g}K": [e.low, e.high] for kelvin, e in self.jumps.items()},
                "ps": self.time,
                "temperatures": {f"{kelvin:g}": self._json_of(kelvin) for kelvin in self.temperatures},
                "trajectories": {name: _json_of(one) for name, one in self.trajectories.items()},
                "coverage": list(self.coverage),
            }
        )
        return found

    def _json_of(self, kelvin: float) -> dict[str, Any]:
        e = self.jumps[kelvin]
        return {
            "max_jump": e.mean,
            "interval95": [e.low, e.high],
            "counted": e.n,
            "survived": self.survived(kelvin).as_json(),
            "intact": self.intact(kelvin).as_json(),
            "spiked": self.spiked(kelvin).as_json(),
            "mean_temperature": self.warmth(kelvin),
            "reasons": self.reasons(kelvin),
        }


def _json_of(one: Hot) -> dict[str, Any]:
    if one.status != "ok":
        return {"status": one.status, "reason": one.reason}
    return {
        "status": "ok",
        "max_jump": one.jump,
        "limit": one.limit,
        "left": {"kind": one.kind, "reason": one.left, "ps": one.left_at} if one.left else None,
        "bond_broken": {"reason": one.broke, "ps": one.broke_at} if one.broke else None,
    }


def analyse(
    data: Setups, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelHeat:
    """Turn a model's records into its result: a pure function, the model itself is not needed.

    Args:
        data: of the run.
        records: by key.
        name: the model's name, and `identity` its hash.
        settings: settled.
    """
    assert settings.time is not None
    every = [
        _hot(setup, kelvin, seed, settings, records, identity)
        for kelvin, seed, setup in each_of(data, settings)
    ]
    return ModelHeat(name, identity, {one.name: one for one in every}, settings.seed, settings.time)


def _hot(
    setup: Setup,
    kelvin: float,
    seed: int,
    settings: Settings,
    records: Mapping[str, Record],
    identity: str,
) -> Hot:
    task = task_of(setup, kelvin, seed, settings)
    first = records.get(relaxation(task).key(identity))
    record = records.get(task.key(identity))
    nothing = np.zeros(0)
    whose = (setup.name, kelvin, seed)
    if reason := reason_of(first, record):
        return Hot("failed", reason, *whose, nothing, nothing, nothing)
    if first is None or record is None:
        return Hot("incomplete", "did not finish", *whose, nothing, nothing, nothing)
    steps, seen = seen_in(record)
    timestep, settle = number(record, "timestep"), number(record, "settle")
    left, broke = record.get("left") or {}, (record.get("noted") or {}).get(Broken.kind, {})
    try:
        series = (seen["kelvin"], seen["swing"])
    except KeyError as error:
        raise RecordError(f"damaged record {str(record.get('key'))[:16]}: {error} is missing") from None

    def ps(step: float | Floats) -> Any:
        return 1e-3 * timestep * (step - settle)

    return Hot(
        "ok",
        "",
        *whose,
        ps(steps),
        *series,
        free=int(number(record, "free")),
        steps=int(number(record, "total") - settle),
        left=str(left.get("reason", "")),
        kind=str(left.get("kind", "")),
        left_at=ps(float(left["step"])) if left else math.inf,
        broke_at=ps(float(broke["step"])) if broke else math.inf,
        broke=str(broke.get("reason", "")),
    )


def surviving(ones: Sequence[Hot], ends: Sequence[float], time: float) -> tuple[Floats, Floats]:
    """Return the steps of a survival curve: at what ps, and what part goes on from there.

    Args:
        ones: trajectories; all are watched until they end or the run does, so nothing is censored before.
        ends: ps, of each; infinite where it does not end.
        time: ps, of the run.
    """
    when = np.sort([max(end, 0.0) for end in ends if end <= time])
    part = 1 - np.arange(len(when) + 1) / max(len(ones), 1)
    return np.concatenate([[0.0], when, [time]]), np.concatenate([part, part[-1:]])
