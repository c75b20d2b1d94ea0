"""The contract in a process of its own, which may crash, hang or run out of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.execution.pool import Lost, PoolSettings
from sfumato.files import temporary_folder
from sfumato.potentials.specs import ModelSpec
from sfumato.systems import System
from sfumato.testing.bench import Settings
from sfumato.testing.contract import (
    Check,
    Contract,
    Progress,
    expected_cost,
    nothing,
    rows,
    sample,
)
from sfumato.testing.result import ContractReport, Result

BEAT_SECONDS = 0.5
"""How often progress is looked at."""

GRACE = 20.0
"""Seconds over the budget before a process that does not come back from one evaluation is ended."""

LOSSES = 3
"""Processes that may end before the rest of the checks is left."""


@dataclass(frozen=True)
class ContractJob:
    """The checks of one potential; the worker resolves it when the first one comes.

    Args:
        model: which potential.
        settings: what is checked.
        own: the user's structures, by number.
        budget: seconds in all.
        end: of the budget, as `time.time` counts, for every process alike.
        pulse: file for the number of structures evaluated so far.
    """

    model: ModelSpec
    settings: Settings
    own: Sequence[tuple[int, System]]
    budget: float | None
    end: float | None
    pulse: Path

    def build(self, device: str = "") -> Callable[[str], ContractReport]:
        """Return the function that makes a check, given its name, and reports it alone."""
        table = {row.name: row for row in rows(self.settings, len(self.own))}
        contracts: list[Contract] = []

        def work(name: str) -> ContractReport:
            if not contracts:
                potential = self.model.resolve()
                left = None if self.end is None else max(0.0, self.end - time.time())
                contracts.append(Contract(potential, self.settings, self.own, left, self._beat))
            return contracts[0].report([contracts[0].result(table[name])])

        return work

    def _beat(self, evaluations: int) -> None:
        self.pulse.write_text(str(evaluations))


@dataclass
class _Watcher:
    """Tells in a thread of its own how far the process is."""

    job: ContractJob
    table: Sequence[Check]
    watch: Callable[[Progress], None]
    done: int = 0
    before: int = 0
    start: float = field(default_factory=time.perf_counter)

    def progress(self) -> Progress:
        """Return how far the process is."""
        current = self.table[self.done].name if self.done < len(self.table) else ""
        expected = expected_cost((row.name for row in self.table), self.job.settings, len(self.job.own))
        seconds = time.perf_counter() - self.start
        return Progress(self.done, len(self.table), current, self.before + self.pulse, seconds, expected)

    @property
    def pulse(self) -> int:
        """Structures that the process at work has evaluated."""
        try:
            return int(self.job.pulse.read_text() or 0)
        except (OSError, ValueError):  # none yet, or half written
            return 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Tell while the block runs."""
        stop = threading.Event()

        def tell() -> None:
            while not stop.wait(BEAT_SECONDS):
                self.watch(self.progress())

        thread = threading.Thread(target=tell, daemon=True, name="progress of the contract")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def check_apart(
    model: ModelSpec,
    *,
    settings: Settings | None = None,
    structures: Sequence[System] = (),
    budget: float | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> ContractReport:
    """Run a potential through the contract in a process of its own.

    A process that ends while a check is made costs that check, which is then `not checked`; the next one is
    made by a fresh process, and after the third end the rest is left.

    Args:
        model: which potential, on which device and in which precision.
        settings: by default those of `Settings`.
        structures: of the user, see `check`.
        budget: seconds, see `check`; one evaluation that takes longer is ended.
        watch: called about twice a second from another thread.

    Returns:
        As `check` does.

    Raises:
        ValueError: the potential cannot be made, or can evaluate none of the test structures.
    """
    settings = settings or Settings()
    own = sample(structures, settings)
    with temporary_folder("check") as folder:
        end = None if budget is None else time.time() + budget
        job = ContractJob(model, settings, own, budget, end, folder / "pulse")
        watcher = _Watcher(job, rows(settings, len(own)), watch)
        with watcher.running():
            return _collected(watcher, folder)


def _collected(watcher: _Watcher, scratch: Path) -> ContractReport:
    """Return the results of all checks, of those that ended their process too."""
    job, table = watcher.job, watcher.table
    results: list[Result] = []
    losses: list[Lost] = []
    name = identity = ""
    pool = PoolSettings(workers=1, timeout=None if job.budget is None else job.budget + GRACE)
    tasks = (row.name for row in table if len(losses) < LOSSES)
    with closing(pool.map(job, tasks, scratch)) as answers:
        for row, (_, answer) in zip(table, answers, strict=False):
            if isinstance(answer, Lost):
                losses.append(answer)
                watcher.before += watcher.pulse
                job.pulse.unlink(missing_ok=True)
                results.append(nothing(row, "not checked", answer.reason))
            else:
                name, identity = answer.potential, answer.identity
                results += answer.results
            watcher.done = len(results)
    reason = f"{LOSSES} processes had ended before (last: {losses[-1].reason})" if losses else ""
    results += [nothing(row, "not checked", reason) for row in table[len(results) :]]
    return ContractReport(
        potential=name or job.model.spec,
        identity=identity,
        results=tuple(results),
        evaluations=watcher.before + watcher.pulse,
        seconds=time.perf_counter() - watcher.start,
        settings=job.settings.model_dump(mode="json"),
    )
