"""Run items through workers into a record file: skip what is there, keep what comes, stop cleanly."""

from __future__ import annotations

import re
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from sfumato.execution.pool import Executor, Lost, PoolSettings
from sfumato.execution.records import Record, RecordFile, failed
from sfumato.execution.worker import Job

SYNC_SECONDS = 1.0

CHUNK_SECONDS = 0.2
"""Quick items travel together, about this long, so that handing them over costs next to nothing."""

MAX_CHUNK = 256

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""That stop a run."""

DEATHS = 2
"""A worker that dies may have been killed for another's sake; the second death is the item's own failure."""

MACHINE_LOSSES = 3
"""How often items go back to the workers after a machine under them was lost, before the run leaves them."""


NUMBER = re.compile(r"\d+")
"""Reasons that differ only by numbers are one reason."""

NO_LOCKS = (
    "the file system has no locks, so nothing keeps another run from writing here; "
    "do not start two runs into one folder"
)

SAME_FAILURES = 20
"""So many items failing for one reason end a run, if as many from all over it do too and none succeeds."""


@dataclass(frozen=True)
class Item:
    """One unit of work and of record.

    Args:
        key: the hash of everything that decides its result.
        payload: what a worker gets.
        kind: of work; items of one chunk are of one kind.
    """

    key: str
    payload: Any
    kind: str = ""


Chunk = tuple[Item, ...]
Watch = Callable[["Tally"], None]


@dataclass
class Tally:
    """How far a run is.

    Args:
        total: items of the run.
        skipped: those that were in the record file already.
        done: those that got a record.
        failed: those of `done` that failed.
        seconds: since the run began.
        last_failure: its reason.
        warning: what the user should know, empty if there is nothing.
        note: how far the items at work are, where they take long.
    """

    total: int
    skipped: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_failure: str = ""
    warning: str = ""
    note: str = ""

    def count(self, records: Iterable[Record], seconds: float) -> None:
        """Take note of finished items, `seconds` after the run began."""
        self.seconds = seconds
        self.note = ""
        for record in records:
            self.done += 1
            if record["status"] != "ok":
                self.failed += 1
                self.last_failure = record["reason"]

    @property
    def rate(self) -> float:
        """Items per second of this run, not counting the skipped ones."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the rate; None before the first item."""
        return (self.total - self.skipped - self.done) / self.rate if self.done else None


class Stopped(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C, SIGTERM, SIGHUP); everything finished is in the record file."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class UnfinishedError(ValueError):
    """Items were lost again and again with the machines they ran on; they have no record, only delay."""


class SameFailureError(ValueError):
    """Everything failed for one reason, so the run was not continued; what was tried is recorded."""


def run(
    job: Job,
    items: Sequence[Item],
    file: RecordFile,
    *,
    chunk: int = 1,
    pool: Executor = PoolSettings(),  # noqa: B008 (frozen)
    retry_failed: bool = False,
    keep_going: bool = False,
    watch: Watch = lambda tally: None,
) -> Tally:
    """Work on every item that has no record yet.

    Args:
        job: builds the function that turns a chunk of items into their records.
        items: all items of the run; those with a record in `file` are skipped.
        file: open for appending.
        chunk: items handed to a worker at once, at least; more where they take under `CHUNK_SECONDS`.
        pool: who works: processes here (`PoolSettings`) or pilot jobs (`ParslSettings`).
        retry_failed: work again on items whose record is a failure.
        keep_going: work on all items even where everything fails for one reason.
        watch: called after every chunk with the tally so far.

    Returns:
        The final tally.

    Raises:
        Stopped: on SIGINT, SIGTERM or SIGHUP; everything finished is in the record file.
        OSError: the disk is full or gone, or the record file; everything appended before is kept.
        SameFailureError: `SAME_FAILURES` items failed for one reason, as many from all over the run did so
            too, and none succeeded, now or in an earlier run.
        UnfinishedError: all else is done, but some items were lost with their machines; run again.
        ValueError: the workers cannot be started.
    """
    todo = [item for item in _unique(items) if wanted(file.records.get(item.key), retry_failed)]
    total = len({item.key for item in items})
    tally = Tally(total, skipped=total - len(todo), warning="" if file.locked else NO_LOCKS)
    watch(tally)
    start = synced = time.perf_counter()
    tasks = _Tasks(todo, Pace(chunk))
    outlook = _Outlook(keep_going or _any_ok(file, items))
    with stop_signals(), closing(pool.map(job, tasks, file.path.with_suffix(".logs"))) as results:
        for task, result in results:
            records = tasks.settle(task, result)
            file.append(records)
            now = time.perf_counter()
            if now - synced > SYNC_SECONDS:
                file.sync()
                synced = now
            tally.count(records, now - start)
            watch(tally)
            if outlook.is_hopeless(records, tasks):
                raise _same_failure(tally)
    file.sync()
    if tasks.undone:
        raise UnfinishedError(
            f"{len(tasks.undone)} items were lost {MACHINE_LOSSES} times with the machine they ran on "
            f"(last: {tasks.last_loss}); all else is done. The same command tries them again."
        )
    return tally


def _any_ok(file: RecordFile, items: Iterable[Item]) -> bool:
    return any(file.records.get(item.key, {}).get("status") == "ok" for item in items)


def _same_failure(tally: Tally) -> SameFailureError:
    return SameFailureError(
        f"every one of the {tally.done} items that were tried, of {tally.total}, failed for the same reason: "
        f"{tally.last_failure}. The others were left. --retry-failed tries again once the cause is removed, "
        "--keep-going works on all of them nevertheless"
    )


@dataclass
class _Outlook:
    """Whether anything can still come of a run.

    Args:
        fine: something succeeded, or it does not matter.
    """

    fine: bool
    reason: str | None = None
    count: int = 0
    probes: set[str] | None = None

    def is_hopeless(self, records: Iterable[Record], tasks: _Tasks) -> bool:
        """Take note of records; return whether everything fails, also what lies far from the first items.

        The first items are often of one molecule, whose element a model does not know; so before a run ends,
        others are tried.
        """
        for record in records:
            if self.fine:
                return False
            reason = NUMBER.sub("#", record["reason"]) if record["status"] != "ok" else None
            self.fine = reason is None or self.reason not in (None, reason)
            self.reason = reason
            self.count += 1
            if self.probes is not None:
                self.probes.discard(record["key"])
        if self.fine or self.count < SAME_FAILURES:
            return False
        if self.probes is None:
            self.probes = tasks.spread(SAME_FAILURES)
        return not self.probes and tasks.left


class _Tasks:
    """The chunks of a run: new ones at the learned pace, then those that were lost."""

    def __init__(self, todo: Sequence[Item], pace: Pace) -> None:
        self.pace = pace
        self.undone: list[Item] = []
        self.last_loss = ""
        self._todo = deque(todo)
        self._fresh = pace.chunks(self._todo)
        self._again: deque[Chunk] = deque()
        self._losses: Counter[tuple[str, str]] = Counter()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if (chunk := next(self._fresh, None)) is not None:
            return chunk
        if self._again:
            return self._again.popleft()
        raise StopIteration  # for now: a chunk in flight may be lost and come back

    @property
    def left(self) -> bool:
        """Whether there are items that were not handed out yet."""
        return bool(self._todo)

    def spread(self, count: int) -> set[str]:
        """Let the next items be so many from all over those that are left; return their keys."""
        items = list(self._todo)
        picked = {k * len(items) // count for k in range(count)} if items else set()
        first = [items[k] for k in sorted(picked)]
        self._todo.clear()
        self._todo.extend((*first, *(item for k, item in enumerate(items) if k not in picked)))
        return {item.key for item in first}

    def settle(self, chunk: Chunk, result: list[Record] | Lost) -> list[Record]:
        """Return the records to keep; what was lost is tried again, or at some point no more."""
        if not isinstance(result, Lost):
            self.pace.learn(result)
            return result
        losses = {item.key: self._count(item, result) for item in chunk}
        if result.culprit == "machine":
            self.last_loss = result.reason
            if max(losses.values()) < MACHINE_LOSSES:
                self._again.append(chunk)
            else:
                self.undone += chunk
        elif len(chunk) > 1:  # one by one, which shows whose fault it was
            self._again += [(item,) for item in chunk]
        elif result.culprit == "task" or losses[chunk[0].key] >= DEATHS:
            return [failed(chunk[0].key, result.reason)]
        else:
            self._again.append(chunk)
        return []

    def _count(self, item: Item, loss: Lost) -> int:
        self._losses[item.key, loss.culprit] += 1
        return self._losses[item.key, loss.culprit]


def each(items: Chunk, work: Callable[[Item], Record]) -> list[Record]:
    """Call `work` on each item; an exception becomes that item's failure record."""
    return [_guarded(item, work) for item in items]


def _guarded(item: Item, work: Callable[[Item], Record]) -> Record:
    start = time.perf_counter()
    try:
        return work(item)
    except Exception as error:  # noqa: BLE001 (a failed item is a record with its reason, whatever it was)
        reason = "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        return failed(item.key, reason, seconds=seconds, traceback=traceback.format_exc(limit=-4))


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Stopped` while the block runs, those ignored before excepted.

    Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for each_signal in before:  # a second Ctrl-C must not interrupt the clean-up
            signal.signal(each_signal, signal.SIG_IGN)
        raise Stopped(number)

    before = {
        number: signal.signal(number, stop)
        for number in (getattr(signal, name, None) for name in SIGNALS)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wanted(record: Record | None, retry_failed: bool) -> bool:
    """Return whether an item with this record, or with none, is still to be worked on."""
    return record is None or (retry_failed and record["status"] != "ok")


def _unique(items: Iterable[Item]) -> Iterator[Item]:
    """Each key once: two frames of one geometry are one piece of work."""
    seen: set[str] = set()
    for item in items:
        if item.key not in seen:
            seen.add(item.key)
            yield item


@dataclass
class Pace:
    """How many items travel together: learned from the seconds of the last ones."""

    least: int
    size: int = 0

    def learn(self, records: list[Record]) -> None:
        """Take note of how long items take; grow step by step, for the next items may be slower."""
        seconds = [record["seconds"] for record in records if record["status"] == "ok"]
        if seconds:
            mean = sum(seconds) / len(seconds)
            fitting = CHUNK_SECONDS / mean if mean > 0 else MAX_CHUNK
            self.size = int(min(fitting, MAX_CHUNK, 2 * max(self.least, self.size)))

    def chunks(self, items: deque[Item]) -> Iterator[Chunk]:
        """Take chunks of one kind off the left of items, each as large as the pace at that moment says."""
        while items:
            chunk = [items.popleft()]
            size = max(self.least, self.size)
            while items and len(chunk) < size and items[0].kind == chunk[0].kind:
                chunk.append(items.popleft())
            yield tuple(chunk)
