"""Whatever is killed, and whenever: the finished store is the one of an undisturbed run, bit by bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sfumato.campaigns.campaign import CampaignOptions, label
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import read_records
from sfumato.potentials.engines import make_engine
from sfumato.systems import System
from tests import ROOT

SLOW = """
import time
from dataclasses import dataclass, replace
from sfumato.potentials.engines import TBLite

@dataclass(frozen=True)
class SlowGFN2(TBLite):
    '''GFN2-xTB that takes its time and leaves a line for every structure it has labeled.'''
    log: str = ""

    def label(self, system, guess=None):
        time.sleep(0.1)
        result = super().label(system, guess)
        with open(self.log, "a") as log:
            log.write(f"{result.energy!r}\\n")
        return replace(result, seconds=0.1)
"""

DRIVE = """
import resource, sys
from pathlib import Path
from sfumato.campaigns.campaign import CampaignOptions, label
from sfumato.execution.parsl import ParslSettings
from sfumato.execution.pool import PoolSettings
from sfumato.execution.runner import Stopped
from slow import SlowGFN2
sys.path.append({root!r})
from tests.campaigns.test_kills import water

if __name__ == "__main__":
    store, how, count, file_size = sys.argv[1:]
    executor = PoolSettings(int(how)) if how.isdigit() else ParslSettings(Path(how))
    if int(file_size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_size), int(file_size)))
    try:
        label(water(int(count)), SlowGFN2(log="labeled.txt"), Path(store), options=CampaignOptions(executor))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except OSError as error:
        sys.exit(f"{{error.filename}}: {{error.strerror}}")
"""


MARK = "SFUMATO_TEST_CAMPAIGN"


def water(count):
    """Distorted water molecules, always the same."""
    rng = np.random.default_rng(7)
    base = np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    return [System(np.array([8, 1, 1]), base + 0.05 * rng.normal(size=(3, 3))) for _ in range(count)]


class Campaign:
    """A campaign in a process of its own that can be killed and started again."""

    def __init__(self, folder, how, count=24):
        self.folder, self.how, self.count = folder, how, count
        self.process = None
        (folder / "slow.py").write_text(SLOW)
        (folder / "drive.py").write_text(DRIVE.format(root=str(ROOT)))
        self.store = folder / "store"

    def start(self, file_size=0):
        command = [sys.executable, "drive.py", self.store, self.how, str(self.count), str(file_size)]
        environment = os.environ | {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            MARK: str(self.folder),
        }
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return self.process

    def finish(self):
        assert self.end(self.start()) == (0, "")

    def end(self, process):
        """Wait for the end of a process; return its exit code and what it said."""
        errors = process.communicate(timeout=300)[1]
        return process.returncode, errors

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @property
    def records(self):
        path = self.store / "records" / "GFN2-xTB.jsonl"
        return read_records(path)[1] if path.exists() and b"\n" in path.read_bytes() else {}

    @property
    def labeled(self):
        log = self.folder / "labeled.txt"
        return log.read_text().split() if log.exists() else []

    def wait_for(self, count, seconds=120):
        end = time.monotonic() + seconds
        while len(self.records) < count:
            assert time.monotonic() < end, "the campaign makes no records"
            time.sleep(0.02)

    def compare(self, tmp_path):
        """Compare with an undisturbed run of the plain engine in one worker."""
        engine = make_engine("tblite", "GFN2-xTB")
        expected = label(
            water(self.count), engine, tmp_path / "undisturbed", options=CampaignOptions(PoolSettings(1))
        )
        found = self.records
        assert set(found) == {record["key"] for record in expected}
        for record in expected:
            assert found[record["key"]]["energy"] == record["energy"]
            assert found[record["key"]]["forces"] == record["forces"]


def processes(mark):
    """The living processes of a campaign, known by a mark in their environment: {pid: (parent, command)}."""
    words = ("drive.py", "spawn_main", "process_worker_pool", "parsl")
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if any(word in command for word in words):
                state, parent = (folder / "stat").read_text().rsplit(")")[-1].split()[:2]
                marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
                if marked and state != "Z":
                    found[int(folder.name)] = int(parent), command
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def workers_of(pid, mark):
    return [p for p, (parent, line) in processes(mark).items() if parent == pid and "spawn_main" in line]


def test_killed_workers_leave_no_trace(tmp_path):
    with Campaign(tmp_path, "2") as campaign:
        process = campaign.start()
        for count in (1, 7, 13):
            campaign.wait_for(count)
            os.kill(workers_of(process.pid, tmp_path)[0], signal.SIGKILL)
        assert campaign.end(process) == (0, "")
        campaign.compare(tmp_path)
        assert len(campaign.labeled) >= campaign.count


def test_a_driver_killed_at_any_moment_leaves_no_trace(tmp_path):
    with Campaign(tmp_path, "2") as campaign:
        for count in (0, 1, 12):
            finished = set(campaign.records)
            labeled = len(campaign.labeled)
            process = campaign.start()
            campaign.wait_for(count)
            process.kill()
            campaign.end(process)
            energies = {repr(campaign.records[key]["energy"]) for key in finished}
            assert not energies & set(campaign.labeled[labeled:])
        campaign.finish()
        campaign.compare(tmp_path)
        in_flight, self_tests = 3 * 2 * 2, 4 * 2  # two chunks of two, and two molecules at each start
        assert len(campaign.labeled) <= campaign.count + in_flight + self_tests


def test_a_file_that_may_not_grow_keeps_everything_finished(tmp_path):
    with Campaign(tmp_path, "2") as campaign:
        code, errors = campaign.end(campaign.start(file_size=6000))
        assert code == 1
        assert "GFN2-xTB.jsonl: File too large; all that finished before is kept; make room" in errors
        finished = campaign.records
        assert 5 < len(finished) < campaign.count
        labeled = len(campaign.labeled)
        campaign.finish()
        energies = {repr(record["energy"]) for record in finished.values()}
        assert not energies & set(campaign.labeled[labeled:])
        campaign.compare(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 KiB."""
    folder = tmp_path / "store"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_keeps_everything_finished(small_disk, tmp_path):
    with Campaign(tmp_path, "2", count=40) as campaign:
        code, errors = campaign.end(campaign.start())
        assert code == 1
        assert "No space left on device; all that finished before is kept; make room" in errors
        assert 5 < len(campaign.records) < campaign.count
        subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
        campaign.finish()
        campaign.compare(tmp_path)
