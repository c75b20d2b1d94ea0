"""Twenty times SIGKILL, at moments of chance, and the numbers are those of a run that nobody touched."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from tests import ROOT

KILLS = 20

PRELUDE = f"""
import json, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import sfumato.jobs.trajectory as trajectory
from sfumato.protocols.heat import settings as heat
from sfumato.protocols.nve import settings as nve
from sfumato.protocols.battery import assess
from sfumato.protocols.run import run
from tests.protocols.probes import small
trajectory.LONGEST_SEGMENT = 15
small.module.SIZES["dev"] = replace(small.TINY, pairs=10, squeezed=36, places=24, diatomics=8)
nve.LENGTHS["dev"] = nve.Length(0.5, 60)
heat.LENGTHS["dev"] = heat.Length(0.1, 0.6, 2, 10.0)
what, folder = sys.argv[1:]
if what == "assess":
    found = assess("lj", "dev", out=folder)
else:
    data = str(small.two_molecules(Path(folder).parent / "two.xyz")) if what == "probes" else "Cu,W"
    found = run(what, ["lj"], data, settings={{"size": "dev"}}, out=folder)
print(json.dumps(found.as_json()))
"""


def begun(what, folder):
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE, what, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def numbers(text):
    """Everything that a run says but where and when."""
    found = json.loads(text)
    runs = found["protocols"].values() if "protocols" in found else [found]
    return json.dumps([run["models"] for run in runs], sort_keys=True)


def seen(folder):
    """What is on disk."""
    return sorted(
        (str(p), p.stat().st_size) for p in folder.glob("**/*") if p.is_file() and p.suffix != ".part"
    )


def wait_for_progress(process, folder):
    before = seen(folder)
    while process.poll() is None:
        time.sleep(0.01)
        try:
            if seen(folder) != before:
                return
        except OSError:  # a file went away while it was looked at
            continue


@pytest.mark.slow
@pytest.mark.parametrize("what", ["nve", "heat", "probes", "assess"])
def test_twenty_kills_change_nothing(what, tmp_path):
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()
    expected, _ = begun(what, tmp_path / "calm" / "run").communicate()
    chance, killed, folder = random.Random(0), 0, tmp_path / "killed" / "run"
    while killed < KILLS:
        process = begun(what, folder)
        wait_for_progress(process, folder)
        time.sleep(chance.uniform(0.0, 0.15))
        assert process.poll() is None, f"it was over after {killed} kills"
        process.send_signal(signal.SIGKILL)
        process.communicate()  # closes its pipe
        assert process.returncode == -signal.SIGKILL
        killed += 1
    again, _ = begun(what, folder).communicate()
    assert numbers(again) == numbers(expected)
