"""What the contract's results say, and how they are shown."""

import io
import json
import math

import pytest
from rich.console import Console

from sfumato.testing import CHECKS, ContractReport, Measured, Result
from sfumato.testing.tables import contract_table, verdict
from tests import ROOT

NAN = math.nan


def result(name="force", status="passed", required=True, measured=1e-9, tolerance=1e-6, where="molecule"):
    unit = "" if math.isnan(tolerance) else "eV/Å"
    return Result(name, "F = −dE/dr", required, status, measured, tolerance, unit, "because", where)


def report(*results):
    return ContractReport("toy", "abc", results, 812, 75.0, {"seed": 0})


BROKEN = report(
    result(),
    result("cutoff", "failed", measured=0.0983, tolerance=1e-10, where="C–C at 2.5 Å: jump of the energy"),
    result("rotation", "failed", required=False, measured=0.2),
    result("stress", "not applicable", measured=NAN, tolerance=NAN, where="toy gives no stress"),
    result("supercell", "failed", measured=NAN, tolerance=NAN, where="raised MemoryError: too large"),
)


@pytest.mark.parametrize(
    ("value", "tolerance", "passed"),
    [(1.0, 1.0, True), (1.1, 1.0, False), (0, 0, True), (1, 0, False), (NAN, 1.0, False), (0.0, NAN, False)],
)
def test_a_value_passes_up_to_its_tolerance_and_nan_never(value, tolerance, passed):
    measured = Measured(value, tolerance, "eV", "")
    assert measured.passed == passed
    assert (measured.excess <= 1) == passed


def test_the_worst_is_the_one_farthest_beyond_its_own_tolerance():
    values = [Measured(5.0, 10.0, "", "a"), Measured(1e-9, 1e-10, "", "b"), Measured(2.0, 1.0, "", "c")]
    assert max(values, key=lambda m: m.excess).where == "b"


def test_a_report_passes_if_no_required_check_failed():
    assert report(result(), result("rotation", "failed", required=False)).passed
    assert not BROKEN.passed
    assert [r.name for r in BROKEN.broken] == ["cutoff", "supercell"]


def test_a_result_is_found_by_name():
    assert BROKEN["stress"].where == "toy gives no stress"
    with pytest.raises(KeyError, match="did you mean 'cutoff'"):
        BROKEN["cutof"]


def test_a_failed_assertion_shows_what_broke_and_where():
    text = str(BROKEN)
    assert text.splitlines()[0] == "toy: FAILED"
    assert "cutoff: 0.098 > 1e-10 eV/Å, C–C at 2.5 Å: jump of the energy" in text
    assert "supercell: raised MemoryError: too large" in text
    assert "rotation" not in text
    assert str(report(result())) == "toy: passed"


def test_json_has_no_nan():
    text = json.dumps(BROKEN.as_json(), allow_nan=False)
    data = json.loads(text)
    assert data["passed"] is False
    assert data["results"][3]["measured"] is None
    assert data["results"][1]["tolerance"] == 1e-10
    assert (data["evaluations"], data["settings"]) == (812, {"seed": 0})


def shown(content, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(content, highlight=False)
    return console.file.getvalue()


def test_the_table_fits_80_columns_and_says_everything():
    text = shown(contract_table(BROKEN))
    assert max(map(len, text.splitlines())) <= 80
    rows = {line.split()[1]: line for line in text.splitlines() if line[:4].strip() and len(line.split()) > 1}
    assert rows["force"].startswith("pass  force")
    assert rows["cutoff"].startswith("FAIL  cutoff")
    assert "0.0983  1.0e-10 eV/Å" in rows["cutoff"]
    assert rows["rotation"].startswith("note  rotation")
    assert rows["stress"].split()[0] == "n/a"
    assert "toy: contract · 812 evaluations in 1 min 15 s" in text
    assert "toy breaks the contract: cutoff, supercell; not applicable: stress" in text


def test_reasons_shared_by_several_checks_are_given_once():
    text = shown(contract_table(BROKEN))
    assert text.count("because") == 1
    assert "because" not in shown(contract_table(BROKEN, reasons=False))


def test_the_verdict_of_a_sound_potential():
    assert verdict(report(result())).plain.strip() == "toy keeps the contract"
    unmade = result("stress", "not applicable", measured=NAN, tolerance=NAN)
    said = verdict(report(result(), unmade, result("torque", "not applicable", required=False))).plain
    assert said.strip() == "toy keeps the contract; not applicable: stress"


def test_checks_have_unique_names_one_line_and_a_reason():
    assert len({row.name for row in CHECKS}) == len(CHECKS)
    for row in CHECKS:
        assert "\n" not in row.meaning
        assert len(row.meaning) < 75
        assert row.reason
    reported = {row.name for row in CHECKS if not row.required}
    assert reported == {"rotation", "torque", "short range", "bad input", "charge felt"}


def test_what_each_check_measures_is_documented():

    text = (ROOT / "docs" / "protocols.md").read_text()
    section = text[text.index("## The contract") :]
    for row in CHECKS:
        assert f"| {row.name} |" in section, row.name
