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
        chunk: items handed to a worker at once.
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
        for task, result in run_pool(job, _chunks(todo, chunk), pool):
            records = (
                [failed(item.key, result.reason) for item in task] if isinstance(result, Lost) else result
            )
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


def _chunks(items: Iterable[Item], size: int) -> Iterator[Chunk]:
    iterator = iter(items)
    while chunk := tuple(islice(iterator, size)):
        yield chunk
