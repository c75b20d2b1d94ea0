"""Run items through workers into a record file: skip what is there, keep what comes, stop cleanly."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any

from sfumato.execution.pool import Job, Lost, PoolSettings, run_pool
from sfumato.execution.records import Record, RecordFile, failed

SYNC_SECONDS = 1.0

CHUNK_SECONDS = 0.2
"""Quick items travel together, about this long, so that handing them over costs next to nothing."""

MAX_CHUNK = 256


@dataclass(frozen=True)
class Item:
    """One unit of work and of record: `key` is the hash of everything that decides its result."""

    key: str
    payload: Any


Chunk = tuple[Item, ...]
Watch = Callable[["Tally"], None]


@dataclass
class Tally:
    """How far a run is. `skipped` items were in the record file already; `failed` counts among `done`."""

    total: int
    skipped: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_failure: str = ""

    @property
    def rate(self) -> float:
        """Items per second of this run, not counting the skipped ones."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the rate; None before the first item."""
        return (self.total - self.skipped - self.done) / self.rate if self.done else None


class Stopped(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or SIGTERM); everything finished is in the record file."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def run(
    job: Job,
    items: Sequence[Item],
    file: RecordFile,
    *,
    chunk: int = 1,
    pool: PoolSettings = PoolSettings(),  # noqa: B008 (frozen)
    retry_failed: bool = False,
    watch: Watch = lambda tally: None,
) -> Tally:
    """Work on every item that has no record yet.

    Args:
        job: builds the function that turns a chunk of items into their records.
        items: all items of the run; those with a record in `file` are skipped.
        file: open for appending.
        chunk: items handed to a worker at once, at least; more where they take under `CHUNK_SECONDS`.
        pool: workers, threads, limits.
        retry_failed: work again on items whose record is a failure.
        watch: called after every chunk with the tally so far.

    Returns:
        The final tally.

    Raises:
        Stopped: on SIGINT or SIGTERM, after the record file was synced.
        OSError: the disk is full or gone; everything appended before is kept.
    """
    todo = [item for item in _unique(items) if _wanted(file.records.get(item.key), retry_failed)]
    total = len({item.key for item in items})
    tally = Tally(total=total, skipped=total - len(todo))
    watch(tally)
    start = synced = time.perf_counter()
    with stop_signals():
        for records in _results(job, todo, Pace(chunk), pool):
            file.append(records)
            now = time.perf_counter()
            if now - synced > SYNC_SECONDS:
                file.sync()
                synced = now
            tally.seconds = now - start
            tally.done += len(records)
            for record in records:
                if record["status"] != "ok":
                    tally.failed += 1
                    tally.last_failure = record["reason"]
            watch(tally)
    file.sync()
    return tally


def _results(job: Job, todo: Sequence[Item], pace: Pace, pool: PoolSettings) -> Iterator[list[Record]]:
    """Yield records chunk by chunk; items lost together with a worker are tried again one by one."""
    suspects: list[Item] = []
    for task, result in run_pool(job, pace.chunks(todo), pool):
        if not isinstance(result, Lost):
            pace.learn(result)
            yield result
        elif len(task) > 1:
            suspects += task
        else:
            yield [failed(task[0].key, result.reason)]
    if suspects:
        yield from _results(job, suspects, Pace(1, alone=True), pool)


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
    """Turn SIGINT and SIGTERM into `Stopped` while the block runs; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for each_signal in before:  # a second Ctrl-C must not interrupt the clean-up
            signal.signal(each_signal, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wanted(record: Record | None, retry_failed: bool) -> bool:
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
    alone: bool = False

    def learn(self, records: list[Record]) -> None:
        """Take note of how long items take."""
        seconds = sum(record["seconds"] for record in records) / len(records)
        fitting = CHUNK_SECONDS / seconds if seconds > 0 else MAX_CHUNK
        self.size = 1 if self.alone else int(min(fitting, MAX_CHUNK))

    def chunks(self, items: Iterable[Item]) -> Iterator[Chunk]:
        """Cut items into chunks, each as large as the pace at that moment says."""
        iterator = iter(items)
        while chunk := tuple(islice(iterator, max(self.least, self.size))):
            yield chunk
