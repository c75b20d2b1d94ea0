"""What a study says of hand-made records."""

import json
import math

import pytest

from sfumato.execution.records import failed, ok
from sfumato.study.page import excludes_zero, in_words, study_page, study_tables
from sfumato.study.space import StudySettings
from sfumato.study.table import analyse, student

STUDY = StudySettings(
    train="run.yaml",
    groups={
        "head": {"hard": {"model.graph.rank": "hard"}, "soft": {}},
        "size": {"small": {"model.width": 4}},
    },
    baseline="soft",
    seeds=(0, 1, 2),
    measure=({"protocol": "errors"}, {"protocol": "nve"}),
)


def record(variant, seed, error, drift, interval=(0.0, 9.0)):
    numbers = {"errors.force_mae": [error, *interval], "nve.drift": [drift, None, None]}
    return ok(
        f"{variant}{seed}",
        seconds=1.0,
        variant=variant,
        seed=seed,
        numbers=numbers,
        steps=10 + seed,
        cpu=2.0,
        parameters=100,
    )


def made():
    values = {
        "hard": ([0.3, 0.5, 0.7], [10.0, 11.0, 12.0]),
        "soft": ([0.1, 0.2, 0.3], [-0.1, 0.0, 0.1]),
        "small": ([0.2, 0.2, 0.2], [0.0, 0.0, 0.0]),
    }
    return {
        (name, seed): record(name, seed, errors[seed], drifts[seed])
        for name, (errors, drifts) in values.items()
        for seed in range(3)
    }


def test_a_mean_over_seeds_has_the_interval_of_student():
    found = student([0.3, 0.5, 0.7], 3)
    half = 4.302652729911275 * 0.2 / math.sqrt(3)  # t(0.975, 2), s = 0.2
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert math.isnan(student([1.0], 3).low)
    assert math.isnan(student([], 3).mean)


def test_numbers_differences_and_the_best_of_a_group():
    found = analyse(STUDY, made())
    assert [column.metric.key for column in found.columns] == ["errors.force_mae", "nve.drift"]
    hard, soft = (found.entries[name]["errors.force_mae"] for name in ("hard", "soft"))
    assert soft.difference is None
    assert soft.best
    assert not hard.best
    d = hard.difference  # 0.2, 0.3, 0.4 seed by seed
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (d.mean, d.low, d.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    assert excludes_zero(d)
    assert not excludes_zero(found.entries["small"]["errors.force_mae"].difference)
    assert not found.entries["small"]["errors.force_mae"].best  # alone in its group
    assert found.facts["hard"] == {"steps": 11.0, "parameters": 100.0, "cpu": 2.0}


def test_what_predicts_trouble_in_dynamics():
    """Six variants whose drift, downwards, follows the FSD and not the force error."""
    names = {"one": [*"abc"], "two": [*"def"]}
    study = StudySettings(
        train="run.yaml",
        groups={group: {name: {"weight_decay": 1} for name in some} for group, some in names.items()},
        baseline="a",
        seeds=(0,),
        measure=({"protocol": "errors"}, {"protocol": "nve"}, {"protocol": "bsct"}),
    )
    errors, fsd = [3.0, 1.0, 6.0, 2.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0, 6.0, 5.0]
    records = {}
    for name, error, rough in zip("abcdef", errors, fsd):
        one = record(name, 0, error, -(rough**2))
        records[name, 0] = one | {"numbers": one["numbers"] | {"bsct.fsd_full": [rough, None, None]}}
    found = analyse(study, records)
    first, second = found.predictions
    assert (first.outcome, first.cheap) == ("nve.drift", "bsct.fsd_full")
    assert first.found.spearman.mean == pytest.approx(1)
    assert second.cheap == "errors.force_mae"
    assert second.found.partial is None
    # Ranks differ by 2, −1, 3, −2, −1, −1: ρ = 1 − 6 · 20/(6 · 35).
    assert second.found.spearman.mean == pytest.approx(1 - 120 / 210)
    (kept,) = [p for p in found.as_json()["predictions"] if p["cheap"] == "bsct.fsd_full"]
    assert set(kept["without"]) == {"one", "two"}
    assert kept["spearman"]["models"] == 6
    assert "predicts trouble in dynamics?" in "".join(study_page(found, "toy").body)
    assert analyse(STUDY, made()).predictions == []  # three variants say nothing


def test_a_signed_number_is_best_next_to_zero():
    records = made()
    for seed in range(3):
        records["hard", seed] = record("hard", seed, 1.0, -50.0)
    assert analyse(STUDY, records).entries["soft"]["nve.drift"].best


def test_one_seed_has_the_interval_of_what_was_measured():
    one = {("soft", 0): record("soft", 0, 0.2, 0.1, (0.15, 0.3))}
    entry = analyse(STUDY, one).entries["soft"]["errors.force_mae"]
    assert (entry.estimate.mean, entry.estimate.low, entry.estimate.high) == (0.2, 0.15, 0.3)
    assert entry.estimate.n == 1
    drift = analyse(STUDY, one).entries["soft"]["nve.drift"].estimate
    assert math.isnan(drift.low)


def test_what_failed_or_was_not_made_is_named():
    records = made()
    records["hard", 1] = failed("hard1", "the loss is not finite")
    del records["small", 2]
    found = analyse(STUDY, records)
    assert found.missing == {"hard, seed 1": "the loss is not finite", "small, seed 2": "not made"}
    entry = found.entries["hard"]["errors.force_mae"]
    assert entry.values == {0: 0.3, 2: 0.7}
    assert entry.difference.n == 2
    assert analyse(STUDY, {}).entries["soft"] == {}


def test_columns_are_those_that_were_asked_for():
    study = STUDY.model_copy(update={"columns": ("nve.drift",)})
    assert list(analyse(study, made()).entries["soft"]) == ["nve.drift"]
    study = STUDY.model_copy(update={"columns": ("nve.drfit",)})
    with pytest.raises(ValueError, match=r"nothing measured 'nve.drfit'.*nve.drift"):
        analyse(study, made())


def test_json_tables_and_page_say_it():
    found = analyse(STUDY, made())
    content = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert content["variants"]["hard"]["numbers"]["errors.force_mae"]["difference"]["mean"] == pytest.approx(
        0.3
    )
    assert content["variants"]["hard"]["changes"] == {"model.graph.rank": "hard"}
    assert len(study_tables(found)) == 2
    assert "force MAE, against soft: higher for hard." in in_words(found)
    text = str(study_page(found, "toy"))
    assert "500" in text  # meV/Å
    assert text == str(study_page(found, "toy"))
