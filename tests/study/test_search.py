"""Searches: what is drawn, given up, chosen and confirmed; and a whole one of tiny models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from sfumato.cli import main
from sfumato.study import search as searching
from sfumato.study.query import read_search
from sfumato.study.run import How
from sfumato.study.search import Journal, Searched, Tried, best_of, gains, pareto_front, run_search
from sfumato.study.search_page import in_words, search_page
from tests import made_training as made

pytest.importorskip("optuna")

FORCE, SPEED = "errors.force_mae", "speed.time"


@pytest.fixture
def write(tmp_path):
    """Write a search of a made set, some of it changed."""
    data = made.written(tmp_path / "set.h5")
    run = json.loads(made.settings(data).model_dump_json())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    errors = {"protocol": "errors", "data": str(data), "settings": {"split": "val"}}
    content = {
        "train": "run.yaml",
        "space": {
            "stages.0.lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "model.graph.k": {"low": 3, "high": 5},
            "model.graph.rank": {"choices": ["compact", "hard"]},
        },
        "objectives": {FORCE: "lower", "errors.energy_mae": "lower"},
        "trials": 4,
        "measure": [errors],
        "confirm": [7],
        "sizes": {"dev": {"trials": 2, "confirm": []}},
    }

    def written(**changes):
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    written.errors = errors
    return written


def tried(number, *values, keys=(FORCE, SPEED)):
    return Tried(number, {"a": number}, {key: [v, None, None] for key, v in zip(keys, values)})


def objectives(write, **better):
    return read_search(write(objectives=better or {FORCE: "lower", SPEED: "lower"}))[0]


def test_the_front_is_what_nothing_beats(write):
    search = objectives(write)
    points = [(3, 3), (1, 5), (5, 1), (3, 4), (2, 2), (2, 2), (math.nan, 0)]
    trials = [tried(k, *p) for k, p in enumerate(points)] + [Tried(7, {}, {})]
    assert pareto_front(trials, search) == [1, 2, 4, 5]
    turned = objectives(write, **{FORCE: "higher", SPEED: "lower"})
    assert pareto_front(trials, turned) == [2]


def test_the_winner_has_the_largest_least_gain(write):
    search = objectives(write)
    trials = [tried(0, 4, 4), tried(1, 1, 3.9), tried(2, 2, 2), tried(3, 3, 1)]
    front = pareto_front(trials, search)
    assert gains(trials[2], trials[0], search) == pytest.approx({FORCE: math.log(2), SPEED: math.log(2)})
    assert best_of(trials, front, search) == 2
    # Where nothing improves both, the start remains.
    trials = [tried(0, 4, 4), tried(1, 1, 5)]
    assert best_of(trials, pareto_front(trials, search), search) is None
    # Without a start there is nothing to compare with.
    assert best_of([Tried(0, {}, {}), tried(1, 1, 1)], [1], search) is None


def test_a_whole_search(write, tmp_path, capsys, monkeypatch):
    """Made in one go, and killed after every trial: the same trials with the same numbers."""
    path, how = write(), How(trials=tmp_path / "trials")
    found = run_search(path, out=tmp_path / "out", how=how)
    assert [t.number for t in found.trials] == [0, 1, 2, 3]
    assert [t.reason for t in found.trials] == [""] * 4
    assert found.trials[0].changes == {}
    assert len({json.dumps(t.changes) for t in found.trials}) == 4
    assert all(1e-4 <= t.changes["stages.0.lr"] <= 1e-2 for t in found.trials[1:])
    assert all(t.changes["model.graph.k"] in (3, 4, 5) for t in found.trials[1:])
    assert (found.confirmation is None) == (found.winner is None)

    real = Journal.tell

    def killed(self, number, record):
        raise KeyboardInterrupt

    for _ in range(3):
        monkeypatch.setattr(Journal, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            run_search(path, out=tmp_path / "again", how=how)
        calls = []

        def once(self, number, record, calls=calls):
            if calls:
                raise KeyboardInterrupt
            calls.append(number)
            real(self, number, record)

        monkeypatch.setattr(Journal, "tell", once)
        with pytest.raises(KeyboardInterrupt):
            run_search(path, out=tmp_path / "again", how=how)
    monkeypatch.setattr(Journal, "tell", real)
    again = run_search(path, out=tmp_path / "again", how=how)

    def content(one):
        return [(t.number, t.changes, t.value(FORCE)) for t in one.trials]

    assert content(again) == content(found)
    assert (again.front, again.winner) == (found.front, found.winner)
    text = json.loads((tmp_path / "out" / "search.json").read_text())
    assert text["winner"] == found.winner
    assert len(text["trials"]) == 4
    # The journal is optuna's.
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "out" / "optuna.log")))
    kept = optuna.load_study(study_name="search", storage=storage)
    values = [[t.value(key) for key in found.settings.objectives] for t in found.trials]
    assert [t.values for t in kept.trials] == values
    with pytest.raises(ValueError, match="has another search"):
        run_search(write(seed=3), out=tmp_path / "out", how=how)


@pytest.mark.slow
def test_a_poor_look_ends_a_trial(write, tmp_path, monkeypatch):
    early = {"measure": write.errors, "number": FORCE, "share": 0.5, "keep": 0.01, "first": 2}
    path, how = write(early=early, confirm=[]), How(trials=tmp_path / "trials")
    found = run_search(path, out=tmp_path / "out", how=how)
    looks = [t.look for t in found.trials]
    assert all(look is not None for look in looks)
    for k in (2, 3):
        worst = np.quantile(looks[:k], 0.01)
        given_up = looks[k] > worst
        assert bool(found.trials[k].numbers) != given_up
        assert ("given up: errors.force_mae was" in found.trials[k].reason) == given_up
    assert any(t.reason for t in found.trials), "choose another seed: nothing was given up"
    steps = [
        json.loads(p.read_text().splitlines()[-1])["step"] for p in tmp_path.glob("trials/*/train/log.jsonl")
    ]
    assert sorted(set(steps)) == [3, 6]
    # Half a training that is taken up again ends as one without a look.
    whole = run_search(write(confirm=[]), out=tmp_path / "whole", how=How(trials=tmp_path / "apart"))
    assert found.trials[0].value(FORCE) == whole.trials[0].value(FORCE)


def test_words_and_page(write):
    search = objectives(write)
    trials = [tried(0, 4e-3, 4e-6), tried(1, 2e-3, 2e-6), Tried(2, {"a": 2.0}, {}, 9.0, "given up: x")]
    found = Searched(search, trials, [1], 1)
    first, second, *_ = in_words(found)
    assert first == "3 trials, 1 given up early; 1 on the Pareto front."
    assert second == "Winner: trial 1 (a = 1)."
    text = "".join(search_page(found, "toy").body)
    assert "+100%" in text
    assert "given up: x" in text
    nothing = Searched(search, trials[:1], [0], None)
    assert "nothing to confirm" in in_words(nothing)[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"model.grph.k": {"low": 1, "high": 2}}}, "model.grph.k = 1: .*grph"),
        ({"space": {"model.graph.k": {"low": 5, "high": 2}}}, "low = 5 is not below high = 2"),
        ({"space": {"weight_decay": {"low": 0, "high": 2, "log": True}}}, "low = 0 has no logarithm"),
        ({"space": {"model.graph.rank": {"choices": ["soft", "hard"]}}}, "model.graph.rank = soft: "),
        ({"space": {"model.graph.rank": {"choices": ["hard"]}}}, "choices"),
        ({"space": {}}, "space"),
        ({"objectives": {}}, "objectives"),
        ({"objectives": {FORCE: "best"}}, "objectives"),
        ({"start": {"model.width": -1}}, "start: .*width"),
        ({"confirm": [0]}, "0 is the seed of the search"),
        ({"trails": 3}, "unknown key 'trails'; .*trials"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_before_it_begins(write, changes, message):
    with pytest.raises(ValueError, match=message):
        read_search(write(**changes))


def test_an_objective_that_nothing_measures(write, tmp_path):
    path = write(objectives={"bsct.fsd_full": "lower"}, trials=1)
    with pytest.raises(ValueError, match=r"nothing measured 'bsct\.fsd_full'; there are .*errors\.force_mae"):
        run_search(path, out=tmp_path / "out", how=How(trials=tmp_path / "trials"))


def test_without_optuna_it_says_what_to_install(write, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install 'sfumato\[search\]'"):
        searching._optuna()


def test_the_command(write, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    path, asked = write(), []

    def searched(config, size, **options):
        asked.append((config, size, options["out"]))
        return Searched(objectives(write), [tried(0, 4e-3, 4e-6), tried(1, 2e-3, 2e-6)], [1], 1)

    monkeypatch.setattr(searching, "run_search", searched)
    with pytest.raises(SystemExit) as ended:
        main(["search", str(path), "--size", "dev", "--json", "j.json"])
    assert ended.value.code == 0
    folder = Path("runs/search-toy-dev")
    assert asked == [(path, "dev", folder)]
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "Winner: trial 1 (a = 1)." in said
    assert json.loads(Path("j.json").read_text())["winner"] == 1
    assert (folder / "report.html").exists()
