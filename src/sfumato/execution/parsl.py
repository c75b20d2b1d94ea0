"""Run tasks in pilot jobs that Parsl keeps on a cluster (Slurm, PBS, …) or on this machine.

In every Parsl worker a task runs through a local pool of one process, so that limits, recycling and crashes
are the same as on this machine. A lost pilot gives its tasks back as `Lost`; Parsl starts the next one.
"""

from __future__ import annotations

import atexit
import functools
import logging
import math
import os
import pickle
import queue
import runpy
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sfumato.execution.pool import Lost, PoolSettings, Results, Task, run_pool
from sfumato.execution.worker import SAFE_PATH, Job, environment

WINDOW = 256
"""Tasks in flight at least; twice the number of workers, where that is more."""

CHECK_SECONDS = 5.0
"""How often a silent Parsl is asked whether it is still there."""

PARSL_BEATS = (30, 120)
"""Period and threshold in seconds of the heartbeats between pilots and driver, where nobody chose others."""

BEATS = (5, 30)
"""What they become: pilots of a driver that was killed should not keep their nodes for two minutes."""

INTERCHANGE = "parsl.executors.high_throughput.interchange"


class PilotError(ValueError):
    """The pilot jobs of a Parsl configuration do not run."""


@dataclass(frozen=True)
class ParslSettings:
    """Pilot jobs as a Parsl configuration describes them.

    Args:
        config: Python file that defines `config`: a `parsl.config.Config`, or a function that returns one.
        limits: threads, timeout, memory, recycle and at most one device of each worker; how many there are
            is Parsl's affair.

    Raises:
        ValueError: several devices.
    """

    config: Path
    limits: PoolSettings = field(default_factory=PoolSettings)

    def __post_init__(self) -> None:
        if len(self.limits.devices) > 1:
            raise ValueError(
                f"devices {', '.join(self.limits.devices)}: name one; which of a node's devices each worker "
                "sees is the affair of Parsl (available_accelerators)"
            )

    def map(self, job: Job, tasks: Iterable[Task], scratch: Path) -> Results[Task]:
        """Run tasks in pilot jobs, as `Executor.map` says; Parsl's logs go to `scratch`.

        Raises:
            PilotError: pilot after pilot fails.
            ValueError: Parsl is missing, or the file gives no configuration.
        """
        config = load_config(self.config)
        config.run_dir = str(scratch.resolve())
        limits = replace(self.limits, workers=1)
        with _log(config), _kernel(config) as kernel:
            yield from _drain(kernel, pickle.dumps(job), iter(tasks), limits)


def load_config(path: Path) -> Any:
    """Return the Parsl configuration that a user's file defines.

    Raises:
        ValueError: Parsl is missing, or the file is missing, fails, or defines no configuration with pilots.
    """
    try:
        from parsl.config import Config
        from parsl.executors.status_handling import BlockProviderExecutor
    except ImportError:
        raise ValueError("Parsl is not installed; install it with: pip install 'sfumato[cluster]'") from None
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; it should define `config`, a parsl.config.Config")
    try:
        config = runpy.run_path(str(path)).get("config")
        if callable(config):
            config = config()
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        found = "nothing" if config is None else f"a {type(config).__name__}"
        raise ValueError(
            f"{path}: `config` must be a parsl.config.Config or a function that returns one, found {found}"
        )
    for executor in config.executors:
        if not isinstance(executor, BlockProviderExecutor):
            raise ValueError(
                f"{path}: the executor {executor.label!r} starts no pilot jobs; use a HighThroughputExecutor"
            )
    return config


@contextmanager
def _kernel(config: Any) -> Iterator[Any]:
    """Start Parsl, and whatever happens end its processes."""
    from parsl.dataflow.dflow import DataFlowKernel
    from parsl.jobs.error_handlers import simple_error_handler, windowed_error_handler

    for executor in config.executors:
        if executor.block_error_handler is simple_error_handler:  # gives up when the first pilot is killed
            executor.block_error_handler = windowed_error_handler
        if getattr(executor, "interchange_launch_cmd", None) == ["interchange.py"]:
            executor.interchange_launch_cmd = [sys.executable, "-P", "-m", __name__]
        if (executor.heartbeat_period, executor.heartbeat_threshold) == PARSL_BEATS:
            executor.heartbeat_period, executor.heartbeat_threshold = BEATS
    # Pilots inherit the path and find Parsl's programs beside this Python, without an activated environment.
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    kernel = None
    with environment({"PATH": os.pathsep.join(path), SAFE_PATH: "1"}):
        try:
            kernel = DataFlowKernel(config)
            yield kernel
        finally:
            if kernel is not None and all(map(_alive, config.executors)):
                kernel.cleanup()
            else:  # it is not all there, and asking what is missing would wait for ever
                for executor in config.executors:
                    executor.provider.cancel(list(executor.blocks_to_job_id.values()))
                    if getattr(executor, "interchange_proc", None):
                        executor.interchange_proc.kill()


@contextmanager
def _log(config: Any) -> Iterator[None]:
    """Write Parsl's log in its folder; Parsl's own way leaves the file open and the loggers changed."""
    if config.initialize_logging is not True:  # the user's affair
        yield
        return
    config.initialize_logging = False
    folder = Path(config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "parsl.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(threadName)s %(levelname)s: %(message)s"))
    logger = logging.getLogger("parsl")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


def _drain(kernel: Any, job: bytes, tasks: Iterator[Task], limits: PoolSettings) -> Results[Task]:
    """Keep a window of tasks in flight."""
    from parsl import python_app

    app = python_app(work, data_flow_kernel=kernel)
    window = max(WINDOW, 2 * sum(map(_workers, kernel.config.executors)))
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    flying: dict[Any, Task] = {}
    while True:
        for task in islice(tasks, window - len(flying)):
            future = app(job, task, limits)
            flying[future] = task
            future.add_done_callback(done.put)
        if not flying:
            return
        future = _next(done, kernel)
        yield flying.pop(future), _result(future, kernel)


def _next(done: queue.SimpleQueue[Any], kernel: Any) -> Any:
    """Wait for the next future, as long as one may come."""
    while True:
        try:
            return done.get(timeout=CHECK_SECONDS)
        except queue.Empty:
            for executor in kernel.config.executors:
                if not _alive(executor):
                    raise _broken(kernel, f"Parsl's interchange of {executor.label!r} ended") from None
                blocks = executor.status_facade.values()
                if kernel.config.strategy == "none" and blocks and all(block.terminal for block in blocks):
                    what = f"all pilot jobs of {executor.label!r} ended, and its strategy starts no others"
                    raise _broken(kernel, what) from None


def _result(future: Any, kernel: Any) -> Any | Lost:
    from parsl.executors.errors import ExecutorError
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost
    from parsl.jobs.errors import TooManyJobFailuresError

    try:
        return future.result()
    except (ManagerLost, WorkerLost) as error:
        return Lost(str(error), "machine")
    except (ExecutorError, TooManyJobFailuresError) as error:
        raise _broken(kernel, f"pilot job after pilot job fails: {error}") from None


def _broken(kernel: Any, what: str) -> PilotError:
    advice = "All that finished is kept; the same command goes on from there."
    return PilotError(f"{what.strip()} (Parsl's logs: {kernel.run_dir}). {advice}")


def _alive(executor: Any) -> bool:
    """Whether an executor's interchange runs, where it has one."""
    process = getattr(executor, "interchange_proc", None)
    return process is None or process.poll() is None


def _workers(executor: Any) -> int:
    """How many workers an executor can have at once, as far as its configuration tells."""
    provider = executor.provider
    blocks = getattr(provider, "max_blocks", 1) * getattr(provider, "nodes_per_block", 1)
    return math.ceil(blocks * getattr(executor, "workers_per_node", 1))


def work(job: bytes, task: Any, limits: PoolSettings) -> Any | Lost:
    """Run a task in the one worker process that this Parsl worker keeps."""
    return _kept(job, limits)(task)


@functools.cache
def _kept(job: bytes, limits: PoolSettings) -> Callable[[Any], Any | Lost]:
    """Return a function that runs tasks in a worker process that stays.

    When the pilot's manager is gone, its results lead nowhere: the whole pilot ends, at once.
    """
    os.environ.pop(SAFE_PATH, None)  # it was for the start of Parsl's processes, not for a job's programs
    exit_with(os.getppid())
    inbox: deque[Any] = deque()
    results = run_pool(pickle.loads(job), _Inbox(inbox), limits)

    def run_one(task: Any) -> Any | Lost:
        inbox.append(task)
        return next(results)[1]

    return run_one


@dataclass(frozen=True)
class _Inbox:
    """Tasks as they come: empty now is not the end."""

    tasks: deque[Any]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.tasks:
            raise StopIteration
        return self.tasks.popleft()


def _interchange() -> None:
    """Run Parsl's interchange so that it ends with the driver, however that ends, and with nothing else.

    By itself it would outlive a killed driver and keep the pilots, and it would die of the Ctrl-C that
    reaches every process at a terminal, before the driver has cancelled them.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with(os.getppid())
    runpy.run_module(INTERCHANGE, run_name="__main__", alter_sys=True)


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


if __name__ == "__main__":
    _interchange()
