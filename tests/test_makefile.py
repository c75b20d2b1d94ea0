"""What `make demo` and `make test` do in a fresh clone."""

import shutil
import subprocess

import pytest

from tests import ROOT


def planned(target, tmp_path):
    """Return the commands that make would run for a target where nothing is installed."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    command = [make, "-n", "--no-print-directory", target, f"VENV={tmp_path / 'venv'}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_demo_installs_no_more_than_it_needs_and_says_what(tmp_path):
    said = planned("demo", tmp_path)
    assert 'pip install -q -e ".[xtb]"' in said
    assert "[dev]" not in said
    installs = [k for k, line in enumerate(said.splitlines()) if "pip install" in line]
    assert len(installs) == 2
    for k in installs:  # each is announced
        assert "echo" in said.splitlines()[k - 1]
    assert said.splitlines()[-1].endswith("sfumato demo")


def test_tests_install_theirs_and_the_demo_after_them_nothing(tmp_path):
    said = planned("test", tmp_path)
    assert "[dev]" in said
    assert "[xtb]" not in said
    assert f"touch {tmp_path / 'venv'}/runtime {tmp_path / 'venv'}/installed" in said
