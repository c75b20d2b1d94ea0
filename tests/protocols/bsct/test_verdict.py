"""The verdict on planted curves: each fault is named with its place, and a smooth shift changes nothing."""

import numpy as np
import pytest

from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.bsct.verdict import answers
from sfumato.protocols.overview import verdict_page, verdict_table
from sfumato.protocols.run import run
from sfumato.protocols.verdict import Said, Verdict
from tests.made_runs import LENGTH, curve, diatomic, pulled, shown

SCAN = diatomic("C-O/1")
DEFAULTS = Settings()


def judged(energy, pull):
    """The verdict on one predicted scan, and its numbers."""
    values = bsct.scan_metrics(SCAN, energy, pulled(pull), DEFAULTS)
    result = bsct.ModelResult("m", "id", {SCAN.name: bsct.ScanResult("ok", "", values)}, 0)
    return of(result), values


def of(result):
    return Verdict(tuple(Said("scans", answer) for answer in answers(result, DEFAULTS)))


def bump(height, center=2.4, width=0.06):
    """A Gaussian barrier and minus its slope."""
    g = height * np.exp(-(((LENGTH - center) / width) ** 2) / 2)
    return g, g * (LENGTH - center) / width**2


def with_bump(height):
    energy, pull = curve(LENGTH, 1.5)
    g, force = bump(height)
    return energy + g, pull + force


def test_the_reference_itself_and_a_well_moved_by_a_fiftieth_of_an_angstrom_are_sound():
    for r0 in (1.5, 1.52, 1.48):
        found, values = judged(*curve(LENGTH, r0))
        assert found.sound, found.in_words()
        assert found.in_words() == "no fault"
        assert values["false_barrier"] == values["false_well"] == 0
    _, moved = judged(*curve(LENGTH, 1.52))
    assert moved["fsd_full"] > 10  # what the FSD alone would have said
    assert abs(moved["fsd_position"]) < 0.1


@pytest.mark.parametrize("height", [1.0, 0.3, 0.2])
def test_a_false_barrier_is_named_with_height_and_place(height):
    found, values = judged(*with_bump(height))
    assert values["false_barrier"] == pytest.approx(height, rel=0.25)
    assert values["false_barrier_position"] == pytest.approx(2.4, abs=0.1)
    assert [found.answer(key) for key in ("consistent", "continuous", "gradient")] == ["yes"] * 3
    assert found.answer("barriers") == "no"
    assert found.in_words().startswith("false barriers up to ")
    (piece, *_) = found.of("barriers")[0].answer.evidence
    assert piece.value == values["false_barrier"]
    assert f"{SCAN.name} at 2." in piece.where
    assert not found.broken


def test_a_step_of_the_energy_is_broken():
    energy, pull = curve(LENGTH, 1.5)
    found, values = judged(energy + 0.05 * (LENGTH > 2.2), pull)
    assert found.broken
    assert values["work_energy_order_full"] < 0.5
    assert found.in_words().startswith("broken: energy and force disagree in 1 of 1 scans")
    assert found.answer("continuous") == found.answer("gradient") == "unknown"  # scans alone cannot tell


def test_a_force_that_is_not_the_gradient_is_broken():
    energy, pull = curve(LENGTH, 1.5)
    found, _ = judged(energy, pull + 0.3 * np.sin(47 * LENGTH))
    assert found.broken


def test_nothing_evaluated_is_not_a_verdict():
    result = bsct.ModelResult("m", "id", {SCAN.name: bsct.ScanResult("failed", "no", {})}, 0)
    found = of(result)
    assert not found.sound
    assert not found.broken
    assert found.in_words() == "unknown: 1 of 1 scans have no result"


def test_every_control_is_called_broken_and_no_smooth_model_is(tmp_path):
    controls = ["lj-hard-cutoff", "lj-neighbor-cap", "lj-direct-noise"]
    done = run("bsct", ["lj", "morse", *controls], "bsct-mini", out=tmp_path / "run")
    verdicts = {name: done.as_json()["models"][name]["verdict"] for name in done.models}
    assert {name for name, found in verdicts.items() if found["in_words"].startswith("broken")} == {*controls}
    assert all(verdicts[name]["sound"] for name in ("lj", "morse"))
    assert all(verdicts[name]["control"] for name in controls)
    text = " ".join(shown(verdict_table([done]), width=400).split())
    assert text.count("broken on purpose") == 3
    page = "".join(verdict_page([done]).body)
    assert page.count("a control, broken on purpose") == 3
    assert page.count("Threshold: ") == 5 * 5
    assert 'href="#bsct0-scan"' in page
    assert 'id="bsct0-scan"' in "".join(done.protocol.page([done]).body)
