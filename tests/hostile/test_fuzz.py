"""Damaged inputs of every kind end with a message: no traceback, no hang, no flood, no other numbers."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.hostile import fuzz
from tests.hostile import mutations as m
from tests.hostile.inputs import CASES, Case

COUNT = 3000


def sealed(use, ways=(m.flip,)):
    return Case("toy", "toy.txt", ways, use, sealed=True)


def read():
    print(Path("toy.txt").read_bytes())
    return 0


def refuse():
    return 0 if Path("toy.txt").read_bytes() == b"0123456789" else 2


def crash():
    return read() if refuse() == 0 else {}["nothing"]


def flood():
    return 2 * len(b"x" * 10**9) // 10**9


def wait():
    time.sleep(60 if refuse() else 0)
    return 2


def loop():
    while refuse():
        pass
    return 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("use", "fault"),
    [
        (refuse, ""),
        (read, "a flipped bit was accepted"),
        (crash, "traceback"),
        (flood, "takes "),
        (wait, "hangs for 1 s"),
        (loop, "hangs for 1 s"),
        (die, "killed by SIGKILL"),
        (lambda: 7, "exit code 7"),
    ],
)
def test_the_test_sees_every_fault(use, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 1 if use in (wait, loop) else 60)
    monkeypatch.setattr(fuzz, "PATIENCE", 1 if use is wait else 600)
    pages = int(Path("/proc/self/statm").read_text().split()[1])  # what a fork begins with
    monkeypatch.setattr(fuzz, "MEMORY", pages * os.sysconf("SC_PAGE_SIZE") + 5e8)
    (tmp_path / "toy.txt").write_bytes(b"0123456789")
    case = sealed(use)
    sound = fuzz.attempt(case, tmp_path, 0, -1)
    found = fuzz.attempt(case, tmp_path, 0, 3)
    assert found.way == "flip"
    assert found.fault(sound).startswith(fault)
    assert bool(found.fault(sound)) == bool(fault)


def test_damage_depends_on_its_seed_alone():
    data = b"".join(b"%d\n" % k for k in range(300))
    for way in (*m.BYTES, *m.TEXT):
        once, again = (way(data, np.random.default_rng(7)) for _ in range(2))
        assert once == again
    assert m.flip(data, np.random.default_rng(1)) != m.flip(data, np.random.default_rng(2))


def test_what_is_loaded_before_processes_are_copied_are_modules():
    names = fuzz.modules()
    assert len(names) > 150
    specs = [importlib.util.find_spec(name) for name in names]
    assert [spec.name for spec in specs if not spec.origin.endswith(".py")] == []


def test_every_case_is_called_otherwise():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are measured as Linux does")
def test_damaged_inputs_of_every_kind_are_refused_or_harmless():
    """In a process of its own, which has started no threads before it forks."""
    words = [sys.executable, "-m", "tests.hostile.fuzz", "--count", str(COUNT), "--seed", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.rstrip().endswith("faults: none"), done.stdout[-5000:]
