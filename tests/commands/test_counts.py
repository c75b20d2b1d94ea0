"""Counts on the command line: whole numbers, and none where there must be one, at every command."""

import re

import pytest
from cyclopts import CycloptsError

from sfumato.cli import build, main
from sfumato.potentials.specs import ModelSpec

COUNTS = ("--workers", "--threads", "--frames", "--per-type", "--conformers")
NEEDED = {("data", "rare-events"): ["--trajectory", "--crystal"], ("data", "hop-path"): ["--crystal", "--by"]}
"""Options besides --out and --model that a command cannot do without."""

APP = build([])


def leaves(app, path=()):
    """Every command of the program, with the words that lead to it."""
    names = [name for name in app if not name.startswith("-")]
    if not names:
        yield path, app
    for name in names:
        yield from leaves(app[name], (*path, name))


def integers():
    """Words that make each command complete, and its options that take an integer."""
    for path, app in leaves(APP):
        arguments = app.assemble_argument_collection()
        given = [argument.name for argument in arguments]
        needed = [] if "--model" in given else ["x.smi"]
        asked = ["--out", "--model", *NEEDED.get(path, ())]
        needed += [word for option in asked if option in given for word in (option, "x")]
        options = [argument.name for argument in arguments if re.search(r"\bint\b", str(argument.hint))]
        if options:
            yield pytest.param([*path, *needed], options, id=" ".join(path))


@pytest.mark.parametrize(("words", "options"), list(integers()))
def test_an_integer_is_taken_as_it_is_typed(words, options):
    def parse(option, value):
        APP.parse_args([*words, option, value], exit_on_error=False, print_error=False)

    for option in options:
        parse(option, "3")
        for value in ("1.5", "two", "1e99"):
            with pytest.raises(CycloptsError, match=f"{option}: a whole number is needed"):
                parse(option, value)
        if option in COUNTS:
            for value in ("0", "-1"):
                with pytest.raises(CycloptsError, match=f"{option}: at least one is needed"):
                    parse(option, value)


def test_the_options_with_counts_are_all_looked_at():
    seen = [option for case in integers() for option in case.values[1]]
    assert set(COUNTS) <= set(seen)
    assert len(seen) > 35


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "bsct", "--model", "morse", "--seed", "-1"], "seed = -1"),
        (["run", "bsct", "--model", "morse", "--limit-per-bond", "0"], "limit_per_bond = 0"),
        (["plan", "bsct", "--model", "morse", "--limit-per-bond", "-1"], "limit_per_bond = -1"),
        (["run", "bsct", "--model", "morse", "--stride", "0"], "stride = 0"),
        (["eval", "--model", "morse", "--data", "organic-mini", "--turned", "-1"], "turned = -1"),
        (["eval", "--model", "morse", "--data", "organic-mini", "--limit-per-subset", "0"], "per_subset = 0"),
        (["check", "morse", "--seed", "-1"], "not negative is needed, got -1"),
        (["data", "sample", "m.smi", "-o", "s.h5", "--thermal", "-1"], "not negative is needed"),
        (["data", "sample", "m.smi", "-o", "s.h5", "--temperatures", "nan"], "temperatures: positive"),
        (["label", "m.smi", "-o", "s.h5", "--recycle", "-1"], "--recycle: a number that is not negative"),
        (["label", "m.smi", "-o", "s.h5", "--timeout", "0"], "timeout > 0 is needed"),
    ],
)
def test_no_command_takes_a_count_of_nothing(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ModelSpec, "resolve", lambda self: pytest.fail("no work is to be begun"))
    (tmp_path / "m.smi").write_text("O water\n")
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.smi"]
