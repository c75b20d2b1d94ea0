"""The contract in a process of its own: crashes, hangs and deadlines cost a check, and are reported."""

import pytest

from sfumato.potentials.specs import ModelSpec
from sfumato.testing import CHECKS, Settings
from sfumato.testing.apart import check_apart

QUICK = Settings(quick=True, periodic=False, elements=("C",), points=40)

KILLER = """
import os, time
from ase.calculators.lj import LennardJones

class Fragile(LennardJones):
    size, act = 1, None
    def calculate(self, atoms=None, *args, **more):
        if self.size in (0, len(atoms)):
            self.act()
        super().calculate(atoms, *args, **more)

def one():
    made = Fragile(sigma=1.2, rc=6, smooth=True)
    made.act = os.abort
    return made

def all_of_them():
    made = one()
    made.size = 0
    return made
"""


@pytest.fixture
def model(tmp_path):
    (tmp_path / "fragile.py").write_text(KILLER)
    return lambda name: ModelSpec(f"{tmp_path / 'fragile.py'}:{name}")


def test_it_says_what_the_same_process_says_and_how_far_it_is():
    told = []
    report = check_apart(ModelSpec("lj"), settings=QUICK, watch=told.append)
    assert report.passed, report
    assert [r.name for r in report.results] == [row.name for row in CHECKS]
    assert report.potential == "lj"
    assert report.evaluations <= 330
    assert all(p.total == len(CHECKS) for p in told)


def test_a_process_that_dies_costs_its_check_and_no_other(model):
    report = check_apart(model("one"), settings=QUICK)
    assert {r.name for r in report.unchecked} == {"isolated", "batching"}
    assert "SIGABRT" in report["isolated"].where
    assert report["force"].status == "passed"
    assert not report.passed
    assert not report.broken
    assert "NOT CHECKED" in str(report)


def test_a_potential_that_always_dies_is_left_after_a_few_processes(model):
    report = check_apart(model("all_of_them"), settings=QUICK)
    assert len(report.unchecked) == len(CHECKS)
    assert "3 processes had ended before" in report["force"].where


def test_time_that_is_up_is_said():
    report = check_apart(ModelSpec("lj"), settings=QUICK, budget=1e-3)
    assert report["cutoff"].status == "not checked"
    assert "the time was up" in report["cutoff"].where
    assert not report.passed


def test_what_cannot_be_made_is_an_error():
    with pytest.raises(ValueError, match="did you mean"):
        check_apart(ModelSpec("lj-hard-cutof"), settings=QUICK)
