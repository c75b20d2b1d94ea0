"""Options that stand anywhere on the command line: how much a command says besides its results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato.cli import main
from sfumato.commands.progress import ProgressLine
from sfumato.commands.volume import Volume, at_volume, split, volume
from sfumato.execution.runner import Tally
from sfumato.io import write_scan_set
from tests import made_runs

FAILING = """
from ase.calculators.lj import LennardJones
class Broken(LennardJones):
    def calculate(self, atoms=None, properties=(), system_changes=()):
        if atoms.get_distance(0, 1) > 3.0:
            raise ArithmeticError(f"no convergence after {len(atoms)} steps")
        super().calculate(atoms, properties, system_changes)
def make():
    return Broken()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = made_runs.ScanSet("one", "Morse", "CC0-1.0", "made by hand", [made_runs.diatomic("C-C/a", 1.5)])
    write_scan_set("one.h5", data)
    (tmp_path / "m.py").write_text(FAILING)
    return tmp_path


def sfumato(*words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


@pytest.mark.parametrize("place", [0, 2, 8])
def test_quiet_leaves_results_and_no_progress_wherever_it_stands(folder, capsys, place):
    words = ["run", "bsct", "--model", "lj", "--data", "one.h5", "--out", "r"]
    words.insert(place, "-q")
    assert sfumato(*words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "FSD" in said.out


def test_quiet_errors_are_still_errors(folder, capsys):
    assert sfumato("run", "bsct", "--model", "nosuch", "--quiet") == 2
    assert capsys.readouterr().err.startswith("sfumato: unknown model")


def test_verbose_tells_each_kind_of_failure_once_as_it_comes(folder, capsys):
    words = ["run", "bsct", "--model", "m.py:make", "--data", "one.h5", "--out", "r", "--keep-going"]
    assert sfumato(*words, "-v") == 1
    said = capsys.readouterr().err.splitlines()
    failed = [line for line in said if line.startswith("m-make: failed: ")]
    assert failed == ["m-make: failed: ArithmeticError: no convergence after 2 steps"]
    assert sfumato(*words, "--fresh") == 1
    assert "failed: " not in capsys.readouterr().err.replace("last failure: ", "")


def test_a_traceback_is_shown_where_it_is_asked_for(folder, capsys):
    assert sfumato("run", "bsct", "--model", "nosuch", "--traceback") == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("sfumato: unknown model")
    assert sfumato("run", "bsct", "--model", "nosuch") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_quiet_and_verbose_at_once_is_an_error(capsys):
    assert sfumato("-q", "list", "-v") == 2
    assert "choose one" in capsys.readouterr().err


def test_what_follows_two_hyphens_is_left_alone():
    assert split(["run", "-v", "--", "-q"]) == (["run", "--", "-q"], Volume(verbose=True))
    assert volume() == Volume()
    with at_volume(Volume(quiet=True)):
        assert volume().quiet
    assert volume() == Volume()


def test_progress_is_more_frequent_where_it_is_wanted(capsys):
    with at_volume(Volume(verbose=True)):
        line = ProgressLine("model", "frames")
    line(Tally(10, done=1, seconds=1.0))
    line._spoke -= 6
    line(Tally(10, done=2, seconds=2.0))
    assert capsys.readouterr().err.count("2/10") == 1


def test_the_shell_can_be_taught_the_commands(tmp_path):
    command = [str(Path(sys.executable).parent / "sfumato"), "--install-completion"]
    environment = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (script,) = tmp_path.rglob("completions/sfumato")
    text = script.read_text()
    assert all(word in text for word in ("bsct", "--workers", "convert", "report"))
