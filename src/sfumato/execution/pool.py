"""A local pool of worker processes that outlives whatever happens inside one of them.

Each worker is one process at the end of its own pipe and shares nothing with the others. One that dies, hangs
or runs out of memory costs the task it was working on, which comes back as a `Lost` with the reason; a fresh
worker takes its place, on the device that became free.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sfumato.execution.worker import NOTHING, Job, Worker, death, resident

Task = TypeVar("Task")
Results = Generator[tuple[Task, Any], None, None]

FAILED_STARTS = 3
"""Workers that may end before they are ready, one after the other, before that is an error."""

LOOK_SECONDS = 0.25
"""How often the memory of workers is looked at, where it is limited."""


@dataclass(frozen=True)
class Lost:
    """A task that ended with its worker.

    Args:
        reason: how it ended.
        culprit: "task" if it ran out of its own time, "worker" if its process died while working on it,
            perhaps because of it, "machine" if the pilot job or node under the worker went away.
    """

    reason: str
    culprit: Literal["task", "worker", "machine"] = "worker"


class Executor(Protocol):
    """Whatever runs tasks: processes here (`PoolSettings`) or pilot jobs on a cluster (`ParslSettings`)."""

    def map(self, job: Job, tasks: Iterable[Task], scratch: Path) -> Results[Task]:
        """Yield each task with its result or a `Lost`, in the order of completion.

        Args:
            job: what each worker does.
            tasks: taken one by one as workers become free, and asked again while anything is in flight even
                after they ran dry: a lost task may come back through them.
            scratch: folder for the executor's own logs, made if needed.

        Raises:
            Exception: what `job.build` or the task's function raised; a task that may fail returns its
                failure.
            ValueError: no worker can be started.
        """
        ...


@dataclass(frozen=True)
class PoolSettings:
    """How a pool of processes on this machine runs.

    Args:
        workers: processes; 0 works in this process, without any limit.
        threads: of each worker (OpenMP, MKL, OpenBLAS).
        timeout: seconds one task may take; None for no limit.
        recycle: items after which a worker is replaced by a fresh one; 0 for never.
        memory: GiB one worker may hold, with the programs it started (needs Linux); None for no limit.
        devices: what workers compute on, for example ("cuda:0", "cuda:1"): each worker gets one of them, the
            one that the fewest others have; none are named where models choose by themselves.
    """

    workers: int = 1
    threads: int = 1
    timeout: float | None = None
    recycle: int = 0
    memory: float | None = None
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1 or self.recycle < 0:
            raise ValueError(f"workers ≥ 0, threads ≥ 1 and recycle ≥ 0 are needed, got {self}")
        for name in ("timeout", "memory"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} > 0 is needed, or None for no limit; got {value}")
        if self.memory is not None and not Path("/proc/self/statm").exists():
            raise ValueError("memory: this system does not tell what a process holds; leave the limit out")

    def map(self, job: Job, tasks: Iterable[Task], scratch: Path) -> Results[Task]:
        """Run tasks in processes of this machine, as `Executor.map` says; nothing is written to `scratch`."""
        return run_pool(job, tasks, self)


def effective_workers(workers: int, threads: int) -> float:
    """Return how many workers this machine's cores can really keep busy at once: what a plan scales by.

    Args:
        workers: asked for; 0 is this process.
        threads: of each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(1, workers), max(1.0, cores / threads))


def run_pool(job: Job, tasks: Iterable[Task], settings: PoolSettings) -> Results[Task]:
    """Yield each task with its result or a `Lost`, as `Executor.map` says."""
    if settings.workers == 0:
        work = job.build(settings.devices[0] if settings.devices else "")
        for task in tasks:
            yield task, work(task)
        return
    crew = _Crew(job, settings)
    iterator = iter(tasks)
    finished: list[tuple[Task, Any]] = []
    try:
        while crew.employ(iterator) or finished:
            yield from finished
            finished = crew.wait()
    finally:
        crew.dismiss()


class _Crew:
    """The workers of a pool; each has a task as long as there are any."""

    def __init__(self, job: Job, settings: PoolSettings) -> None:
        self.job, self.settings = job, settings
        self.workers: list[Worker] = []
        self.idle: list[Worker] = []
        self.leaving: list[Worker] = []
        self.failed_starts = 0
        self.next_look = 0.0

    def employ(self, tasks: Iterator[Any]) -> bool:
        """Give a task to every worker that is free or can be added; return whether any has one."""
        while len(self.workers) < self.settings.workers:
            task = next(tasks, NOTHING)
            if task is NOTHING:
                break
            self._give(task, self.idle.pop() if self.idle else self._hire())
        return bool(self.workers)

    def _hire(self) -> Worker:
        """Start a worker on the device that the fewest living ones have."""
        settings = self.settings
        used = Counter(worker.device for worker in (*self.workers, *self.idle))
        device = min(settings.devices, key=lambda name: used[name], default="")
        return Worker(self.job, settings.threads, settings.timeout or float("inf"), device)

    def _give(self, task: Any, worker: Worker) -> None:
        self.workers.append(worker)
        worker.task = task
        if worker.ready:
            worker.begin()

    def wait(self) -> list[tuple[Any, Any]]:
        """Return the tasks that end next with their results."""
        finished: list[tuple[Any, Any]] = []
        while self.workers and not finished:
            heard = set(wait([worker.pipe for worker in self.workers], self._patience()))
            look = self.settings.memory is not None and time.monotonic() >= self.next_look
            if look:
                self.next_look = time.monotonic() + LOOK_SECONDS
            for worker in list(self.workers):
                if worker.pipe in heard:
                    self._listen(worker, finished)
                elif not worker.ready and time.monotonic() >= worker.deadline:
                    self._replace(worker, f"were not ready after {worker.limit:g} s")
                elif reason := self._excess(worker, look):
                    worker.kill()
                    self.workers.remove(worker)
                    finished.append((worker.task, Lost(reason, "task")))
        return finished

    def _patience(self) -> float | None:
        """Seconds until something is to be looked at even if no worker says anything."""
        soonest = min(worker.deadline for worker in self.workers)
        if self.settings.memory is not None:
            soonest = min(soonest, self.next_look)
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _excess(self, worker: Worker, look: bool) -> str:
        """Say which limit a worker exceeds, or nothing."""
        if time.monotonic() >= worker.deadline:
            return f"timed out after {worker.limit:g} s"
        limit = self.settings.memory
        if look and limit is not None and (used := resident(worker.process.pid or 0)) > limit:
            return f"out of memory: limit {limit:g} GiB, {used:.2f} GiB in use"
        return ""

    def _listen(self, worker: Worker, finished: list[tuple[Any, Any]]) -> None:
        try:
            what, content = worker.pipe.recv()
        except (EOFError, OSError):
            what, content = "died", worker.end()
        if what == "ready":
            self.failed_starts = 0
            worker.begin()
        elif what == "raised":
            raise content
        elif what == "died":
            if worker.ready:
                self.workers.remove(worker)
                finished.append((worker.task, Lost(death(content))))
            else:
                self._replace(worker, f"ended with code {content} before their first task")
        else:
            self.workers.remove(worker)
            finished.append((worker.task, content))
            worn = self.settings.recycle and worker.items >= self.settings.recycle
            if worn:
                worker.pipe.close()
                self.leaving = [*(old for old in self.leaving if old.process.is_alive()), worker]
            else:
                self.idle.append(worker)

    def _replace(self, worker: Worker, what: str) -> None:
        """A worker that did not begin took nothing with it, but it must not go on like that."""
        worker.kill()
        self.workers.remove(worker)
        self.failed_starts += 1
        if self.failed_starts >= FAILED_STARTS:
            raise ValueError(
                f"no worker process can be started: {self.failed_starts} in a row {what}; "
                "what they said is above (a script needs `if __name__ == '__main__':`)"
            )
        self._give(worker.task, self._hire())

    def dismiss(self) -> None:
        """End all workers, at once where they are still working."""
        for worker in self.workers:
            worker.kill()
        for worker in self.idle:
            worker.pipe.close()
        for worker in (*self.idle, *self.leaving):
            worker.end()
