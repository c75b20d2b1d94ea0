"""A worker process, seen from both ends: what it does, and the handle by which its driver holds it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

SAFE_PATH = "PYTHONSAFEPATH"
"""Set for the start of a Python process, keeps the working folder out of the places it imports from."""

GIB = 2**30

START_SECONDS = 600.0
"""How long a worker may take until it is ready for its first task."""

LEAVE_SECONDS = 5.0
"""How long a worker that has nothing left to do may take to end by itself."""

GUARD = "read -r _; kill -9 0"
"""What a shell beside each worker does: wait for the end of its input, then end its process group."""

NOTHING = object()


class Job(Protocol):
    """What a worker does: picklable; built once in each worker, then called for every task."""

    def build(self, device: str) -> Callable[[Any], Any]:
        """Load the model or engine and return the function that works on one task.

        Args:
            device: where this worker computes, for example "cuda:1"; "" where no device was asked for.
        """
        ...


@dataclass(eq=False)
class Worker:
    """One process, the pipe to it, the device it computes on, and the task it has.

    Args:
        job: what it does.
        threads: how many it may use (OpenMP, MKL, OpenBLAS).
        seconds: that one task may take.
        device: see `Job.build`.
    """

    job: Job
    threads: int
    seconds: float = float("inf")
    device: str = ""
    task: Any = None
    items: int = 0
    ready: bool = False
    limit: float = field(init=False)
    deadline: float = field(init=False)
    pipe: Connection = field(init=False)
    process: SpawnProcess = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        lifeline, self._lifeline = context.Pipe(duplex=False)
        inherited = os.environ.get(SAFE_PATH)
        arguments = (theirs, lifeline, self.job, self.device, inherited)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        variables = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        with environment({**variables, SAFE_PATH: "1"}):
            self.process.start()
        theirs.close()
        lifeline.close()
        self._allow(START_SECONDS)

    def begin(self) -> None:
        """Work on the task; the process is ready for it."""
        self.ready = True
        self.items += len(self.task) if isinstance(self.task, Sized) else 1
        self._allow(self.seconds)
        try:
            self.pipe.send(self.task)
        except (BrokenPipeError, ConnectionResetError):  # it died while idle, and its pipe says so next
            self.ready = False

    def _allow(self, seconds: float) -> None:
        """Let it take so long from now on."""
        self.limit, self.deadline = seconds, time.monotonic() + seconds

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
        self._lifeline.close()
        return self.process.exitcode or 0


def _serve(pipe: Connection, lifeline: Connection, job: Job, device: str, safe_path: str | None) -> None:
    """Be a worker: build the job, say so, then answer one task after the other until the pipe closes.

    Args:
        pipe: to the driver.
        lifeline: is at its end when the driver is gone.
        job: what to do.
        device: where.
        safe_path: the variable as the driver has it, for the programs that the job starts.
    """
    os.setpgid(0, 0)  # a signal from the terminal reaches only the driver, which decides what it means
    _keep_open_files()
    _guard(lifeline)
    os.environ.pop(SAFE_PATH, None)
    if safe_path is not None:
        os.environ[SAFE_PATH] = safe_path
    try:
        work = job.build(device)
        pipe.send(("ready", None))
        while (task := _next_task(pipe)) is not NOTHING:
            pipe.send(("done", work(task)))
    except BaseException as error:  # noqa: BLE001 (the driver raises it)
        with suppress(OSError):  # the driver is gone
            pipe.send(("raised", _portable(error)))


def _keep_open_files() -> None:
    """Pass no open file on to the programs started here; held by them, a pipe would not say that it ended."""
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the folder itself was open for a moment
            os.set_inheritable(int(name), int(name) <= 2)


def _guard(lifeline: Connection) -> None:
    """Let this process group end at once when the driver is gone, however it ended.

    Another process does it: a thread would have to wait for C code that holds the interpreter's lock.
    """
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    actions = [(os.POSIX_SPAWN_DUP2, lifeline.fileno(), 0), *quiet]
    os.posix_spawn("/bin/sh", ["sh", "-c", GUARD], {}, file_actions=actions)
    lifeline.close()


def _next_task(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return NOTHING


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


def death(code: int) -> str:
    """Say how a worker process died, from its exit code."""
    if code >= 0:
        return f"the worker process exited with code {code}"
    hint = " (often: out of memory)" if code == -signal.SIGKILL else ""
    return f"the worker process was killed by {signal.Signals(-code).name}{hint}"


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
