"""The runner skips what is done, keeps what fails, and outlives its workers."""

import errno
import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfumato.execution.pool import Lost, PoolSettings, run_pool
from sfumato.execution.records import Header, RecordFile, failed, ok, read_records
from sfumato.execution.runner import Item, Pace, SameFailureError, Stopped, Tally, UnfinishedError, each, run

HEADER = Header("test", 1, "squares", "id")


@dataclass(frozen=True)
class Squares:
    """Squares numbers and leaves a line for every item it works on; strings say how to misbehave."""

    log: Path

    def build(self, device):
        def one(item):
            with open(self.log, "a") as log:
                log.write(item.key + "\n")
            match item.payload:
                case "raise":
                    raise ValueError("not a number")
                case "memory":
                    raise MemoryError
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "die once" if self.log.read_text().split().count(item.key) == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                case "die once":
                    return ok(item.key, seconds=1.0, value="alive")
                case "exit":
                    os._exit(3)
                case "hang":
                    time.sleep(60)
            return ok(item.key, seconds=1.0, value=item.payload**2, pid=os.getpid())

        return lambda chunk: each(chunk, one)


@pytest.fixture
def job(tmp_path):
    return Squares(tmp_path / "worked.txt")


@pytest.fixture
def file(tmp_path):
    with RecordFile(tmp_path / "records.jsonl", HEADER) as file:
        yield file


def items(*payloads):
    return [Item(f"k{i}", payload) for i, payload in enumerate(payloads)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chunk", [1, 3])
def test_every_item_gets_its_record(job, file, workers, chunk):
    tally = run(job, items(*range(7)), file, chunk=chunk, pool=PoolSettings(workers))
    assert {key: record["value"] for key, record in file.records.items()} == {f"k{i}": i**2 for i in range(7)}
    assert (tally.total, tally.done, tally.failed, tally.skipped) == (7, 7, 0, 0)
    assert read_records(file.path)[1] == file.records


def test_work_happens_in_other_processes_one_per_worker(job, file):
    run(job, items(*range(8)), file, pool=PoolSettings(2))
    pids = {record["pid"] for record in file.records.values()}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


def test_finished_items_are_not_worked_on_again(job, file):
    run(job, items(1, 2, 3), file)
    tally = run(job, items(1, 2, 3, 4), file)
    assert job.log.read_text().split() == ["k0", "k1", "k2", "k3"]
    assert (tally.skipped, tally.done) == (3, 1)


def test_one_key_is_one_piece_of_work(job, file):
    tally = run(job, [Item("same", 3), Item("same", 3)], file)
    assert (tally.total, tally.done) == (1, 1)


def test_a_failure_is_a_record_with_its_reason_and_is_retried_only_on_request(job, file):
    tally = run(job, items(1, "raise", "memory", 4), file, chunk=4)
    assert tally.failed == 2
    assert file.records["k1"]["reason"] == "ValueError: not a number"
    assert "in one" in file.records["k1"]["traceback"]
    assert file.records["k2"]["reason"] == "out of memory"
    assert file.records["k3"]["value"] == 16
    assert run(job, items(1, "raise", "memory", 4), file).done == 0
    mended = run(job, items(1, 2, 3, 4), file, retry_failed=True)
    assert (mended.done, mended.failed) == (2, 0)
    assert file.records["k1"]["value"] == 4


@pytest.mark.parametrize(
    ("payload", "reason"),
    [("die", "killed by SIGKILL.*memory"), ("exit", "exited with code 3"), ("hang", "timed out after 2 s")],
)
def test_a_lost_worker_costs_only_the_item_it_had(job, file, payload, reason):
    tally = run(job, items(1, payload, 3, 4), file, pool=PoolSettings(1, timeout=2.0))
    assert tally.failed == 1
    assert re.search(reason, file.records["k1"]["reason"])
    assert [file.records[f"k{i}"]["value"] for i in (0, 2, 3)] == [1, 9, 16]


@pytest.mark.parametrize(("payload", "tries"), [("die", 2), ("hang", 1), ("die once", 2)])
def test_a_death_may_be_another_s_fault_but_a_time_limit_is_the_item_s_own(job, file, payload, tries):
    run(job, items(payload), file, pool=PoolSettings(1, timeout=2.0))
    assert job.log.read_text().split() == ["k0"] * tries
    assert file.records["k0"]["status"] == ("ok" if payload == "die once" else "failed")


@dataclass(frozen=True)
class Losing:
    """An executor that loses each task to its machine so many times before it works on it."""

    losses: int
    seen: list

    def map(self, job, tasks, scratch):
        work = job.build("")
        for task in tasks:
            self.seen.append(task)
            if self.seen.count(task) <= self.losses:
                yield task, Lost("the pilot is gone", "machine")
            else:
                yield task, work(task)


def test_items_lost_with_their_machine_come_back_together(job, file):
    executor = Losing(2, [])
    tally = run(job, items(1, 2, 3, 4), file, chunk=2, pool=executor)
    assert (tally.done, tally.failed) == (4, 0)
    assert [len(chunk) for chunk in executor.seen] == [2] * 6


def test_a_lost_machine_never_makes_a_failure(job, file):
    with pytest.raises(UnfinishedError, match=r"4 items were lost 3 times .*the pilot is gone"):
        run(job, items(1, 2, 3, 4), file, chunk=2, pool=Losing(3, []))
    assert file.records == {}
    assert run(job, items(1, 2, 3, 4), file, pool=Losing(2, [])).done == 4


def test_an_executor_gets_a_folder_beside_the_records_for_its_logs(job, file, tmp_path):
    class Asking(Losing):
        def map(self, job, tasks, scratch):
            assert scratch == tmp_path / "records.logs"
            return super().map(job, tasks, scratch)

    run(job, items(1), file, pool=Asking(0, []))
    assert not (tmp_path / "records.logs").exists()


def test_an_error_of_the_driver_ends_the_workers_at_once(job, file):
    def watch(tally):
        if tally.done:
            raise RuntimeError("watcher")

    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="watcher"):
        run(job, items(1, "hang", "hang"), file, pool=PoolSettings(2), watch=watch)
    assert time.monotonic() - begun < 30
    assert multiprocessing.active_children() == []


def test_items_lost_together_are_tried_again_one_by_one(job, file):
    tally = run(job, items(1, 2, "die", 4, "exit", 6), file, chunk=6, pool=PoolSettings(1))
    assert tally.failed == 2
    assert [file.records[f"k{i}"]["status"] for i in range(6)] == ["ok", "ok", "failed", "ok", "failed", "ok"]


def test_workers_are_recycled(job, file):
    run(job, items(*range(6)), file, pool=PoolSettings(1, recycle=2))
    assert len({record["pid"] for record in file.records.values()}) >= 3


def test_the_pool_takes_tasks_only_a_few_ahead(tmp_path):
    taken = []

    def tasks():
        for i in range(100):
            taken.append(i)
            yield (Item(str(i), i),)

    results = run_pool(Squares(tmp_path / "log"), tasks(), PoolSettings(1))
    next(results)
    assert len(taken) <= 4
    results.close()


def test_thread_variables_reach_the_workers_and_not_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    ((_, result),) = run_pool(ReadThreads(), [None], PoolSettings(1, threads=3))
    assert result == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7"


@dataclass(frozen=True)
class ReadThreads:
    def build(self, device):
        return lambda task: os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("bad", [{"workers": -1}, {"threads": 0}, {"recycle": -1}])
def test_impossible_pools_are_refused(bad):
    with pytest.raises(ValueError, match="needed"):
        PoolSettings(**bad)


def test_lost_is_what_the_pool_says_of_a_dead_worker(tmp_path):
    task = (Item("k", "die"),)
    ((same, result),) = run_pool(Squares(tmp_path / "log"), [task], PoolSettings(1))
    assert same == task
    assert isinstance(result, Lost)


def test_quick_items_travel_together_and_slow_ones_alone():
    pace = Pace(1)
    chunks = pace.chunks(deque(items(*range(2000))))
    sizes = []
    for seconds in (0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 5.0, 0.0):
        sizes.append(len(next(chunks)))
        pace.learn([ok("k", seconds=seconds)] * 3)
    assert sizes == [1, 2, 4, 8, 16, 20, 20, 1]
    for _ in range(9):
        pace.learn([ok("k", seconds=0.0)])
    assert len(next(chunks)) == 256
    assert len(next(Pace(32).chunks(deque(items(*range(100)))))) == 32


def test_items_of_a_chunk_are_of_one_kind():
    some = deque(Item(str(k), k, kind) for k, kind in enumerate("aaabbaaaac"))
    assert [[item.kind for item in chunk] for chunk in Pace(3).chunks(some)] == [
        ["a", "a", "a"],
        ["b", "b"],
        ["a", "a", "a"],
        ["a"],
        ["c"],
    ]


def test_a_quick_failure_says_nothing_about_how_long_items_take():
    pace = Pace(1)
    pace.learn([failed("k", "no such element", seconds=0.0)])
    assert len(next(pace.chunks(deque(items(1, 2, 3))))) == 1


def test_the_tally_estimates_from_this_runs_rate_alone():
    tally = Tally(total=100, skipped=50, done=10, seconds=5.0)
    assert tally.rate == 2.0
    assert tally.seconds_left == 20.0
    assert Tally(total=10).seconds_left is None


SCRIPT = """
import sys, time
from pathlib import Path
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import Header, RecordFile
from sfumato.execution.runner import Item, Stopped, run
sys.path.insert(0, {tests!r})
from slow_squares import SlowSquares

if __name__ == "__main__":
    with RecordFile(Path({out!r}), Header("test", 1, "squares", "id")) as file:
        try:
            run(SlowSquares(Path({log!r})), [Item(f"k{{i}}", i) for i in range(12)], file,
                pool=PoolSettings({workers}))
        except Stopped as stopped:
            sys.exit(stopped.exit_code)
"""


def start(tmp_path, workers):
    (tmp_path / "slow_squares.py").write_text(
        textwrap.dedent("""
        import time
        from dataclasses import dataclass
        from pathlib import Path
        from sfumato.execution.records import ok
        from sfumato.execution.runner import each

        @dataclass(frozen=True)
        class SlowSquares:
            log: Path

            def build(self, device):
                def one(item):
                    time.sleep(0.15)
                    with open(self.log, "a") as log:
                        log.write(item.key + "\\n")
                    return ok(item.key, seconds=0.15, value=item.payload ** 2)
                return lambda chunk: each(chunk, one)
        """)
    )
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(
            tests=str(tmp_path),
            out=str(tmp_path / "r.jsonl"),
            log=str(tmp_path / "worked.txt"),
            workers=workers,
        )
    )
    return subprocess.Popen([sys.executable, script], cwd=tmp_path)


def wait_for_records(path, count):
    for _ in range(400):
        if path.exists() and path.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.05)
    raise AssertionError("the run made no records")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_continues_and_repeats_no_finished_item(tmp_path, number, workers):
    process = start(tmp_path, workers)
    wait_for_records(tmp_path / "r.jsonl", 3)
    process.send_signal(number)
    assert process.wait(timeout=20) == (-9 if number == signal.SIGKILL else 128 + number)
    time.sleep(0.5)
    finished = set(read_records(tmp_path / "r.jsonl")[1])
    assert 3 <= len(finished) < 12
    worked_before = (tmp_path / "worked.txt").read_text().split()
    assert start(tmp_path, workers).wait(timeout=60) == 0
    worked_after = (tmp_path / "worked.txt").read_text().split()[len(worked_before) :]
    assert not finished & set(worked_after)
    records = read_records(tmp_path / "r.jsonl")[1]
    assert {key: record["value"] for key, record in records.items()} == {f"k{i}": i**2 for i in range(12)}


def test_workers_die_with_a_killed_driver(tmp_path):
    process = start(tmp_path, 2)
    wait_for_records(tmp_path / "r.jsonl", 1)
    process.kill()
    process.wait()
    time.sleep(1.5)
    before = (tmp_path / "worked.txt").read_text()
    time.sleep(1.0)
    assert (tmp_path / "worked.txt").read_text() == before


def test_stopped_knows_the_shells_exit_code():
    assert Stopped(signal.SIGTERM).exit_code == 143
    assert Stopped(signal.SIGINT).exit_code == 130


def test_a_run_in_which_everything_fails_for_one_reason_ends_early(job, file):
    with pytest.raises(
        SameFailureError, match=r"(?s)40 items .* of 900, .*ValueError: not a number.*--keep-"
    ):
        run(job, items(*["raise"] * 900), file, pool=PoolSettings(0))
    assert len(file.records) == 40
    assert {"k0", "k19", "k20", "k460", "k856"} <= set(file.records)
    tally = run(job, items(*["raise"] * 100), file, keep_going=True)
    assert tally.skipped + tally.done == tally.failed + tally.skipped == 100


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chunk", [1, 32])
def test_it_goes_on_where_another_item_succeeds_or_fails_otherwise(job, file, workers, chunk):
    for other in (3, "memory"):
        payloads = [*["raise"] * 150, *[other] * 150]
        chosen = [Item(f"{other}{i}", payload) for i, payload in enumerate(payloads)]
        assert run(job, chosen, file, chunk=chunk, pool=PoolSettings(workers)).done == 300


def test_it_goes_on_where_an_item_succeeded_in_an_earlier_run(job, file):
    run(job, items(1), file)
    assert run(job, items(1, *["raise"] * 100), file).failed == 100


def test_few_items_are_all_tried(job, file):
    assert run(job, items(*["raise"] * 40), file).failed == 40


def test_reasons_that_differ_by_numbers_are_one_reason(file):
    @dataclass(frozen=True)
    class Numbered:
        def build(self, device):
            return lambda chunk: [failed(item.key, f"atom {item.payload} is too hot") for item in chunk]

    with pytest.raises(SameFailureError, match="atom"):
        run(Numbered(), items(*range(100)), file, pool=PoolSettings(0))


def test_what_a_file_system_without_locks_means_is_said(job, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with RecordFile(tmp_path / "r.jsonl", HEADER) as file:
        assert "two runs" in run(job, items(1), file).warning


def test_a_record_file_that_was_removed_ends_the_run(job, tmp_path):
    def remove(tally):
        path.unlink(missing_ok=True)

    path = tmp_path / "r.jsonl"
    with RecordFile(path, HEADER) as file, pytest.raises(OSError, match="was removed while a run"):
        run(job, items(1, 2, 3), file, watch=remove)
