"""The battery: every protocol that answers a question, one verdict, one page; what cannot be run is named."""

import json

import pytest

from sfumato.cli import main
from sfumato.protocols import battery
from sfumato.protocols.battery import assess, plan_assessment
from sfumato.protocols.overview import question_table
from sfumato.protocols.run import Cost
from sfumato.protocols.table import PROTOCOLS
from sfumato.protocols.verdict import QUESTIONS
from tests.made_runs import shown
from tests.protocols.test_seam import Counting
from tests.protocols.test_verdict import Answering, Other


class Sized(Answering):
    """Looks at more dimers, the larger the size."""

    name = "sized"

    def sized(self, size):
        return self.data, {"count": {"dev": 1, "fast": 2, "standard": 4}[size]}


class Broken(Other):
    """Cannot be run."""

    name = "broken"

    def read(self, data, settings):
        raise ValueError("the data is not here")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A battery of toys."""
    for protocol in (Sized(), Other(), Broken()):
        monkeypatch.setitem(PROTOCOLS, protocol.name, protocol)
    monkeypatch.setattr(battery, "BATTERY", ("sized", "other", "absent"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sfumato(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return ended.value.code


def test_a_size_decides_how_much_is_measured(small):
    for size, count in (("dev", 1), ("standard", 4)):
        found = assess("lj", size, out=small / size)
        assert found.runs[0].models["lj"].coverage == (count, count)
        assert found.complete
    assert [run.folder for run in found.runs] == [small / "standard" / "sized", small / "standard" / "other"]


def test_protocols_say_what_a_size_is():
    assert PROTOCOLS["contract"].sized("dev") == ("standard", {"quick": True})
    assert PROTOCOLS["contract"].sized("standard") == ("standard", {"quick": False})
    assert PROTOCOLS["bsct"].sized("dev") == ("bsct-mini", {})
    assert PROTOCOLS["bsct"].sized("standard") == ("bsct-medium", {})
    assert PROTOCOLS["errors"].sized("dev") == (PROTOCOLS["errors"].data, {})


def test_every_question_is_in_the_result_with_answer_and_evidence(small, capsys):
    assert sfumato("assess", "lj", "--size", "dev", "--json", "a.json") == 0
    out = capsys.readouterr().out
    assert out.startswith("Verdict")
    assert "Is the surface continuous?" in out
    assert (small / "runs" / "assess-lj" / "report.html").exists()
    written = json.loads((small / "a.json").read_text())
    assert written["model"] == "lj"
    assert written["size"] == "dev"
    assert written["verdicts"].keys() == QUESTIONS.keys()
    for answer in written["verdicts"].values():
        assert answer["answer"] in ("yes", "no", "unknown")
        assert isinstance(answer["evidence"], list)
    assert written["verdicts"]["continuous"]["answer"] == "yes"
    assert written["verdicts"]["continuous"]["evidence"][0]["numbers"]
    assert written["verdicts"]["conserves"] == {
        "question": QUESTIONS["conserves"].words,
        "answer": "unknown",
        "fault": "",
        "evidence": [],
    }
    assert written["protocols"].keys() == {"sized", "other"}


def test_it_goes_on_where_it_was(small):
    model = Counting()
    assess(model, "dev", out=small / "a")
    asked = model.asked
    again = assess(model, "dev", out=small / "a")
    assert model.asked == asked
    assert again.as_json()["protocols"] == assess(model, "dev", out=small / "a").as_json()["protocols"]
    assert again.name == "counting"


def test_what_cannot_be_run_costs_nothing_else(small, monkeypatch, capsys):
    monkeypatch.setattr(battery, "BATTERY", ("broken", "sized"))
    found = assess("lj", "dev", out=small / "a")
    assert found.failed == {"broken": "the data is not here"}
    assert not found.complete
    assert not found.as_json()["sound"]
    assert found.verdict.answer("holes") == "no"
    assert sfumato("assess", "lj", "--out", "a") == 1
    assert "broken could not be run: the data is not here" in capsys.readouterr().out


def test_a_model_that_does_not_exist_is_an_error(small, capsys):
    assert sfumato("assess", "ljj") == 2
    assert "did you mean" in capsys.readouterr().err
    assert not (small / "runs").exists()


def test_a_plan_names_every_protocol(small, monkeypatch, capsys):
    monkeypatch.setattr(battery, "BATTERY", ("sized", "broken"))
    costs = plan_assessment("lj", "standard", out=small / "a")
    assert isinstance(costs["sized"], Cost)
    assert costs["sized"].items == 4
    assert costs["broken"] == "the data is not here"
    assert not (small / "a").exists()
    assert sfumato("plan", "assess", "lj", "--size", "standard") == 0
    out = capsys.readouterr().out
    assert "sized" in out
    assert "the data is not here" in out


def test_the_table_of_questions_fits_80_columns(small):
    text = shown(question_table(assess("lj", "dev", out=small / "a").verdict))
    assert max(map(len, text.splitlines())) <= 80
    assert "nothing was asked: sfumato run nve" in " ".join(text.split())


def test_the_battery_is_in_the_table():
    known = [name for name in battery.BATTERY if name in PROTOCOLS]
    assert known[:2] == ["contract", "bsct"]
    assert [protocol.name for protocol in battery.battery()] == known
