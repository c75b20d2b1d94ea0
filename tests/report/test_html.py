"""Pages: joined to one file, safe in whatever is shown, written whole."""

import re

import pytest

from sfumato.report import html
from sfumato.report.figures import blank_figure
from sfumato.report.html import Page, failure_list, folded_if_long, linked, report_text, write_report
from sfumato.report.numbers import Metric
from sfumato.report.tables import Failures
from tests.made_runs import HOSTILE


def page(title="One", key="one"):
    figure = blank_figure("A title", 300)
    return Page(title, "below", [html.figure_block(key, figure, "a note")], figures=[(key, figure)])


def test_pages_are_joined_under_a_list_of_contents():
    text = report_text([page(), page(HOSTILE, "two")])
    assert text.count("plotly.js v") == 1
    assert '<a href="#page0">One</a>' in text
    assert '<header id="page1">' in text
    assert HOSTILE not in text
    assert "<nav>" not in report_text([page()])
    assert str(page()) == report_text([page()])
    with pytest.raises(ValueError, match="at least one page"):
        report_text([])


def test_a_script_of_several_pages_is_there_once():
    pages = [Page("a", "", [], scripts=["molecule.js"]), Page("b", "", [], scripts=["molecule.js"])]
    assert report_text(pages).count("querySelectorAll('.molecule')") == 1


def test_a_report_replaces_the_old_one_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    assert write_report([page()], path) == path
    old = path.read_text(encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report([page("Two")], path)
    assert path.read_text(encoding="utf-8") == old
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(OSError, match="is a folder"):
        write_report([page()], tmp_path)


def test_what_users_chose_is_text():
    for shown in (
        html.table([html.heading(HOSTILE, HOSTILE, hint=HOSTILE)], [], HOSTILE),
        html.definitions([(HOSTILE, HOSTILE)]),
        html.metric_definitions([Metric("k", HOSTILE, HOSTILE, HOSTILE)]),
        html.folded_json(HOSTILE, {HOSTILE: HOSTILE}),
        html.words_cell(HOSTILE),
        failure_list([Failures(HOSTILE, HOSTILE, [HOSTILE])], "frame"),
    ):
        assert "<img" not in shown
        assert "</script>" not in shown
        assert "&lt;img" in shown


def test_addresses_become_links_and_nothing_else_does():
    assert linked("see https://a.example/x?y=1, <b>") == (
        'see <a href="https://a.example/x?y=1" rel="noreferrer">https://a.example/x?y=1</a>, &lt;b&gt;'
    )
    assert "<a" not in linked("javascript:alert(1)")


def test_a_failure_list_counts_what_it_does_not_name():
    text = failure_list([Failures("m", "why", [str(k) for k in range(103)], 4)], "frame")
    assert '<td data-value="107">107</td>' in text
    assert "98, 99 and 3 more" in text


def test_long_tables_are_folded():
    assert folded_if_long("x", 2, "pair", 3) == "x"
    assert re.match("<details><summary>4 pairs</summary>x", folded_if_long("x", 4, "pair", 3))
