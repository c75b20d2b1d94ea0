"""Pilot jobs do what a local pool does, end with the driver, and may be killed."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest

from sfumato.campaigns.campaign import CampaignOptions, label
from sfumato.execution.parsl import ParslSettings, load_config
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import Header, RecordFile, ok
from sfumato.execution.runner import Item, each, run
from sfumato.execution.worker import GIB
from sfumato.potentials.engines import TBLite
from tests import ROOT
from tests.campaigns.test_kills import MARK, Campaign, processes, water
from tests.execution.test_pool import hostile_folder

CONFIG = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

def config():
    return Config(
        executors=[
            HighThroughputExecutor(
                label="here",
                address="127.0.0.1",
                cores_per_worker=0.5,
                max_workers_per_node=2,
                heartbeat_period=1,
                heartbeat_threshold=4,
                provider=LocalProvider(init_blocks=1, max_blocks=1),
            )
        ],
        strategy_period=1,
    )
"""

PILOT = "process_worker_pool.py"


@pytest.fixture
def config(tmp_path, monkeypatch):
    pytest.importorskip("parsl")
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.setenv("SPT_NOENV", "1")  # Parsl's process titles must not overwrite the mark
    return path


@dataclass(frozen=True)
class Misbehaves:
    """Squares numbers; strings say what to do instead."""

    def build(self, device):
        def one(item):
            match item.payload:
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang":
                    time.sleep(60)
                case "much":
                    array = np.ones(GIB // 16)
                    time.sleep(2)
                    del array
            return ok(item.key, seconds=1.0, value=item.payload**2, pid=os.getpid(), cwd=os.getcwd())

        return lambda chunk: each(chunk, one)


def left_over(mark, seconds=20):
    """What is left of a campaign after a while; pilots need a moment to see that nobody is there."""
    end = time.monotonic() + seconds
    while (found := processes(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_pilots_make_the_records_that_a_local_pool_makes(config, tmp_path):
    there = label(water(8), TBLite(), tmp_path / "there", options=CampaignOptions(ParslSettings(config)))
    here = label(water(8), TBLite(), tmp_path / "here", options=CampaignOptions(PoolSettings(1)))
    facts = ("key", "status", "energy", "forces")
    assert [[r[fact] for fact in facts] for r in there] == [[r[fact] for fact in facts] for r in here]
    assert left_over(tmp_path) == {}


@pytest.mark.slow
def test_pilots_keep_the_limits_of_a_local_pool_and_leave_nothing_behind(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads, path = set(threading.enumerate()), os.environ["PATH"]
    limits = PoolSettings(timeout=6.0, memory=0.4, recycle=2)
    payloads = [1, 2, "die", "hang", "much", 3, 4, 5]
    items = [Item(f"k{i}", payload) for i, payload in enumerate(payloads)]
    with RecordFile(tmp_path / "store" / "records.jsonl", Header("test", 1, "squares", "id")) as file:
        tally = run(Misbehaves(), items, file, pool=ParslSettings(config, limits))
    records = {item.payload: file.records[item.key] for item in items}
    assert [records[n]["value"] for n in (1, 2, 3, 4, 5)] == [1, 4, 9, 16, 25]
    assert records["die"]["reason"] == "the worker process was killed by SIGKILL (often: out of memory)"
    assert records["hang"]["reason"] == "timed out after 6 s"
    assert records["much"]["reason"].startswith("out of memory: limit 0.4 GiB, 0.")
    assert tally.failed == 3
    assert os.getpid() not in {records[n]["pid"] for n in (1, 2, 3)}
    assert left_over(tmp_path) == {}
    assert set(threading.enumerate()) <= threads
    assert os.environ["PATH"] == path
    assert multiprocessing.active_children() == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.py", "store"]
    assert "Starting DataFlowKernel" in (tmp_path / "store/records.logs/parsl.log").read_text()
    files = [h for h in logging.getLogger("parsl").handlers if isinstance(h, logging.FileHandler)]
    assert files == []


@dataclass(frozen=True)
class Tells:
    """Returns its device and what the variable says that keeps a folder out of Python's path."""

    def build(self, device):
        return lambda task: (device, os.environ.get("PYTHONSAFEPATH"))


def test_nothing_is_imported_from_the_working_folder(config, tmp_path, monkeypatch):
    folder = hostile_folder(tmp_path / "work")
    monkeypatch.chdir(folder)
    settings = ParslSettings(config, PoolSettings(devices=("cpu",)))
    assert sorted(settings.map(Tells(), [1, 2], tmp_path / "logs")) == [
        (1, ("cpu", None)),
        (2, ("cpu", None)),
    ]
    assert not (folder / "EXECUTED").exists()


def test_which_of_several_devices_a_worker_sees_is_the_affair_of_parsl(config):
    with pytest.raises(ValueError, match=r"devices cuda:0, cuda:1: name one; .*available_accelerators"):
        ParslSettings(config, PoolSettings(devices=("cuda:0", "cuda:1")))


@dataclass(frozen=True)
class Unbuildable:
    def build(self, device):
        raise ValueError("no such model")


@pytest.mark.slow
def test_what_the_job_raises_ends_the_run_and_the_pilots(config, tmp_path):
    with pytest.raises(ValueError, match="no such model"):
        list(ParslSettings(config).map(Unbuildable(), [(Item("k", 1),)], tmp_path / "logs"))
    assert left_over(tmp_path) == {}


@pytest.mark.slow
def test_pilots_that_cannot_start_are_an_error_with_the_reason(config, tmp_path):
    config.write_text(CONFIG.replace("max_blocks=1", "max_blocks=1, worker_init='echo no module; exit 3'"))
    with pytest.raises(
        ValueError, match=r"(?s)pilot job after pilot job fails.*EXIT CODE: 3.*All that finished"
    ):
        list(ParslSettings(config).map(Unbuildable(), [(Item("k", 1),)], tmp_path / "logs"))
    assert left_over(tmp_path) == {}


@pytest.mark.slow
def test_a_strategy_that_starts_no_new_pilots_is_an_error_when_they_are_gone(config, tmp_path):
    text = CONFIG.replace("strategy_period=1", "strategy_period=1, strategy='none'")
    config.write_text(text.replace("max_blocks=1", "max_blocks=1, worker_init='exit 0'"))
    with pytest.raises(ValueError, match="all pilot jobs of 'here' ended"):
        list(ParslSettings(config).map(Unbuildable(), [(Item("k", 1),)], tmp_path / "logs"))


@pytest.mark.slow
def test_a_killed_pilot_leaves_no_trace(config, tmp_path):
    with Campaign(tmp_path, str(config), count=40) as campaign:
        process = campaign.start()
        campaign.wait_for(5)
        pilots = [p for p, (_, line) in processes(tmp_path).items() if PILOT in line and "bash" not in line]
        os.kill(pilots[0], signal.SIGKILL)
        assert campaign.end(process) == (0, "")
        campaign.compare(tmp_path)
        assert left_over(tmp_path) == {}
        logs = campaign.store / "records/GFN2-xTB.logs/000"
        assert len(list((logs / "submit_scripts").glob("*.sh"))) == 2


@pytest.mark.slow
def test_a_killed_driver_takes_its_pilots_along_and_can_be_started_again(config, tmp_path):
    with Campaign(tmp_path, str(config), count=40) as campaign:
        process = campaign.start()
        campaign.wait_for(5)
        process.kill()
        campaign.end(process)
        finished = set(campaign.records)
        assert left_over(tmp_path, seconds=40) == {}
        campaign.finish()
        assert finished <= set(campaign.records)
        campaign.compare(tmp_path)


@pytest.mark.slow
def test_pilots_with_parsls_own_heartbeats_outlive_a_killed_driver_by_half_a_minute(config, tmp_path):
    beats = "                heartbeat_period=1,\n                heartbeat_threshold=4,\n"
    config.write_text(CONFIG.replace(beats, ""))
    with Campaign(tmp_path, str(config), count=40) as campaign:
        process = campaign.start()
        campaign.wait_for(1)
        process.kill()
        campaign.end(process)
        assert left_over(tmp_path, seconds=60) == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_driver_cancels_its_pilots(config, tmp_path, number):
    with Campaign(tmp_path, str(config), count=40) as campaign:
        process = campaign.start()
        campaign.wait_for(5)
        os.killpg(process.pid, number)  # as a terminal's Ctrl-C does
        assert campaign.end(process) == (128 + number, "")
        assert left_over(tmp_path) == {}
        assert 5 <= len(campaign.records) < campaign.count
        campaign.finish()
        campaign.compare(tmp_path)


@pytest.mark.slow
def test_a_dead_interchange_is_an_error_and_not_a_wait(config, tmp_path):
    with Campaign(tmp_path, str(config), count=40) as campaign:
        process = campaign.start()
        campaign.wait_for(5)
        (interchange,) = (
            pid
            for pid, (parent, line) in processes(tmp_path).items()
            if parent == process.pid and ("HTEX interchange" in line or "sfumato.execution.parsl" in line)
        )
        os.kill(interchange, signal.SIGKILL)
        code, errors = campaign.end(process)
        assert code == 1
        assert "interchange of 'here' ended" in errors
        assert left_over(tmp_path) == {}
        campaign.finish()
        campaign.compare(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a parsl.config.Config .* found nothing"),
        ("config = 3", "must be a parsl.config.Config .* found a int"),
        ("def config():\n    return None", "found nothing"),
        ("config = undefined", "NameError: name 'undefined' is not defined"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("config = (", "SyntaxError"),
        ("from parsl.config import Config\nconfig = Config()", "starts no pilot jobs"),
    ],
)
def test_a_file_without_a_configuration_is_refused(tmp_path, text, message):
    pytest.importorskip("parsl")
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.py: .*{message}"):
        load_config(tmp_path / "mine.py")


def test_a_configuration_may_be_a_value_or_a_function(config, tmp_path):
    (tmp_path / "value.py").write_text(CONFIG + "\nconfig = config()")
    for path in (config, tmp_path / "value.py"):
        assert [executor.label for executor in load_config(path).executors] == ["here"]


def test_a_missing_file_is_named(tmp_path):
    pytest.importorskip("parsl")
    with pytest.raises(ValueError, match=r"nowhere\.py: there is no such file"):
        label(
            water(1),
            TBLite(),
            tmp_path / "store",
            options=CampaignOptions(ParslSettings(tmp_path / "nowhere.py")),
        )


def test_without_parsl_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "parsl", None)
    monkeypatch.setitem(sys.modules, "parsl.config", None)
    with pytest.raises(ValueError, match=r"pip install 'sfumato\[cluster\]'"):
        load_config(tmp_path / "config.py")
