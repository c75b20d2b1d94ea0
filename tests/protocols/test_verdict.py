"""Verdicts: what protocols answer together, in one folder or several, at the top of table, page and JSON."""

import json
from types import SimpleNamespace

import pytest

from sfumato.cli import main
from sfumato.execution.folder import RunFolder
from sfumato.protocols.overview import report_pages, verdict_page, verdict_table, verdicts
from sfumato.protocols.run import load_others, load_run, run
from sfumato.protocols.table import PROTOCOLS
from sfumato.protocols.verdict import QUESTIONS, Answer, Evidence, Said, Verdict, unanswered
from tests.made_runs import HOSTILE, make_run, shown
from tests.protocols.test_seam import Toy

RULE = ("below 1 eV", "more is too much")


def said(question, answer, source="toy", fault=None, lacking=""):
    fault = fault or (f"{question} is wrong" if answer == "no" else "")
    piece = Evidence(f"size of {question}", 2.5, "eV", "somewhere")
    return Said(source, Answer(question, answer, *RULE, (piece,), fault, lacking))


def test_one_no_outweighs_any_yes_and_unknown_is_neither():
    for answers, expected in (
        (("yes", "no", "unknown"), "no"),
        (("unknown", "yes"), "yes"),
        (("unknown",), "unknown"),
        ((), "unknown"),
    ):
        assert Verdict(tuple(said("gradient", a) for a in answers)).answer("gradient") == expected


def test_what_makes_a_potential_broken_is_not_what_makes_it_rough():
    rough = Verdict((said("gradient", "yes"), said("barriers", "no")))
    assert not rough.broken
    assert not rough.sound
    assert rough.in_words() == "barriers is wrong"
    broken = Verdict((said("barriers", "no"), said("continuous", "no")))
    assert broken.broken
    assert broken.in_words() == "broken: continuous is wrong; barriers is wrong"


def test_a_line_says_what_is_unknown_and_what_is_lacking():
    assert Verdict((said("gradient", "yes"),)).in_words() == "no fault"
    partly = Verdict((said("gradient", "yes", lacking="2 of 9 scans have no result"),))
    assert not partly.sound
    assert partly.in_words() == "no fault (2 of 9 scans have no result)"
    open_ = Verdict((said("gradient", "yes"), said("holes", "unknown")))
    assert open_.in_words() == "no fault (unknown: holes)"
    assert Verdict((said("gradient", "unknown"),)).in_words() == "unknown: no question could be answered"
    control = Verdict((said("gradient", "no"),), control=True)
    assert control.in_words().endswith("(a control, broken on purpose)")


def test_a_fault_that_several_name_is_named_once():
    two = Verdict((said("gradient", "no", "a", "it is off"), said("continuous", "no", "b", "it is off")))
    assert two.in_words() == "broken: it is off"


def test_evidence_of_all_is_in_the_json_with_thresholds():
    verdict = Verdict((said("gradient", "yes", "a"), said("gradient", "no", "b")))
    written = json.loads(json.dumps(verdict.as_json(), allow_nan=False))["answers"]["gradient"]
    assert written["answer"] == "no"
    assert written["question"] == QUESTIONS["gradient"].words
    assert [piece["source"] for piece in written["evidence"]] == ["b", "a"]
    assert written["evidence"][0]["threshold"] == RULE[0]
    assert written["evidence"][0]["numbers"][0]["value"] == 2.5
    assert unanswered([verdict]) == [key for key in QUESTIONS if key != "gradient"]


def test_answers_are_checked():
    with pytest.raises(ValueError, match="did you mean 'gradient'"):
        Answer("gradiant", "yes", *RULE)
    with pytest.raises(ValueError, match="names a fault"):
        Answer("gradient", "no", *RULE)
    with pytest.raises(ValueError, match="names a fault"):
        Answer("gradient", "yes", *RULE, fault="none")


# --- from runs


class Answering(Toy):
    """A toy that looks for holes."""

    name = "answering"

    def answers(self, run, name):
        size = max(run.models[name].values)
        fault = f"a hole of {size:.1f} eV" if size > 1 else ""
        yield Answer("holes", "no" if fault else "yes", *RULE, (Evidence("depth", size, "eV"),), fault)


class Other(Answering):
    """Another protocol that says that the surface is continuous."""

    name = "other"

    def answers(self, run, name):
        yield Answer("continuous", "yes", *RULE, (Evidence("jump", 0.0, "eV", HOSTILE),))


@pytest.fixture
def both(monkeypatch, tmp_path):
    monkeypatch.setitem(PROTOCOLS, "answering", Answering())
    monkeypatch.setitem(PROTOCOLS, "other", Other())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sfumato(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return ended.value.code


def test_two_protocols_in_one_folder_give_one_verdict(both, capsys):
    assert sfumato("run", "answering", "--model", "lj", "--out", "r") == 0
    alone = capsys.readouterr().out
    assert alone.startswith("Verdict")
    assert "a hole of " in alone
    assert sfumato("run", "other", "--model", "lj", "--out", "r", "--json", "r.json") == 0
    out = capsys.readouterr().out
    assert out.startswith("Verdict")
    assert "From other on dimers, answering on dimers." in " ".join(out.split())
    assert "a hole of " in out.split("lj: ")[0]
    assert (both / "r" / "other" / "run.json").exists()
    written = json.loads((both / "r.json").read_text())["models"]["lj"]["verdict"]
    assert {key: answer["answer"] for key, answer in written["answers"].items()} == {
        "continuous": "yes",
        "holes": "no",
    }
    assert sfumato("report", "r") == 0
    page = (both / "r" / "report.html").read_text()
    assert page.index("<h1>Verdict</h1>") < page.index("<h1>Toy</h1>")
    assert 'href="#answering0"' in page
    assert HOSTILE not in page


def test_the_second_protocol_goes_on_where_it_was(both):
    run("answering", ["lj"], out=both / "r")
    first = run("other", ["lj"], out=both / "r")
    again = run("other", ["morse"], out=both / "r")
    assert again.folder == first.folder == both / "r" / "other"
    assert load_run(both / "r").protocol.name == "answering"
    assert load_run(both / "r" / "other").models.keys() == {"lj", "morse"}
    assert RunFolder(both / "r").manifest()["models"].keys() == {"lj"}


def test_records_of_the_folder_above_are_taken_over(both):
    from tests.protocols.test_seam import Counting

    model = Counting()
    run("answering", [model], out=both / "r")
    run("other", [model], out=both / "r")
    assert model.asked == 3


def test_reports_of_several_folders_are_one(both, capsys):
    run("answering", ["lj"], out=both / "a")
    run("other", ["lj"], out=both / "b")
    assert sfumato("report", "a", "b", "--out", "all.html") == 0
    out = capsys.readouterr().out
    assert out.count("Verdict") == 1
    assert "a hole of " in (both / "all.html").read_text()


def test_a_run_beside_that_cannot_be_read_costs_no_result(both):
    run("answering", ["lj"], out=both / "r")
    here = run("other", ["lj"], out=both / "r")
    (both / "r" / "run.json").write_text("{")
    others, reasons = load_others(both / "r", here)
    assert others == []
    assert "not readable as JSON" in reasons[0]


def test_answers_of_another_potential_of_the_same_name_do_not_count(both):
    from tests.protocols.test_seam import Counting

    class Changed(Counting):
        identity = "changed"

    one = run(Answering(), [Counting()], out=both / "a")
    two = run(Other(), [Changed()], out=both / "b")
    assert one.verdict("counting", [two]).questions == ["holes"]
    assert verdicts([one, two]).keys() == {"counting (counti)", "counting (change)"}
    assert verdicts([one, run(Other(), [Counting()], out=both / "c")]).keys() == {"counting"}


def test_a_protocol_without_answers_has_no_verdict(both):
    silent = run(Toy(), ["lj"], out=both / "t")
    assert verdict_table([silent]) is None
    assert verdict_page([silent]) is None
    assert len(report_pages([silent])) == 1
    assert "verdict" not in silent.as_json()["models"]["lj"]


def test_controls_are_named_as_such():
    runs = [make_run(), make_run()]
    runs[0].manifest["models"]["rough"]["spec"] = "lj-hard-cutoff"
    table = shown(verdict_table(runs[:1]), width=300)
    assert "a control, broken on purpose" in table
    assert SimpleNamespace(**runs[1].verdict("rough").as_json()).control is False
