"""What a study says: each number of each variant over seeds, and its difference from the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from sfumato.execution.records import Record
from sfumato.metrics.stats import Estimate
from sfumato.report.numbers import Metric
from sfumato.study.prediction import Prediction, predictions
from sfumato.study.space import StudySettings
from sfumato.systems import Floats
from sfumato.words import nearest, plain

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Column:
    """A number of the table.

    Args:
        metric: how it is presented; its key is "protocol.number".
        better: which is better; None: it only describes.
    """

    metric: Metric
    better: Literal["lower", "higher"] | None = "lower"


def _column(key: str, title: str, unit: str, meaning: str, factor: float = 1.0) -> Column:
    return Column(Metric(key, title, unit, meaning, factor))


COLUMNS = (
    _column("errors.energy_mae", "energy MAE", "meV/atom", "On frames that were not learned from.", 1e3),
    _column("errors.force_mae", "force MAE", "meV/Å", "Per component, on the same frames.", 1e3),
    _column("nve.end_error", "NVE error", "meV/atom", "|E(end) − E(start)| at constant energy."),
    _column("nve.drift", "NVE drift", "meV/atom/ps", "Slope of the energy at constant energy."),
    _column("bsct.fsd_full", "FSD", "1/Å", "Force Smoothness Deviation along whole bond scans."),
    _column("bsct.fsd_compress", "FSD compress", "1/Å", "Before the minimum."),
    _column("bsct.fsd_stretch", "FSD stretch", "1/Å", "Beyond the minimum."),
    _column("bsct.false_barrier", "false barrier", "meV", "Height of the largest one of a scan.", 1e3),
    _column("heat.max_jump_2000K", "jump, 2000 K", "K", "Largest change of kinetic temperature in 10 fs."),
    _column("heat.max_jump_3000K", "jump, 3000 K", "K", "Likewise at 3000 K."),
    _column("heat.max_jump_5000K", "jump, 5000 K", "K", "Likewise at 5000 K."),
    _column("speed.time", "time", "µs/atom", "Processor time of energies and forces.", 1e6),
)
"""Numbers of the published ablations (Liu et al. 2026, Tables 1 and 2) in their order, false barriers among
them, and the time of a prediction."""


@dataclass(frozen=True)
class Entry:
    """A number of a variant.

    Args:
        values: by seed.
        estimate: mean over seeds, with Student's interval; of one seed, the interval over what was measured.
        difference: from the baseline, over the seeds that both have; None for the baseline itself.
        best: of its group.
    """

    values: Mapping[int, float]
    estimate: Estimate
    difference: Estimate | None = None
    best: bool = False


@dataclass(frozen=True)
class Findings:
    """All numbers of a study.

    Args:
        study: its settings.
        columns: of the table, those that something was measured of.
        entries: variant → key → number.
        facts: variant → steps, parameters and processor time of its trainings, means over seeds.
        missing: "variant, seed n" → why there is nothing.
        predictions: which cheap number predicts trouble in dynamics, over the means of the variants.
    """

    study: StudySettings
    columns: Sequence[Column]
    entries: Mapping[str, Mapping[str, Entry]]
    facts: Mapping[str, Mapping[str, float]]
    missing: Mapping[str, str]
    predictions: Sequence[Prediction] = ()

    def as_json(self) -> dict[str, Any]:
        """Return everything in JSON types; what there is not is null."""
        found: dict[str, Any] = plain(
            {
                "baseline": self.study.baseline,
                "seeds": list(self.study.seeds),
                "variants": {
                    name: {
                        "group": self.study.group_of(name),
                        "changes": self.study.variants[name],
                        **self.facts.get(name, {}),
                        "numbers": {key: _json_of(entry) for key, entry in numbers.items()},
                    }
                    for name, numbers in self.entries.items()
                },
                "predictions": [one.as_json() for one in self.predictions],
                "missing": dict(self.missing),
            }
        )
        return found


def _json_of(entry: Entry) -> dict[str, Any]:
    e, d = entry.estimate, entry.difference
    found: dict[str, Any] = {"mean": e.mean, "interval95": [e.low, e.high], "seeds": e.n, "best": entry.best}
    found["by_seed"] = {str(seed): value for seed, value in entry.values.items()}
    if d is not None:
        found["difference"] = {"mean": d.mean, "interval95": [d.low, d.high], "seeds": d.n}
    return found


def student(values: ArrayLike, total: int) -> Estimate:
    """Return the mean of a few values with Student's interval.

    Seeds are too few for a bootstrap; their spread is taken as normal.

    Args:
        values: (n,) without nan; fewer than two have no interval.
        total: how many there should be.
    """
    from scipy.special import stdtrit

    x: Floats = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2:
        return Estimate(float(x[0]) if n else math.nan, math.nan, math.nan, n, total)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * x.std(ddof=1) / math.sqrt(n))
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, n, total)


def analyse(study: StudySettings, trials: Mapping[tuple[str, int], Record]) -> Findings:
    """Turn the records of trials into the numbers of a study: a pure function.

    Args:
        study: its settings.
        trials: (variant, seed) → its record; those that are not there were not made yet.

    Raises:
        ValueError: a column that nothing was measured of.
    """
    done = {which: record for which, record in trials.items() if record["status"] == "ok"}
    columns = columns_of(study, done)
    entries = {
        variant: {column.metric.key: _entry(study, done, variant, column.metric.key) for column in columns}
        for variant in study.variants
    }
    for group in study.groups.values():
        for column in columns:
            _mark_best({name: entries[name] for name in group}, column)
    missing = {
        f"{variant}, seed {seed}": trials[variant, seed]["reason"]
        if (variant, seed) in trials
        else "not made"
        for variant in study.variants
        for seed in study.seeds
        if (variant, seed) not in done
    }
    facts = {name: _facts(done, name) for name in study.variants}
    keys, families = (column.metric.key for column in columns), [study.group_of(name) for name in entries]
    means = {key: [numbers[key].estimate.mean for numbers in entries.values()] for key in keys}
    return Findings(study, columns, entries, facts, missing, predictions(means, families))


def columns_of(study: StudySettings, done: Mapping[tuple[str, int], Record]) -> list[Column]:
    """Return the columns that are asked for, or those of the field that something was measured of."""
    measured = {key for record in done.values() for key in record["numbers"]}
    known = {column.metric.key: column for column in COLUMNS}
    if not study.columns:
        return [column for key, column in known.items() if key in measured]
    for key in study.columns:
        if done and key not in measured:
            raise ValueError(f"columns: nothing measured {key!r}; {nearest(key, measured)}")
    return [known.get(key, Column(Metric(key, key, "", ""), None)) for key in study.columns]


def _entry(study: StudySettings, done: Mapping[tuple[str, int], Record], variant: str, key: str) -> Entry:
    own, base = (_by_seed(done, name, study.seeds, key) for name in (variant, study.baseline))
    total = len(study.seeds)
    estimate = student(list(own.values()), total)
    if len(own) == 1:
        (seed,) = own
        value, low, high = (math.nan if x is None else x for x in done[variant, seed]["numbers"][key])
        estimate = Estimate(value, low, high, 1, total)
    difference = None
    if variant != study.baseline:
        difference = student([own[seed] - base[seed] for seed in own if seed in base], total)
    return Entry(own, estimate, difference)


def _by_seed(
    done: Mapping[tuple[str, int], Record], variant: str, seeds: Sequence[int], key: str
) -> dict[int, float]:
    records = {seed: done[variant, seed] for seed in seeds if (variant, seed) in done}
    values = {seed: record["numbers"].get(key, [None])[0] for seed, record in records.items()}
    return {seed: float(value) for seed, value in values.items() if value is not None}


def _mark_best(group: Mapping[str, dict[str, Entry]], column: Column) -> None:
    """Mark the best of a group; one alone is not the best of anything."""
    key = column.metric.key
    means = {name: abs(entries[key].estimate.mean) for name, entries in group.items()}
    means = {name: value for name, value in means.items() if not math.isnan(value)}
    if column.better is None or len(means) < 2:
        return
    best = (min if column.better == "lower" else max)(means, key=means.__getitem__)
    entry = group[best][key]
    group[best][key] = Entry(entry.values, entry.estimate, entry.difference, True)


def _facts(done: Mapping[tuple[str, int], Record], variant: str) -> dict[str, float]:
    own = [record for (name, _), record in done.items() if name == variant]
    keys = ("steps", "parameters", "cpu")
    return {key: float(np.mean([record[key] for record in own])) for key in keys} if own else {}
