"""Calculators with defects that others reported in public: the contract fails each of them."""

import importlib.util

import pytest

from sfumato.potentials.ase import from_ase
from sfumato.testing import Settings, check
from tests import SHARED

BUGS = SHARED / "cases" / "09-check-known-bugs" / "bugs.py"
STEPS = SHARED / "cases" / "15-energy-only-jump" / "model.py"
SOUND = ("good", "m_StateFromCharge")
"""The second keeps nothing between calls, in spite of its name."""

CAUGHT_BY = {
    "m_AllPeriodic": "vacuum",
    "m_Boundary": "supercell",
    "m_CollinearNaN": "in line",
    "m_IsolatedRaises": "isolated",
    "m_LeftHanded": "wrap",
    "m_MinimumImage": "supercell",
    "m_NoTripletsJump": "cutoff",
    "m_NotPeriodicSlab": "wrap",
    "m_SingleAtomTable": "isolated",
    "m_Sorted": "permutation",
    "m_StressOrder": "stress",
    "m_StressSign": "stress",
    "m_StressUnsupported": "stress given",
    "m_Wraps": "input untouched",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STEPS.exists(), reason="the shared cases are not here"),
]


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_each_public_bug_breaks_the_contract(name):
    report = check(from_ase(getattr(loaded(BUGS), name)(), name))
    assert CAUGHT_BY[name] in {result.name for result in report.broken}, report


@pytest.mark.parametrize("name", SOUND)
def test_the_sound_ones_keep_it(name):
    report = check(from_ase(getattr(loaded(BUGS), name)(), name))
    assert report.passed, report


def test_every_case_is_looked_at():
    assert {name for name in vars(loaded(BUGS)) if name.startswith("m_")} == {*CAUGHT_BY, "m_StateFromCharge"}


@pytest.mark.parametrize("name", ["step50", "step500", "step5000", "pairstep", "pairstep1"])
def test_steps_of_the_energy_alone_break_it(name):
    report = check(from_ase(getattr(loaded(STEPS), name)(), name), settings=Settings(quick=True))
    assert "jump of the energy" in str(report)
