"""Studies of tiny models: read, made, continued, and what goes wrong on the way."""

import json

import pytest
import yaml

from sfumato.cli import main
from sfumato.study import budget, trial
from sfumato.study.run import How, plan_study, run_study
from sfumato.study.space import Budget, read_study
from tests import made_training as made


@pytest.fixture
def study(tmp_path):
    """A study of four trials on a made set, and what to change in it."""
    data = made.written(tmp_path / "set.h5")
    run = json.loads(made.settings(data).model_dump_json())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    content = {
        "train": "run.yaml",
        "groups": {"rank": {"hard": {"model.graph.rank": "hard"}, "soft": {}}},
        "baseline": "soft",
        "seeds": [0, 1],
        "measure": [{"protocol": "errors", "data": str(data), "settings": {"split": "val"}}],
        "sizes": {"dev": {"seeds": [5], "budget": {"steps": 3}}},
    }

    def write(**changes):
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return write


def command(*words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


def how(tmp_path, **kind):
    return How(trials=tmp_path / "trials", **kind)


def test_every_variant_is_trained_and_measured_once(study, tmp_path, monkeypatch):
    path, out = study(), tmp_path / "out"
    found = run_study(path, out=out, how=how(tmp_path))
    assert not found.missing
    entry = found.entries["hard"]["errors.force_mae"]
    assert sorted(entry.values) == [0, 1]
    assert entry.estimate.low < entry.estimate.mean < entry.estimate.high
    assert entry.difference.n == 2
    assert found.facts["soft"]["steps"] == 6
    assert json.loads((out / "study.json").read_text())["variants"]["soft"]["steps"] == 6

    def never(*args):
        raise AssertionError("a finished trial was made again")

    monkeypatch.setattr(trial, "run_settings", never)
    again = run_study(path, out=out, how=how(tmp_path))
    assert again.as_json() == found.as_json()


def test_another_study_takes_over_trainings(study, tmp_path):
    run_study(study(seeds=[0]), out=tmp_path / "one", how=how(tmp_path))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "trials").rglob("model.safetensors")}
    assert len(before) == 2
    groups = {"all": {"hard kNN, renamed": {"model.graph.rank": "hard"}, "soft": {}}}
    found = run_study(study(groups=groups, seeds=[0]), out=tmp_path / "two", how=how(tmp_path))
    assert not found.missing
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "trials").rglob("model.safetensors")} == before


def test_a_trial_that_was_stopped_goes_on(study, tmp_path, monkeypatch):
    path, real = study(seeds=[0], groups={"only": {"soft": {}}}), trial.measured

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "measured", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(path, out=tmp_path / "out", how=how(tmp_path))
    monkeypatch.setattr(trial, "measured", real)
    found = run_study(path, out=tmp_path / "out", how=how(tmp_path))
    whole = run_study(path, out=tmp_path / "whole", how=how(tmp_path / "apart"))
    pair = [one.as_json()["variants"]["soft"] for one in (found, whole)]
    for one in pair:
        assert one.pop("cpu") > 0
        assert one["numbers"].pop("speed.time")["mean"] > 0
    assert pair[0] == pair[1]


def test_a_failed_trial_costs_no_other(study, tmp_path, monkeypatch):
    real = trial.run_settings

    def sometimes(settings, folder):
        if settings.model.graph.rank == "hard":
            raise ValueError("the loss is not finite")
        return real(settings, folder)

    monkeypatch.setattr(trial, "run_settings", sometimes)
    path = study(seeds=[0])
    found = run_study(path, out=tmp_path / "out", how=how(tmp_path))
    assert set(found.missing) == {"hard, seed 0"}
    assert "the loss is not finite" in found.missing["hard, seed 0"]
    assert len(found.entries["soft"]["errors.force_mae"].values) == 1
    monkeypatch.setattr(trial, "run_settings", real)
    again = how(tmp_path, retry_failed=True)
    assert not run_study(path, out=tmp_path / "out", how=again).missing


def test_a_budget_keeps_the_shares_of_stages(study, tmp_path):
    stages = [
        {"name": "a", "steps": 30, "batch": 4, "warmup": 3},
        {"name": "b", "epochs": 5, "batch": 4},
    ]
    settings = made.settings(tmp_path / "set.h5", *stages)
    study()
    assert budget.steps_within(None, settings) == [30, 30]  # 24 frames in batches of 4
    assert budget.steps_within(Budget(steps=10), settings) == [5, 5]
    first, second = budget.within(Budget(steps=10), settings, tmp_path).stages
    assert (first.steps, first.epochs, first.warmup) == (5, None, 0.5)
    assert (second.steps, second.epochs) == (5, None)
    # Decided once: a training goes on as it began.
    assert [s.steps for s in budget.within(Budget(steps=99), settings, tmp_path).stages] == [5, 5]
    timed = budget.steps_within(Budget(seconds=1.0), settings)
    assert timed[0] > 1


def test_a_size_replaces_what_it_names(study, tmp_path):
    small, _ = read_study(study(), "dev")
    assert small.seeds == (5,)
    assert small.budget == Budget(steps=3)
    (cost, _) = plan_study(study(), "dev", out=tmp_path / "out")
    assert (cost.variant, cost.steps, cost.trials, cost.done) == ("hard", 3, 1, 0)
    with pytest.raises(ValueError, match="has no 'fast'; it has dev"):
        read_study(study(), "fast")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "sofd"}, "baseline: there is no variant 'sofd'.*soft"),
        ({"groups": {"a": {"soft": {}}, "b": {"soft": {}}}}, "two variants are called 'soft'"),
        ({"groups": {"a": {"soft": {"model.grph.k": 3}}}}, "variant 'soft': .*grph"),
        ({"groups": {"a": {"soft": {"model.width": -1}}}}, "variant 'soft': .*width"),
        ({"groups": {"a": {"soft": {"stages.7.lr": 1}}}}, "variant 'soft': .*no stage '7'"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds: one is there twice"),
        ({"measure": [{"protocol": "nve"}, {"protocol": "nve"}]}, "one protocol is there twice"),
        ({"budget": {"steps": 3, "seconds": 4}}, "either steps or seconds"),
        ({"budget": {}}, "either steps or seconds"),
        ({"train": "other.yaml"}, "other.yaml"),
        ({"varants": {}}, "unknown key 'varants'"),
    ],
)
def test_a_study_that_cannot_be_made_is_refused_before_it_begins(study, changes, message):
    with pytest.raises(ValueError, match=message):
        read_study(study(**changes))


@pytest.mark.slow
def test_the_commands(study, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    path = str(study())
    assert command("plan", "study", path, "--size", "dev") == 0
    assert "together" in capsys.readouterr().out
    result = tmp_path / "j.json"
    assert command("study", path, "--size", "dev", "--json", str(result)) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "force MAE" in said
    assert set(json.loads(result.read_text())["variants"]) == {"hard", "soft"}
    assert "Student" in (tmp_path / "runs/study-toy-dev/report.html").read_text()
