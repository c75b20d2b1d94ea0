"""The pool keeps its promises whatever happens in a worker: limits, recycling, deaths, no orphans."""

import ctypes
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sfumato.execution import worker
from sfumato.execution.pool import Lost, PoolSettings, effective_workers, run_pool
from sfumato.execution.records import ok
from sfumato.execution.runner import Item, each
from sfumato.execution.worker import GIB, resident
from tests import ROOT


class Unreadable:
    """Can be pickled but not read back."""

    def __reduce__(self):
        return int, ("no number",)


class UnreadableError(Exception):
    """Takes something unreadable along, which no way of pickling exceptions can help."""

    def __init__(self, first):
        super().__init__(first)
        self.luggage = Unreadable()


@dataclass(frozen=True)
class Does:
    """Does what the task says; `folder` is where it leaves traces."""

    folder: Path = Path()

    def build(self, device):
        return self.work

    def work(self, task):
        if isinstance(task, np.ndarray):
            return task.sum(), task
        match task:
            case "pid":
                return os.getpid()
            case "abort":
                os.abort()
            case "raise":
                raise UnreadableError(1)
            case "leave":
                raise SystemExit(3)
            case "program":
                program = subprocess.Popen(["sleep", "60"])
                (self.folder / "program").write_text(str(program.pid))
                time.sleep(60)
            case _:
                return os.getpid(), len(task)


@dataclass(frozen=True)
class Allocates:
    """Holds so many GiB for a moment: filled, only reserved, or filled by a program it starts."""

    def build(self, device):
        def one(item):
            how, gib = item.payload
            count = int(gib * GIB / 8)
            if how == "program":
                code = f"import numpy, time; a = numpy.ones({count}); time.sleep(2)"
                subprocess.run([sys.executable, "-c", code], check=True)
            else:
                array = np.empty(count) if how == "reserved" else np.ones(count)
                time.sleep(2)
                del array
            return ok(item.key, seconds=1.0)

        return lambda chunk: each(chunk, one)


@dataclass(frozen=True)
class Starts:
    """Ends while it is being built, as often as `times` says."""

    log: Path
    times: int

    def build(self, device):
        with open(self.log, "a") as log:
            log.write("start\n")
        if len(self.log.read_text().split()) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return lambda task: task


@dataclass(frozen=True)
class Unbuildable:
    def build(self, device):
        raise ValueError("no such model")


class Growing:
    """Tasks that may run dry and come again."""

    def __init__(self, *tasks):
        self.tasks = deque(tasks)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.tasks:
            raise StopIteration
        return self.tasks.popleft()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, seconds=5.0):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_memory_really_held_beyond_the_limit_is_a_loss_that_names_it_and_the_pool_goes_on():
    wanted = [("filled", 0.5), ("reserved", 4.0), ("program", 0.5), ("filled", 0.05)]
    tasks = [(Item(str(k), payload),) for k, payload in enumerate(wanted)]
    settings = PoolSettings(2, memory=0.4)
    results = {chunk[0].payload: result for chunk, result in run_pool(Allocates(), tasks, settings)}
    for payload in (("filled", 0.5), ("program", 0.5)):
        assert results[payload].culprit == "task"
        assert re.fullmatch(r"out of memory: limit 0.4 GiB, 0\.\d\d GiB in use", results[payload].reason)
    assert results["reserved", 4.0][0]["status"] == results["filled", 0.05][0]["status"] == "ok"


def test_what_a_process_holds_is_measured():
    before = resident(os.getpid())
    array = np.ones(GIB // 32)
    assert resident(os.getpid()) - before == pytest.approx(0.25, abs=0.05)
    del array
    assert resident(2**22 + 1) == 0


def test_a_death_is_told_by_its_signal():
    ((_, lost),) = run_pool(Does(), ["abort"], PoolSettings(1))
    assert lost == Lost("the worker process was killed by SIGABRT", "worker")


def test_workers_are_recycled_after_so_many_items_in_whatever_chunks():
    chunks = [("a", "b"), ("c",), ("d", "e", "f"), ("g",), ("h", "i", "j")]
    results = [result for _, result in run_pool(Does(), chunks, PoolSettings(1, recycle=3))]
    pids = [pid for pid, _ in results]
    assert [size for _, size in results] == [2, 1, 3, 1, 3]
    assert pids[0] == pids[1]
    assert pids[3] == pids[4]
    assert len(set(pids)) == 3
    assert all(not alive(pid) for pid in pids)


def test_programs_that_a_worker_started_end_with_it(tmp_path):
    ((_, lost),) = run_pool(Does(tmp_path), ["program"], PoolSettings(1, timeout=1.5))
    assert lost == Lost("timed out after 1.5 s", "task")
    assert gone(int((tmp_path / "program").read_text()))


def test_a_worker_killed_while_idle_costs_no_task():
    tasks = Growing("pid")
    results = run_pool(Does(), tasks, PoolSettings(1))
    _, first = next(results)
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    time.sleep(0.5)  # under load its end of the pipe closes a moment later
    tasks.tasks.append("pid")
    _, second = next(results)
    assert isinstance(second, int)
    assert second != first
    assert list(results) == []


def test_tasks_are_asked_again_after_they_ran_dry():
    tasks = Growing(("a",), ("b",))
    seen = []
    for task, _ in run_pool(Does(), tasks, PoolSettings(2)):
        seen.append(task[0])
        if len(seen) == 2:
            tasks.tasks.append(("c",))
    assert sorted(seen) == ["a", "b", "c"]


def test_tasks_and_results_larger_than_a_pipe_pass_both_ways_at_once():
    arrays = [np.full(300_000, float(k)) for k in range(6)]
    results = [result for _, result in run_pool(Does(), arrays, PoolSettings(2))]
    assert sorted(total / 3e5 for total, _ in results) == [0, 1, 2, 3, 4, 5]
    assert all(back.shape == (300_000,) for _, back in results)


def test_a_worker_killed_while_it_starts_is_started_again(tmp_path):
    ((task, result),) = run_pool(Starts(tmp_path / "log", 2), ["x"], PoolSettings(1))
    assert (task, result) == ("x", "x")


def test_workers_that_never_start_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="no worker process can be started: 3 in a row ended with code -9"):
        list(run_pool(Starts(tmp_path / "log", 99), ["x"], PoolSettings(1)))


def test_what_the_job_raises_reaches_the_driver_with_its_traceback():
    with pytest.raises(ValueError, match="no such model") as caught:
        list(run_pool(Unbuildable(), ["x"], PoolSettings(1)))
    assert "in build" in caught.value.__notes__[0]


@pytest.mark.parametrize(("task", "text"), [("raise", "UnreadableError: 1"), ("leave", "SystemExit: 3")])
def test_what_cannot_pass_the_pipe_or_must_not_end_the_driver_is_told(task, text):
    with pytest.raises(ValueError, match="no number"):
        pickle.loads(pickle.dumps(UnreadableError(1)))
    with pytest.raises(RuntimeError, match=text):
        list(run_pool(Does(), [task], PoolSettings(1)))


def test_an_abandoned_pool_leaves_no_process():
    results = run_pool(Does(), [("a",), ("b",), ("c",), ("d",)], PoolSettings(2))
    _, (pid, _) = next(results)
    results.close()
    assert gone(pid)


@pytest.mark.parametrize("bad", [{"timeout": 0}, {"memory": -1.0}, {"memory": float("nan")}])
def test_limits_are_positive(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} > 0 is needed"):
        PoolSettings(**bad)


@dataclass(frozen=True)
class Tells:
    """Returns the device and the process that worked on a task."""

    def build(self, device):
        def work(task):
            time.sleep(0.1)
            return device, os.getpid()

        return work


def test_workers_are_bound_to_devices_and_a_replaced_one_takes_the_freed_device():
    tasks = Growing(*range(4))
    results = run_pool(Tells(), tasks, PoolSettings(2, devices=("cpu:0", "cpu:1")))
    first = {device: pid for _, (device, pid) in (next(results) for _ in range(4))}
    assert set(first) == {"cpu:0", "cpu:1"}
    os.kill(first["cpu:1"], signal.SIGKILL)
    assert gone(first["cpu:1"])
    tasks.tasks.extend(range(6))
    answers = [result for _, result in results if not isinstance(result, Lost)]
    second = dict(answers)
    assert second["cpu:0"] == first["cpu:0"]
    assert second["cpu:1"] != first["cpu:1"]
    assert {pid for device, pid in answers if device == "cpu:1"} == {second["cpu:1"]}


def test_more_workers_than_devices_share_them_evenly():
    settings = PoolSettings(3, devices=("a", "b"))
    pids = {pid: device for _, (device, pid) in run_pool(Tells(), range(12), settings)}
    assert sorted(pids.values()) in (["a", "a", "b"], ["a", "b", "b"])


@pytest.mark.parametrize("workers", [0, 1])
def test_without_devices_models_choose_by_themselves(workers):
    assert [device for _, (device, _) in run_pool(Tells(), [1], PoolSettings(workers))] == [""]
    settings = PoolSettings(workers, devices=("x", "y"))
    assert [device for _, (device, _) in run_pool(Tells(), [1], settings)] == ["x"]


def test_a_plan_scales_by_cores_and_not_by_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert effective_workers(64, 1) == 4
    assert effective_workers(64, 3) == pytest.approx(4 / 3)
    assert effective_workers(2, 1) == 2
    assert effective_workers(0, 8) == effective_workers(3, 8) == 1


HOSTILE = (
    "signal",
    "struct",
    "types",
    "re",
    "select",
    "array",
    "enum",
    "json",
    "selectors",
    "subprocess",
    "numpy",
)


def hostile_folder(folder):
    """Files with the names of modules, which leave a line where they are imported."""
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(
            f"with open({str(folder / 'EXECUTED')!r}, 'a') as log:\n    log.write('{name} ')\n"
        )
    return folder


def test_nothing_is_imported_from_the_working_folder(tmp_path):
    folder = hostile_folder(tmp_path / "work")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "script.py").write_text(
        "import os, subprocess, sys\n"
        "from dataclasses import dataclass\n"
        "from sfumato.execution.pool import PoolSettings, run_pool\n"
        "@dataclass(frozen=True)\n"
        "class Imports:\n"
        "    def build(self, device):\n"
        "        return self.work\n"
        "    def work(self, task):\n"
        "        import json, selectors, neighbor\n"
        "        return neighbor.VALUE, os.environ.get('PYTHONSAFEPATH')\n"
        "if __name__ == '__main__':\n"
        "    print(*run_pool(Imports(), [1, 2, 3], PoolSettings(2)))\n"
    )
    (tmp_path / "jobs" / "neighbor.py").write_text("VALUE = 'a module of the user'\n")
    command = [sys.executable, tmp_path / "jobs" / "script.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.count("('a module of the user', None)") == 3
    assert not (folder / "EXECUTED").exists()


def test_the_command_imports_nothing_from_the_working_folder(tmp_path):
    folder = hostile_folder(tmp_path / "work")
    command = [Path(sys.executable).with_name("sfumato"), "--version"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (folder / "EXECUTED").exists()


@dataclass(frozen=True)
class HoldsTheLock:
    """Runs C code that keeps the interpreter's lock, beside a program that it started."""

    folder: Path

    def build(self, device):
        return self.work

    def work(self, task):
        program = subprocess.Popen(["sleep", "60"])
        (self.folder / "pids").write_text(f"{os.getpid()} {program.pid} ")
        ctypes.PyDLL(None).sleep(60)


def test_a_worker_in_c_code_ends_with_a_killed_driver_and_so_do_its_programs(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.execution.test_pool import HoldsTheLock, PoolSettings, run_pool\n"
        "list(run_pool(HoldsTheLock(Path(sys.argv[1])), [1], PoolSettings(1)))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT)
    end = time.monotonic() + 60
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text().endswith(" "):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.2)
    driver.kill()
    driver.wait()
    assert all(gone(int(pid), 2.0) for pid in (tmp_path / "pids").read_text().split())


@dataclass(frozen=True)
class StopsItself:
    """Is stopped while it starts, as often as `times` says."""

    log: Path
    times: int

    def build(self, device):
        with open(self.log, "a") as log:
            log.write("start\n")
        if len(self.log.read_text().split()) <= self.times:
            os.kill(os.getpid(), signal.SIGSTOP)
        return lambda task: task


def test_a_worker_stopped_while_it_starts_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "START_SECONDS", 6.0)
    assert list(run_pool(StopsItself(tmp_path / "log", 1), ["x"], PoolSettings(1))) == [("x", "x")]
    monkeypatch.setattr(worker, "START_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"3 in a row were not ready after 0\.1 s"):
        list(run_pool(StopsItself(tmp_path / "log", 99), ["x"], PoolSettings(1)))


def test_a_recycled_worker_and_its_guard_are_gone_before_the_pool_ends():
    results = run_pool(Does(), [("a",), ("b",), ("c",)], PoolSettings(1, recycle=1))
    _, (first, _) = next(results)
    next(results)
    assert gone(first)
    assert gone_group(first)
    assert len(list(results)) == 1


def gone_group(leader, seconds=5.0):
    """Whether nothing is left of a process group after a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
