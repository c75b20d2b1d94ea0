"""A local pool of worker processes that outlives whatever happens inside one of them.

A worker that dies, hangs or runs out of memory costs the task it was working on, which comes back as a `Lost`
with the reason; the pool starts a new worker and goes on.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pebble import ProcessExpired, ProcessPool

Task = TypeVar("Task")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Job(Protocol):
    """What a worker does: hashable and picklable; built once in each worker, then called for every task."""

    def __hash__(self) -> int: ...

    def build(self) -> Callable[[Any], Any]:
        """Load the model or engine and return the function that works on one task."""
        ...


@dataclass(frozen=True)
class Lost:
    """A task that ended with its worker; `reason` says how."""

    reason: str


@dataclass(frozen=True)
class PoolSettings:
    """How a pool runs.

    Args:
        workers: processes; 0 works in this process.
        threads: of each worker (OpenMP, MKL, OpenBLAS).
        timeout: seconds one task may take; None for no limit.
        recycle: tasks after which a worker is replaced by a fresh one; 0 for never.
    """

    workers: int = 1
    threads: int = 1
    timeout: float | None = None
    recycle: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1 or self.recycle < 0:
            raise ValueError(f"workers ≥ 0, threads ≥ 1 and recycle ≥ 0 are needed, got {self}")


def run_pool(job: Job, tasks: Iterable[Task], settings: PoolSettings) -> Iterator[tuple[Task, Any | Lost]]:
    """Yield each task with its result, in the order of completion.

    Args:
        job: what each worker does.
        tasks: taken one by one, never more than a few ahead of the workers.
        settings: number of workers, threads, limits.

    Raises:
        Exception: what `job.build()` or the task's function raised; a task that may fail returns its failure.
    """
    if settings.workers == 0:
        work = job.build()
        for task in tasks:
            yield task, work(task)
        return
    with _threads(settings.threads):
        pool = ProcessPool(
            max_workers=settings.workers,
            max_tasks=settings.recycle,
            initializer=_leave_signals_to_the_driver,
            context=multiprocessing.get_context("spawn"),
        )
        try:
            yield from _drain(pool, job, iter(tasks), settings)
            pool.close()
        finally:
            pool.stop()
            pool.join()


def _drain(
    pool: Any, job: Job, tasks: Iterator[Task], settings: PoolSettings
) -> Iterator[tuple[Task, Any | Lost]]:
    """Keep every worker busy with one more task waiting behind it."""
    pending: dict[Future[Any], Task] = {}
    while True:
        for task in itertools.islice(tasks, 2 * settings.workers - len(pending)):
            pending[pool.schedule(_work, args=(job, task), timeout=settings.timeout)] = task
        if not pending:
            return
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            yield pending.pop(future), _result(future, settings)


def _result(future: Future[Any], settings: PoolSettings) -> Any | Lost:
    try:
        return future.result()
    except TimeoutError:
        return Lost(f"timed out after {settings.timeout:g} s")
    except ProcessExpired as error:
        code = error.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        hint = " (often: out of memory)" if code == -signal.SIGKILL else ""
        return Lost(f"the worker process was {how}{hint}" if code < 0 else f"the worker process {how}")


@functools.cache
def _built(job: Job) -> Callable[[Any], Any]:
    return job.build()


def _work(job: Job, task: Any) -> Any:
    return _built(job)(task)


def _leave_signals_to_the_driver() -> None:
    """A terminal's Ctrl-C reaches every process; only the driver decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the thread variables that workers inherit, and put back what was there."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
