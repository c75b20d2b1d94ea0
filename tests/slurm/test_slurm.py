"""A campaign through pilot jobs of a real Slurm, one of them cancelled on the way."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.campaigns.test_kills import Campaign

pytestmark = pytest.mark.slow

CLUSTER = Path(__file__).with_name("cluster.sh")

CONFIG = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import SlurmProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="slurm",
            address="127.0.0.1",
            cores_per_worker=1,
            heartbeat_period=1,
            heartbeat_threshold=5,
            provider=SlurmProvider(
                partition="here",
                cores_per_node=1,
                exclusive=False,
                walltime="00:20:00",
                init_blocks=2,
                max_blocks=2,
            ),
        )
    ],
    strategy_period=2,
)
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a running Slurm."""
    pytest.importorskip("parsl")
    if os.geteuid():
        pytest.skip("starting a Slurm needs root")
    missing = [name for name in ("slurmctld", "munged") if not shutil.which(name, path="/usr/sbin:/usr/bin")]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian packages slurm-wlm and munge)")
    folder = tmp_path / "slurm"
    folder.mkdir()
    subprocess.run([CLUSTER, "start", folder], check=True)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    yield folder
    subprocess.run([CLUSTER, "stop", folder], check=True)


def queue():
    """Slurm's jobs as {id: state}, printed as a person would see them."""
    print(subprocess.run(["squeue"], capture_output=True, text=True, check=True).stdout, flush=True)
    listed = subprocess.run(["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True, check=True)
    return dict(line.split() for line in listed.stdout.splitlines())


def test_a_campaign_outlives_a_cancelled_pilot_job(slurm, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    with Campaign(tmp_path, str(tmp_path / "config.py"), count=300) as campaign:
        process = campaign.start()
        campaign.wait_for(30)
        before = queue()
        assert list(before.values()) == ["RUNNING", "RUNNING"]
        cancelled = next(iter(before))
        print(f"scancel {cancelled} after {len(campaign.records)} of {campaign.count} points")
        subprocess.run(["scancel", cancelled], check=True)
        campaign.wait_for(len(campaign.records) + 20)
        print(f"{len(campaign.records)} points")
        assert cancelled not in {job for job, state in queue().items() if state == "RUNNING"}
        assert campaign.end(process) == (0, "")
        print(f"{len(campaign.records)} points, the campaign has ended")
        assert set(queue().values()) <= {"COMPLETING"}
        campaign.compare(tmp_path)
        assert "failed" not in {record["status"] for record in campaign.records.values()}


def test_a_campaign_goes_on_when_all_its_pilot_jobs_are_cancelled(slurm, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG.replace("init_blocks=2", "init_blocks=1"))
    with Campaign(tmp_path, str(tmp_path / "config.py"), count=100) as campaign:
        process = campaign.start()
        campaign.wait_for(20)
        jobs = queue()
        print(f"scancel {' '.join(jobs)} after {len(campaign.records)} of {campaign.count} points")
        subprocess.run(["scancel", *jobs], check=True)
        assert campaign.end(process) == (0, "")  # Parsl asks Slurm once a minute, then submits anew
        campaign.compare(tmp_path)
