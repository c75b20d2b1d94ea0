"""Search for settings that improve several numbers at once, and confirm what is best with new seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.execution.records import Record
from sfumato.execution.runner import Item, run
from sfumato.files import write_json
from sfumato.study.query import START, WINNER, Choice, SearchSettings, read_search
from sfumato.study.run import How, make, records_of, trials_of
from sfumato.study.space import Changes
from sfumato.study.table import Findings
from sfumato.study.trial import Look, Perform, Trial
from sfumato.words import plain

JOURNAL, RECORDS, RESULT = "optuna.log", "trials.jsonl", "search.json"
CONFIRMATION = "confirmation"
"""Folder of the study that confirms the winner."""


@dataclass(frozen=True)
class Tried:
    """A trial of a search.

    Args:
        number: from 0, the start.
        changes: to the start.
        numbers: "protocol.number" → [value, low, high]; empty for a trial that was given up or failed.
        look: the number at the early look; None without one.
        reason: why there are no numbers, "" where there are.
    """

    number: int
    changes: Changes
    numbers: Mapping[str, Sequence[float | None]]
    look: float | None = None
    reason: str = ""

    def value(self, key: str) -> float:
        """Return a number; NaN where it has none."""
        found = self.numbers.get(key, (None,))[0]
        return math.nan if found is None else float(found)


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Args:
        settings: of the search.
        trials: in their order.
        front: numbers of the trials that no other improves in one objective without losing in another.
        winner: the number of the one on the front whose least gain over the start is largest; None where
            that is the start, or where no start or no other trial has a result.
        confirmation: start and winner with new seeds; None without one.
    """

    settings: SearchSettings
    trials: Sequence[Tried]
    front: Sequence[int]
    winner: int | None
    confirmation: Findings | None = None

    def as_json(self) -> dict[str, Any]:
        """Return everything in JSON types; what there is not is null."""
        trials = [
            {"number": t.number, "changes": t.changes, "numbers": dict(t.numbers), "look": t.look}
            | ({"reason": t.reason} if t.reason else {})
            for t in self.trials
        ]
        found: dict[str, Any] = plain(
            {
                "objectives": dict(self.settings.objectives),
                "trials": trials,
                "front": list(self.front),
                "winner": self.winner,
                "confirmation": None if self.confirmation is None else self.confirmation.as_json(),
            }
        )
        return found


def default_folder(path: Path, size: str | None) -> Path:
    """Return where a search goes when nothing is said: runs/search-NAME, with its size."""
    return Path("runs") / f"search-{path.stem}{f'-{size}' if size else ''}"


def run_search(
    path: str | Path, size: str | None = None, *, out: Path | None = None, how: How | None = None
) -> Searched:
    """Make the trials of a search that are not there yet, and confirm what is best.

    The trials lie in a journal of optuna, whose own tools can read it too. What is tried next depends on
    the trials before it and the seed alone, so a search that was killed goes on as if nothing had happened;
    with several workers as many trials are drawn at once.

    Args:
        path: its YAML file.
        size: dev, fast or standard, where the file has such; None: as it is.
        out: its folder; default runs/search-NAME.
        how: who works, what to repeat, where trainings are kept.

    Returns:
        What was found, also written to search.json in the folder.

    Raises:
        ValueError: a search that cannot be read or that is another than the one in the folder; optuna is not
            installed; data that is not fit; an objective that nothing measures.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    path, how = Path(path), how or How()
    search, base = read_search(path, size)
    folder = out or default_folder(path, size)
    folder.mkdir(parents=True, exist_ok=True)
    with records_of(folder / RECORDS) as file, how.watch() as watch:
        journal = Journal(search, folder)
        while batch := journal.next(_at_once(how)):
            trials = {number: journal.trial(number, base, how.trials) for number in batch}
            items = [Item(trial.key, trial) for trial in trials.values()]
            run(Perform(), items, file, pool=how.executor, keep_going=True, watch=watch)
            for number, trial in trials.items():
                journal.tell(number, file.records[trial.key])
        tried = journal.tried()
    front = pareto_front(tried, search)
    winner = best_of(tried, front, search)
    found = Searched(search, tried, front, winner)
    if winner is not None and search.confirm:
        changes = next(t.changes for t in tried if t.number == winner)
        variants = {START: search.start, WINNER: search.start | changes}
        study = search.study(variants, search.confirm)
        found = replace(found, confirmation=make(study, base, folder / CONFIRMATION, how))
    write_json(folder / RESULT, found.as_json())
    return found


def _at_once(how: How) -> int:
    workers = getattr(how.executor, "workers", None)
    return max(1, workers or 1)


class Journal:
    """The trials of a search as optuna keeps them in a file.

    Args:
        search: its settings.
        folder: of the search.

    Raises:
        ValueError: optuna is not installed; the folder has another search.
    """

    def __init__(self, search: SearchSettings, folder: Path) -> None:
        self.search = search
        optuna = _optuna()
        self._states = optuna.trial.TrialState
        backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        self._study: Any = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="search",
            directions=[f"{'min' if b == 'lower' else 'max'}imize" for b in search.objectives.values()],
            load_if_exists=True,
        )
        identity = search.model_copy(update={"trials": 1, "confirm": (), "sizes": {}}).model_dump_json()
        if self._study.user_attrs.setdefault("search", identity) != identity:
            raise ValueError(f"{folder} has another search; choose another folder")
        self._study.set_user_attr("search", identity)

    def next(self, count: int) -> list[int]:
        """Return trials to make: those that a kill left unfinished, or new ones, as many as are left."""
        trials = self._study.get_trials(deepcopy=False)
        left = [trial.number for trial in trials if trial.state == self._states.RUNNING]
        if left or len(trials) >= self.search.trials:
            return left
        distributions = {name: _distribution(kind) for name, kind in self.search.space.items()}
        self._study.sampler = _optuna().samplers.TPESampler(
            seed=self.search.seed + len(trials),
            multivariate=True,
            constant_liar=True,
        )
        wanted = min(count, self.search.trials - len(trials))
        if not trials:  # the start, whose settings may lie outside of the space
            wanted, distributions = 1, {}
        return [self._study.ask(distributions).number for _ in range(wanted)]

    def trial(self, number: int, base: Mapping[str, Any], folder: Path) -> Trial:
        """Return what is to be made of a trial."""
        search, changes = self.search, self._changes(number)
        study = search.study({f"trial {number}": search.start | changes}, (search.seed,))
        ((_, trial),) = trials_of(study, dict(base), folder).items()
        return replace(trial, look=self._look(number))

    def _look(self, number: int) -> Look | None:
        """Return the early look at a trial, with the worst that it may be by those before it."""
        early = self.search.early
        if early is None:
            return None
        key = f"worst {number}"
        if key not in self._study.user_attrs:  # decided once: a trial that was killed goes on as it began
            earlier = [t.look for t in self.tried() if t.number < number and t.look is not None]
            share = early.keep if early.better == "lower" else 1 - early.keep
            worst = float(np.quantile(earlier, share)) if number >= early.first and earlier else None
            self._study.set_user_attr(key, worst)
        worst = self._study.user_attrs[key]
        return Look(early.measure, early.number, early.better, early.share, worst)

    def _changes(self, number: int) -> Changes:
        return dict(self._study.get_trials(deepcopy=False)[number].params)

    def tell(self, number: int, record: Record) -> None:
        """Take down how a trial ended."""
        result = {key: record.get(key) for key in ("numbers", "look", "reason")}
        self._study.set_user_attr(f"result {number}", plain(result))
        numbers = record.get("numbers") or {}
        if numbers and (lost := [key for key in self.search.objectives if key not in numbers]):
            raise ValueError(
                f"objectives: nothing measured {lost[0]!r}; there are {', '.join(sorted(numbers))}"
            )
        values = [numbers[key][0] for key in self.search.objectives] if numbers else [None]
        if None in values:
            stopped = record["status"] == "ok" and not numbers
            self._study.tell(number, state=self._states.PRUNED if stopped else self._states.FAIL)
        else:
            self._study.tell(number, values)

    def tried(self) -> list[Tried]:
        """Return the trials that ended."""
        found, results = [], self._study.user_attrs
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                result = results[f"result {trial.number}"]
                numbers, reason = result["numbers"] or {}, result["reason"] or ""
                found.append(Tried(trial.number, dict(trial.params), numbers, result["look"], reason))
        return found


def pareto_front(tried: Sequence[Tried], search: SearchSettings) -> list[int]:
    """Return the numbers of the trials that no other beats: as good in all objectives, better in one."""
    rows = [t for t in tried if all(math.isfinite(t.value(key)) for key in search.objectives)]
    signs = np.array([1.0 if better == "lower" else -1.0 for better in search.objectives.values()])
    values = np.array([[t.value(key) for key in search.objectives] for t in rows]).reshape(-1, len(signs))
    values = values * signs
    beaten = [bool(((values <= own).all(1) & (values < own).any(1)).any()) for own in values]
    return [t.number for t, is_beaten in zip(rows, beaten, strict=True) if not is_beaten]


def gains(tried: Tried, start: Tried, search: SearchSettings) -> dict[str, float]:
    """Return by which factor, as a logarithm, a trial is better than the start in each objective.

    NaN where one of the two numbers is not positive.
    """
    found = {}
    for key, better in search.objectives.items():
        own, base = tried.value(key), start.value(key)
        ratio = math.log(base / own) if own > 0 and base > 0 else math.nan
        found[key] = ratio if better == "lower" else -ratio
    return found


def best_of(tried: Sequence[Tried], front: Sequence[int], search: SearchSettings) -> int | None:
    """Return the trial of the front whose least gain over the start is largest; None for the start itself."""
    start = next((t for t in tried if t.number == 0 and t.numbers), None)
    if start is None:
        return None
    least = {t.number: min(gains(t, start, search).values()) for t in tried if t.number in front}
    least = {number: gain for number, gain in least.items() if not math.isnan(gain)}
    best = max(least, key=least.__getitem__, default=0)
    return best or None


def _distribution(kind: Any) -> Any:
    d = _optuna().distributions
    if isinstance(kind, Choice):
        return d.CategoricalDistribution(kind.choices)
    whole = isinstance(kind.low, int) and isinstance(kind.high, int)
    return (d.IntDistribution if whole else d.FloatDistribution)(kind.low, kind.high, log=kind.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError("a search needs optuna: pip install 'sfumato[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
