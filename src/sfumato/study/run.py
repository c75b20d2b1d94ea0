"""Make the trials of a study, continuing where an earlier call stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.datasets.named import verify_frames
from sfumato.execution.folder import provenance
from sfumato.execution.pool import Executor, PoolSettings
from sfumato.execution.records import Header, Record, RecordFile
from sfumato.execution.runner import Item, Watch, run
from sfumato.files import write_json
from sfumato.study.budget import seconds_per_step, steps_within
from sfumato.study.space import StudySettings, read_study
from sfumato.study.table import Findings, analyse
from sfumato.study.trial import Perform, Trial
from sfumato.systems import digest
from sfumato.training.launch import require_sound

RECORDS, RESULT = "trials.jsonl", "study.json"
TRIALS = Path("runs") / "trials"
"""Where trainings and measurements are kept, whatever study asked for them."""

VERSION = 1


HERE = PoolSettings(workers=0)
"""In this process."""


@dataclass(frozen=True)
class How:
    """How a study is carried out.

    Args:
        executor: processes here (`PoolSettings`) or pilot jobs (`ParslSettings`).
        retry_failed: make failed trials again.
        keep_going: do not stop where every trial fails for one reason.
        trials: folder of trainings and measurements.
        watch: context manager that yields a callback for progress.
    """

    executor: Executor = HERE
    retry_failed: bool = False
    keep_going: bool = False
    trials: Path = TRIALS
    watch: Callable[[], AbstractContextManager[Watch]] = lambda: nullcontext(lambda tally: None)


def default_folder(path: Path, size: str | None) -> Path:
    """Return where a study goes when nothing is said: runs/study-NAME, with its size."""
    return Path("runs") / f"study-{path.stem}{f'-{size}' if size else ''}"


def trials_of(study: StudySettings, base: dict[str, Any], folder: Path) -> dict[tuple[str, int], Trial]:
    """Return every variant with every seed; all variants of a seed come before the next seed.

    Raises:
        ValueError: data that is not here, damaged or not fit to train on; settings that do not fit.
    """
    identities: dict[str, str] = {}
    found = {}
    for seed in study.seeds:
        for variant in study.variants:
            settings = study.run_of(variant, seed, base)
            path = settings.data.path
            if path not in identities:
                require_sound(settings)
                identities[path] = verify_frames(path)
            found[variant, seed] = Trial(
                variant, settings, identities[path], study.budget, study.measure, folder.resolve()
            )
    return found


def run_study(
    path: str | Path,
    size: str | None = None,
    *,
    out: Path | None = None,
    how: How = How(),
) -> Findings:
    """Make all trials of a study that are not there yet, and say what they show.

    Args:
        path: its YAML file.
        size: dev, fast or standard, where the file has such; None: as it is.
        out: its folder; default runs/study-NAME.
        how: who works, what to repeat, where trainings are kept.

    Returns:
        The findings, also written to study.json in the folder.

    Raises:
        ValueError: a study that cannot be read; data that is not fit; every trial failed for one reason.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    path = Path(path)
    study, base = read_study(path, size)
    return make(study, base, out or default_folder(path, size), how)


def make(study: StudySettings, base: dict[str, Any], folder: Path, how: How) -> Findings:
    """Make all trials of a study that are not there yet; see `run_study`.

    Args:
        study: its settings.
        base: the values of its training run.
        folder: of the study.
        how: who works, what to repeat, where trainings are kept.
    """
    trials = trials_of(study, base, how.trials)
    items = [Item(trial.key, trial) for trial in trials.values()]
    with records_of(folder / RECORDS) as file:
        with how.watch() as watch:
            run(
                Perform(),
                items,
                file,
                pool=how.executor,
                retry_failed=how.retry_failed,
                keep_going=how.keep_going,
                watch=watch,
            )
        found = analyse(study, _made(trials, file.records))
    write_json(folder / RESULT, found.as_json())
    return found


def records_of(path: Path) -> RecordFile:
    """Open the records of trials."""
    header = Header("trial", VERSION, "study", digest(["trial", str(VERSION)]), provenance())
    return RecordFile(path, header)


def _made(trials: dict[tuple[str, int], Trial], records: dict[str, Record]) -> dict[tuple[str, int], Record]:
    return {which: records[trial.key] for which, trial in trials.items() if trial.key in records}


@dataclass(frozen=True)
class Cost:
    """What the training of a variant takes.

    Args:
        variant: its name.
        steps: of one training.
        seconds: of processor time of one training.
        trials: seeds, and how many of them are `done`.
    """

    variant: str
    steps: int
    seconds: float
    trials: int
    done: int


def plan_study(path: str | Path, size: str | None = None, *, out: Path | None = None) -> list[Cost]:
    """Time a few steps of every variant and say what its trainings take; nothing is kept.

    Raises:
        ValueError: as `run_study`.
    """
    path = Path(path)
    study, base = read_study(path, size)
    folder = out or default_folder(path, size)
    trials = trials_of(study, base, TRIALS)
    records: dict[str, Record] = {}
    if (folder / RECORDS).exists():
        with records_of(folder / RECORDS) as file:
            records = dict(file.records)
    made = _made(trials, records)
    costs = []
    for variant in study.variants:
        own = {seed: trials[variant, seed] for seed in study.seeds}
        settings = own[study.seeds[0]].settings
        paces = [seconds_per_step(settings, stage) for stage in settings.stages]
        steps = steps_within(study.budget, settings)
        seconds = sum(n * pace for n, pace in zip(steps, paces, strict=True))
        done = sum((variant, seed) in made for seed in own)
        costs.append(Cost(variant, sum(steps), seconds, len(own), done))
    return costs
