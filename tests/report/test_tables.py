"""Tables of the kit: rows, coverage, failures of any protocol, settings of each model."""

import re

import pytest

from sfumato.commands.data_tables import exclusion_table
from sfumato.config import Settings as Base
from sfumato.io import Exclusion
from sfumato.metrics.stats import Estimate
from sfumato.report import tables
from sfumato.report.tables import Failures, group_failures, settings_by_model, settings_note
from tests.made_runs import row_of, shown


class Settings(Base):
    floor: float = 1.0
    turned: int = 100


def test_rows_show_words_as_they_are():
    text = shown(tables.rows_table(("model", "needs"), [("chgnet:[FILE]", "[red]x[/red]")]))
    assert "chgnet:[FILE]" in text
    assert "[red]x[/red]" in text
    with pytest.raises(ValueError, match="expected 2 words, got 1"):
        tables.rows_table(("a", "b"), [("x",)])


def test_names_to_be_typed_stay_on_one_line():
    name = "a-set-with-a-name-of-many-words"
    text = shown(tables.rows_table(("set", "level", "what"), [(name, "q" * 40, "x " * 40)], names=True))
    assert row_of(text, name)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("q") == 40


def test_a_cell_says_on_how_many_items_it_rests_where_these_are_not_all():
    e = Estimate(33.21, 28.12, 39.0, 8, 9)
    assert tables.estimate_cell(e).plain == "33.2 [28.1, 39.0] n=8"
    assert tables.estimate_cell(e, 8).plain == "33.2 [28.1, 39.0]"
    assert tables.estimate_cell(None).plain == "n/a"
    assert tables.estimate_cell(Estimate(0, 0, 0, 0, 9)).plain == "n/a"
    assert [str(tables.coverage_cell(n, 9).style) for n in (8, 9)] == ["bold red", ""]


@pytest.mark.parametrize("width", [80, 30, 26, 16])
def test_no_line_ends_within_an_interval(width):
    rows = [(-1.5e-7, -2.1e-7, -9.9e-8, 9), (25259.6, 20682.2, 29837.4, 8), (0.938, 0.480, 1.994, 9)]
    table = tables.plain_table("Numbers")
    table.add_column("model")
    table.add_column("number", justify="right")
    for name, row in zip("abc", rows):
        table.add_row(name, tables.estimate_cell(Estimate(*row, 9)))
    lines = shown(table, width).splitlines()
    assert max(map(len, lines)) <= width
    inside = [word for line in lines for word in re.findall(r"\[.*?\]|\[|\]", line)]
    if width > 20:
        assert inside == ["[-2.1e-7, -9.9e-8]", "[20682, 29837]", "[0.480, 1.994]"]
    flat = " ".join(" ".join(lines).replace("\n", " ").split())
    for number in ("-1.5e-7", "25260", "0.938", "n=8"):
        assert number in flat


def test_zero_beside_tiny_numbers_is_zero():
    assert tables.estimate_cell(Estimate(8.3e-14, 0.0, 1.8e-13, 9, 9)).plain == "8.3e-14 [0, 1.8e-13]"


def test_reasons_that_differ_in_numbers_are_one_kind_with_an_example():
    groups = group_failures(
        [("a", f"atom {k} is {k}.5 Å away", f"s{k}") for k in range(3)]
        + [("b", "atom 1 is 1.5 Å away", "s1"), ("a", "out of memory", "s8"), ("a", "out of memory", "s9")]
    )
    assert groups == [
        Failures("a", "for example atom 0 is 0.5 Å away", ["s0", "s1", "s2"]),
        Failures("a", "out of memory", ["s8", "s9"]),
        Failures("b", "atom 1 is 1.5 Å away", ["s1"]),
    ]
    text = shown(tables.failure_table(groups, "frames", {"a": 10, "b": 4}, most=2))
    assert "Frames that do not count" in text
    assert "3/10" in row_of(text, "a ")
    assert "and 1 more reasons" in text


def test_items_without_names_are_counted():
    text = shown(tables.failure_table([Failures("a", "not evaluated yet", unnamed=7)], "frames", {"a": 9}))
    assert row_of(text, "a ").split() == ["a", "7/9", "not", "evaluated", "yet"]


def test_a_line_says_which_model_has_which_settings():
    usual, other = Settings(), Settings(floor=0.5)
    assert settings_note({"a": usual, "b": usual}) == ""
    assert settings_note({"a": other, "b": other}) == "Settings other than the defaults: floor=0.5."
    assert settings_note({"a": usual, "b": other, "c": usual}) == (
        "Settings differ. a, c: the defaults; b: floor=0.5."
    )
    assert settings_note({"a": other}, hidden=("floor",)) == ""
    assert settings_note({}) == ""


def test_settings_are_given_once_where_models_share_them():
    each = {"a": {"floor": 1.0, "turned": 3}, "b": {"floor": 0.5, "turned": 3}}
    own = {"a": {"floor": 1.0}, "b": {"floor": 0.5}}
    assert settings_by_model(each) == {"turned": 3, "of each model": own}
    assert settings_by_model({"a": each["a"]}) == each["a"]


def test_reasons_and_names_that_repeat_a_whole_file_are_cut():
    word = "a" * 100_000
    groups = [Failures("m", f"charge: expected a number, got {word}", [word, "b"])]
    for table in (
        tables.failure_table(groups, "scans", {"m": 3}),
        exclusion_table([Exclusion(word, f"charge: expected a number, got {word}")]),
    ):
        text = shown(table)
        assert "expected a number" in " ".join(text.split())
        assert "(100" in text
        assert len(text) < 5_000
