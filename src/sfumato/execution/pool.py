"""A local pool of worker processes that outlives whatever happens inside one of them.

Each worker is one process at the end of its own pipe and shares nothing with the others. One that dies, hangs
or runs out of memory costs the task it was working on, which comes back as a `Lost` with the reason; a fresh
worker takes its place.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

Task = TypeVar("Task")
Results = Generator[tuple[Task, Any], None, None]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

GIB = 2**30

FAILED_STARTS = 3
"""Workers that may end before they are ready, one after the other, before that is an error."""

LEAVE_SECONDS = 5.0
"""How long a worker that has nothing left to do may take to end by itself."""

LOOK_SECONDS = 0.25
"""How often the memory of workers is looked at, where it is limited."""

_NOTHING = object()


class Job(Protocol):
    """What a worker does: picklable; built once in each worker, then called for every task."""

    def build(self) -> Callable[[Any], Any]:
        """Load the model or engine and return the function that works on one task."""
        ...


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
            Exception: what `job.build()` or the task's function raised; a task that may fail returns its
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
    """

    workers: int = 1
    threads: int = 1
    timeout: float | None = None
    recycle: int = 0
    memory: float | None = None

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


def run_pool(job: Job, tasks: Iterable[Task], settings: PoolSettings) -> Results[Task]:
    """Yield each task with its result or a `Lost`, as `Executor.map` says."""
    if settings.workers == 0:
        work = job.build()
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
        self.workers: list[_Worker] = []
        self.idle: list[_Worker] = []
        self.leaving: list[_Worker] = []
        self.failed_starts = 0
        self.next_look = 0.0

    def employ(self, tasks: Iterator[Any]) -> bool:
        """Give a task to every worker that is free or can be added; return whether any has one."""
        while len(self.workers) < self.settings.workers:
            task = next(tasks, _NOTHING)
            if task is _NOTHING:
                break
            self._give(task, self.idle.pop() if self.idle else _Worker(self.job, self.settings))
        return bool(self.workers)

    def _give(self, task: Any, worker: _Worker) -> None:
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

    def _excess(self, worker: _Worker, look: bool) -> str:
        """Say which limit a worker exceeds, or nothing."""
        if time.monotonic() >= worker.deadline:
            return f"timed out after {self.settings.timeout:g} s"
        limit = self.settings.memory
        if look and limit is not None and (used := resident(worker.process.pid or 0)) > limit:
            return f"out of memory: limit {limit:g} GiB, {used:.2f} GiB in use"
        return ""

    def _listen(self, worker: _Worker, finished: list[tuple[Any, Any]]) -> None:
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
            self.workers.remove(worker)
            if worker.ready:
                finished.append((worker.task, Lost(_death(content))))
            else:
                self._start_again(worker.task, content)
        else:
            self.workers.remove(worker)
            finished.append((worker.task, content))
            worn = self.settings.recycle and worker.items >= self.settings.recycle
            if worn:
                worker.pipe.close()
                self.leaving = [*(old for old in self.leaving if old.process.is_alive()), worker]
            else:
                self.idle.append(worker)

    def _start_again(self, task: Any, code: int) -> None:
        """A worker that ended before it began took nothing with it, but it must not go on like that."""
        self.failed_starts += 1
        if self.failed_starts >= FAILED_STARTS:
            raise ValueError(
                f"no worker process can be started: {self.failed_starts} in a row ended with code {code} "
                "before their first task; what they said is above (a script needs "
                "`if __name__ == '__main__':`)"
            )
        self._give(task, _Worker(self.job, self.settings))

    def dismiss(self) -> None:
        """End all workers, at once where they are still working."""
        for worker in self.workers:
            worker.kill()
        for worker in self.idle:
            worker.pipe.close()
        for worker in (*self.idle, *self.leaving):
            worker.end()


@dataclass(eq=False)
class _Worker:
    """One process, the pipe to it, and the task it has."""

    job: Job
    settings: PoolSettings
    task: Any = None
    items: int = 0
    ready: bool = False
    deadline: float = float("inf")
    pipe: Connection = field(init=False)
    process: SpawnProcess = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.job, os.getpid()), daemon=True)
        with _threads(self.settings.threads):
            self.process.start()
        theirs.close()

    def begin(self) -> None:
        """Work on the task; the process is ready for it."""
        self.ready = True
        self.items += len(self.task) if isinstance(self.task, Sized) else 1
        self.deadline = time.monotonic() + (self.settings.timeout or float("inf"))
        try:
            self.pipe.send(self.task)
        except (BrokenPipeError, ConnectionResetError):  # it died while idle, and its pipe says so next
            self.ready = False

    def end(self) -> int:
        """Wait a little for the process to end by itself, then end it; return its exit code."""
        self.process.join(LEAVE_SECONDS)
        return self.kill()

    def kill(self) -> int:
        """End the process and the programs it started; return its exit code."""
        self.process.kill()
        self.process.join()
        if self.process.pid:
            with suppress(ProcessLookupError):  # nothing is left of the group it led
                os.killpg(self.process.pid, signal.SIGKILL)
        self.pipe.close()
        return self.process.exitcode or 0


def _death(code: int) -> str:
    """Say how a worker process died."""
    if code >= 0:
        return f"the worker process exited with code {code}"
    hint = " (often: out of memory)" if code == -signal.SIGKILL else ""
    return f"the worker process was killed by {signal.Signals(-code).name}{hint}"


def _serve(pipe: Connection, job: Job, parent: int) -> None:
    """Be a worker: build the job, say so, then answer one task after the other until the pipe closes."""
    os.setpgid(0, 0)  # a signal from the terminal reaches only the driver, which decides what it means
    exit_with(parent)
    try:
        work = job.build()
        pipe.send(("ready", None))
        while (task := _next_task(pipe)) is not _NOTHING:
            pipe.send(("done", work(task)))
    except BaseException as error:  # noqa: BLE001 (the driver raises it)
        with suppress(OSError):  # the driver is gone
            pipe.send(("raised", _portable(error)))


def _next_task(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return _NOTHING


def _portable(error: BaseException) -> BaseException:
    """Return an exception that survives the pipe, with its traceback as a note."""
    text = traceback.format_exc()
    try:
        if not isinstance(error, Exception):
            raise TypeError("an exit of the worker is none of the driver")
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (some exceptions cannot be pickled, or not read back)
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker process:\n{text}")
    return error


def exit_with(parent: int) -> None:
    """Let this process group end within a second of its parent process, however that ended."""

    def end() -> None:
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)

    def watch() -> None:
        while True:
            end()
            time.sleep(1.0)

    atexit.register(end)  # this process may see it first and leave the rest of its group behind
    threading.Thread(target=watch, daemon=True, name="exit with the parent").start()


def resident(pid: int) -> float:
    """Return the GiB of memory that a process and the programs it started really hold; 0 where it is gone.

    What is only reserved does not count, so no limit of the operating system will do: PySCF reserves
    gigabytes per thread that it never touches, others do so for thread stacks, allocator arenas or a GPU.
    """
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        families = [task.read_text().split() for task in folder.glob("task/*/children")]
    except OSError:
        return 0.0
    own = pages * os.sysconf("SC_PAGE_SIZE") / GIB
    return own + sum(resident(int(child)) for family in families for child in family)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the thread variables that workers inherit, and put back what was there."""
    with environment(dict.fromkeys(THREAD_VARIABLES, str(count))):
        yield


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started inside, and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
