"""Bootstrap intervals and paired tests: exact cases, analytic intervals, simulated coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sfumato.metrics import resampling, stats
from sfumato.metrics.resampling import drawn, draws, every_sample
from sfumato.metrics.stats import (
    Estimate,
    by_stratum,
    estimates,
    estimates_by_stratum,
    holm,
    paired_difference,
    paired_differences,
    stratified_bootstrap,
)

NAN = float("nan")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- stratified bootstrap ------------------------------------------------------------------------------


def test_the_mean_is_plain_and_the_interval_is_the_analytic_one_on_a_large_sample():
    source = rng(1)
    groups = {"a": source.normal(10, 1, 300), "b": source.normal(50, 5, 100)}
    values = np.concatenate(list(groups.values()))
    estimate = stratified_bootstrap(values, ["a"] * 300 + ["b"] * 100, rng=rng(), resamples=40_000)
    error = math.sqrt(sum((len(g) / 400) ** 2 * g.var(ddof=1) / len(g) for g in groups.values()))
    assert estimate.mean == pytest.approx(values.mean(), rel=1e-14)
    # 40,000 resamples leave each end uncertain by about 1.3 % of the standard error, and t has longer tails.
    assert (estimate.high - values.mean()) / (1.959964 * error) == pytest.approx(1, abs=0.05)
    assert (values.mean() - estimate.low) / (1.959964 * error) == pytest.approx(1, abs=0.05)


def test_the_proportions_of_strata_are_kept():
    # Strata that differ but do not vary: an unstratified bootstrap would give a wide interval.
    values, strata = [1.0] * 3 + [100.0] * 7, ["a"] * 3 + ["b"] * 7
    estimate = stratified_bootstrap(values, strata, rng=rng())
    assert estimate == Estimate(70.3, 70.3, 70.3, 10, 10)
    mixed = stratified_bootstrap(values, ["a"] * 10, rng=rng())
    assert mixed.low < 60
    assert mixed.high > 80


def test_every_sample_is_enumerated_for_few_values():
    (counts,), weights = every_sample(5, 4)
    assert counts.shape == (70, 5)  # 4 draws of 5 values
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert (counts.sum(axis=1) == draws(5)).all()
    np.testing.assert_allclose(weights @ counts, draws(5) / 5)
    assert [draws(n) for n in (2, 3, 5, 9, 100)] == [2, 3, 4, 6, 52]
    assert [draws(n, paired=True) for n in (2, 3, 5, 9, 100)] == [2, 3, 4, 5, 44]
    all_four = np.array(list(itertools.product(range(5), repeat=4)))
    mean = weights @ np.abs(counts @ np.arange(5.0) / 4 - 2)
    assert mean == pytest.approx(np.abs(all_four.mean(axis=1) - 2).mean(), rel=1e-12)
    few = [1.0, 2.0, 4.0, 8.0, 16.0, 3.0]
    assert stratified_bootstrap(few, ["a"] * 6, rng=rng(1)) == stratified_bootstrap(
        few, ["a"] * 6, rng=rng(2)
    )


def simulated(sizes, values, trials: int, resamples: int = 999) -> tuple[float, float, float]:
    """Return the coverage of the interval, the share of p < 0.05, and that of agreement, true mean zero.

    Args:
        sizes: of the strata.
        values: given a shape, random numbers of mean zero.
        trials: data sets, judged by the same resamples.
    """
    strata = [f"{i:03}" for i, k in enumerate(sizes) for _ in range(k)]
    x = values((trials, len(strata)))
    pairs = {i: (row, np.zeros(len(strata))) for i, row in enumerate(x)}
    tests = list(paired_differences(pairs, strata, rng=rng(1), resamples=resamples).values())
    means = list(estimates(dict(enumerate(x)), strata, rng=rng(1), resamples=resamples).values())
    covered = np.mean([e.low <= 0 <= e.high for e in means])
    significant = np.array([t.p_value < 0.05 for t in tests])
    excluded = np.array([t.low > 0 or t.high < 0 for t in tests])
    return float(covered), float(significant.mean()), float((significant == excluded).mean())


VALUES = {
    "normal": lambda source: lambda size: source.normal(size=size),
    "lognormal": lambda source: lambda size: source.lognormal(0, 1, size) - math.exp(0.5),
    "milder": lambda source: lambda size: source.lognormal(0, 0.5, size) - math.exp(0.125),
    "exponential": lambda source: lambda size: source.exponential(size=size) - 1,
}
DESIGNS = {
    "nine types of one scan": [1] * 9,
    "one type of nine": [9],
    "nine types of three": [3] * 9,
    "three types of nine": [9] * 3,
    "five types of a hundred": [100] * 5,
    "a hundred types of five": [5] * 100,
    "one type of five": [5],
    "one type of six": [6],
    "one type of seven": [7],
    "one type of fourteen": [14],
    "one type of twenty": [20],
}


@pytest.mark.parametrize("design", ["nine types of one scan", "nine types of three", "one type of five"])
@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_intervals_cover_and_p_values_agree(design, kind):
    # 600 trials leave ±0.018 at two standard errors of 0.95, ±0.024 of 0.90.
    covered, _, agree = simulated(DESIGNS[design], VALUES[kind](rng(7)), 600)
    assert covered == pytest.approx(0.955, abs=0.035) if kind == "normal" else covered > 0.88
    assert agree == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_coverage_by_simulation(design):
    trials = 1000 if sum(DESIGNS[design]) >= 400 else 8000
    spread = 2 * math.sqrt(0.05 * 0.95 / trials)
    for kind, low, high in (
        ("normal", 0.93, 0.97),
        ("milder", 0.93, 0.97),
        ("exponential", 0.92, 0.975),
        ("lognormal", 0.90, 0.97),
    ):
        covered, significant, agree = simulated(DESIGNS[design], VALUES[kind](rng(3)), trials, 1999)
        assert low - spread <= covered <= high + spread, (kind, covered)
        assert agree >= 0.99
        if "nine" in design and kind in ("milder", "exponential"):
            assert significant <= 0.06, kind
        if sum(DESIGNS[design]) == 9:
            assert significant <= 0.065, kind  # of a lognormal with σ = 1 its longest tail is seldom in nine


def test_strata_of_one_are_pooled_and_never_give_a_false_certainty():
    values, names = [1.0, 4.0, 9.0, 16.0, 25.0], ["a", "b", "c", "d", "e"]
    assert stratified_bootstrap(values, names, rng=rng()) == stratified_bootstrap(
        values, ["x"] * 5, rng=rng()
    )
    # A single lone value joins the smallest other stratum.
    lone = stratified_bootstrap([1, 2, 5, 5, 5, 9], ["a", "a", "b", "b", "b", "c"], rng=rng())
    joined = stratified_bootstrap([1, 2, 5, 5, 5, 9], ["a", "a", "b", "b", "b", "a"], rng=rng())
    assert (lone.low, lone.high) == pytest.approx((joined.low, joined.high), rel=0.1)
    assert lone.low < lone.mean < lone.high


def test_coverage_counts_and_values_that_cannot_have_an_interval():
    assert stratified_bootstrap([1.0, NAN, 3.0], ["a", "a", "b"], rng=rng(), total=9).n == 2
    given_all = stratified_bootstrap([1.0, NAN, 3.0], ["a", "a", "b"], rng=rng())
    assert (given_all.mean, given_all.n, given_all.total) == (2.0, 2, 3)
    four = stratified_bootstrap([4.0, NAN, 5.0, 7.0, 8.0], list("abbaa"), rng=rng())
    assert (four.mean, four.n) == (6.0, 4)
    assert np.isnan([four.low, four.high]).all()  # fewer than five say too little
    one = stratified_bootstrap([4.0, NAN], ["a", "b"], rng=rng())
    assert (one.mean, one.n, one.total) == (4.0, 1, 2)
    assert np.isnan([one.low, one.high]).all()
    none = stratified_bootstrap([], [], rng=rng(), total=5)
    assert (none.n, none.total) == (0, 5)
    assert np.isnan([none.mean, none.low, none.high]).all()


def test_the_generator_decides_and_memory_is_bounded(monkeypatch):
    values, strata = rng(3).normal(size=40), ["a", "b"] * 20
    first = stratified_bootstrap(values, strata, rng=rng(5))
    assert first == stratified_bootstrap(values, strata, rng=rng(5))
    assert first != stratified_bootstrap(values, strata, rng=rng(6))
    paired = paired_difference(values, values[::-1], strata, rng=rng(5))
    monkeypatch.setattr(resampling, "CHUNK", 500)
    monkeypatch.setattr(stats, "CHUNK", 500)
    again = stratified_bootstrap(values, strata, rng=rng(5))
    assert (again.low, again.high) == pytest.approx((first.low, first.high), rel=1e-12)
    cut = paired_difference(values, values[::-1], strata, rng=rng(5))
    assert cut.p_value == pytest.approx(paired.p_value, rel=1e-9)
    assert max(len(part[0]) for part in drawn([np.arange(20)] * 2, 5, 999, False)) <= 25


def test_many_columns_are_each_as_alone():
    source, strata = rng(3), ["a", "b", "b", "c"] * 10
    columns = {str(k): source.lognormal(size=40) for k in range(4)}
    columns["1"][[3, 7]] = NAN
    together = estimates(columns, strata, rng=rng(5))
    pairs = {"01": (columns["0"], columns["1"]), "23": (columns["2"], columns["3"])}
    compared = paired_differences(pairs, strata, rng=rng(5))
    each = estimates_by_stratum(columns, strata, rng=rng(5))
    for name, values in columns.items():
        alone = stratified_bootstrap(values, strata, rng=rng(5))
        assert (together[name].n, together[name].total) == (alone.n, alone.total)
        assert vars(together[name]) == pytest.approx(vars(alone), rel=1e-12)
        for stratum, estimate in by_stratum(values, strata, rng=rng(5)).items():
            assert vars(each[name][stratum]) == pytest.approx(vars(estimate), rel=1e-12)
    for name, (a, b) in pairs.items():
        alone = paired_difference(a, b, strata, rng=rng(5))
        assert vars(compared[name]) == pytest.approx(vars(alone), rel=1e-9)
    assert estimates({}, strata, rng=rng()) == paired_differences({}, strata, rng=rng()) == {}


def test_values_that_are_nearly_all_zero_have_a_finite_and_wide_interval():
    rare = [0.0] * 8 + [0.9]
    estimate = stratified_bootstrap(rare, ["a"] * 9, rng=rng())
    assert estimate.low < 0.1
    assert 0.4 < estimate.high < 2
    many = stratified_bootstrap([0.0] * 97 + [0.5, 0.6, 0.7], ["a"] * 100, rng=rng())
    assert many.mean == pytest.approx(0.018)
    assert 0.03 < many.high < 0.3
    none = stratified_bootstrap([0.0] * 9, ["a"] * 9, rng=rng())
    assert (none.mean, none.low, none.high) == (0.0, 0.0, 0.0)


def test_a_wider_confidence_gives_a_wider_interval():
    values, strata = rng(3).normal(size=40), ["a"] * 40
    narrow = stratified_bootstrap(values, strata, rng=rng(), confidence=0.5)
    wide = stratified_bootstrap(values, strata, rng=rng(), confidence=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "strata", "options", "message"),
    [
        ([1.0, 2.0], ["a"], {}, "one value for each of the 1 strata labels"),
        ([1.0, np.inf], ["a", "a"], {}, "values: value 1 is infinite; use nan"),
        ([1.0, 2.0], ["a", "a"], {"resamples": 0}, "resamples: at least 1"),
        ([1.0, 2.0], ["a", "a"], {"confidence": 95}, "confidence: between 0 and 1"),
        ([1.0, 2.0], ["a", "a"], {"total": 1}, "total: 1 is less than the 2"),
    ],
)
def test_impossible_input_is_refused(values, strata, options, message):
    with pytest.raises(ValueError, match=message):
        stratified_bootstrap(values, strata, rng=rng(), **options)


def test_by_stratum_estimates_each_alone_and_five_values_are_the_fewest():
    strata = ["N-O", "C-C", "C-C", "N-O", "O-P", *["C-S"] * 5]
    values = [1.0, 3.0, 10.0, NAN, 7.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    found = by_stratum(values, strata, rng=rng())
    assert list(found) == ["C-C", "C-S", "N-O", "O-P"]
    assert (found["C-C"].mean, found["N-O"].mean) == (6.5, 1.0)
    assert (found["N-O"].n, found["N-O"].total) == (1, 2)
    assert np.isnan([found[name].low for name in ("C-C", "N-O", "O-P")]).all()
    assert found["C-S"].low < 3 - 1.96  # Student's interval, which is right for normal values only
    assert found["C-S"].high - 3 == pytest.approx(3 - found["C-S"].low, rel=1e-9)
    assert by_stratum([], [], rng=rng()) == {}


# --- paired difference ---------------------------------------------------------------------------------


def exact_p(d) -> float:
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=len(d))]
    return float(np.mean(np.array(sums) >= abs(sum(d)) * (1 - 1e-12)))


@pytest.mark.parametrize("d", [[1.0], [1.0, 2.0], [3.0, 4.0, 5.0], [-0.3, -0.1, -0.2, 0.1]])
def test_few_pairs_have_the_p_value_of_all_sign_flips_and_no_interval(d):
    result = paired_difference(d, np.zeros(len(d)), ["a"] * len(d), rng=rng())
    assert result.mean == pytest.approx(np.mean(d))
    assert result.p_value == exact_p(d)
    assert result.p_value >= 1 / 8
    assert np.isnan([result.low, result.high]).all()
    assert result.fraction_lower == np.mean(np.array(d) < 0)


@pytest.mark.parametrize("pairs", [5, 6, 9, 12])
def test_no_p_value_is_below_what_so_many_signs_can_say(pairs):
    one_sign = 1 + 0.01 * rng(2).normal(size=pairs)
    result = paired_difference(one_sign, np.zeros(pairs), ["a"] * pairs, rng=rng())
    assert result.p_value >= 2.0 ** (1 - pairs)
    assert (result.low > 0) == (result.p_value < 0.05) == (pairs > 5)
    # Ties say nothing: four differences of one sign among many zeros are worth 1/8.
    ties = np.concatenate([one_sign[:4], np.zeros(8)])
    tied = paired_difference(ties, np.zeros(12), ["a"] * 12, rng=rng())
    assert tied.p_value >= 1 / 8
    assert tied.low <= 0


def test_the_p_value_is_never_zero_and_one_for_no_difference():
    b = np.arange(60.0)
    certain = paired_difference(b - 1, b, ["a"] * 60, rng=rng(), resamples=999)
    assert certain.p_value == 2 / 1000
    assert (certain.mean, certain.low, certain.high, certain.fraction_lower) == (-1, -1, -1, 1.0)
    same = paired_difference(b, b, ["a"] * 60, rng=rng(), resamples=999)
    assert (same.mean, same.low, same.high, same.fraction_lower, same.p_value) == (0.0, 0.0, 0.0, 0.0, 1.0)
    assert paired_difference([1.0], [5.0], ["a"], rng=rng()).p_value == 1.0


def test_p_values_of_equal_potentials_are_uniform():
    _, significant, _ = simulated([4, 4, 4], VALUES["normal"](rng(11)), 1000)
    assert significant == pytest.approx(0.04, abs=0.02)
    strata = ["a", "b", "c"] * 20
    pairs = {k: (rng(2 * k).normal(size=60), rng(2 * k + 1).normal(size=60)) for k in range(400)}
    p = [test.p_value for test in paired_differences(pairs, strata, rng=rng(), resamples=999).values()]
    # Two standard errors of 400 trials: 0.022 at 0.05, 0.05 at 0.5.
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.055)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_interval_and_p_value_never_contradict_each_other(confidence):
    source, strata = rng(4), ["a", "a", "b", "b", "b", "c", "c", "c", "c"]
    pairs = {k: (source.normal(0.7 * source.random(), 1, 9), np.zeros(9)) for k in range(300)}
    found = paired_differences(pairs, strata, rng=rng(), resamples=999, confidence=confidence).values()
    excluded = [one.low > 0 or one.high < 0 for one in found]
    assert excluded == [one.p_value < 1 - confidence for one in found]
    assert 0 < sum(excluded) < 300


def test_pairing_sees_what_the_spread_between_scans_hides():
    hard = rng(4).normal(40, 20, 45)  # scans differ by far more than the two potentials
    better = hard - 1 + rng(5).normal(0, 0.5, 45)
    result = paired_difference(better, hard, ["a", "b", "c"] * 15, rng=rng())
    assert result.high < 0
    assert result.p_value < 0.01
    assert result.fraction_lower > 0.9


def test_pairs_missing_a_value_are_left_out_and_counted():
    result = paired_difference([1.0, NAN, 3.0, 5.0], [0.0, 2.0, NAN, 6.0], list("aabb"), rng=rng())
    assert (result.mean, result.n, result.total, result.fraction_lower) == (0.0, 2, 4, 0.5)
    none = paired_difference([NAN], [1.0], ["a"], rng=rng())
    assert (none.n, none.total) == (0, 1)
    assert np.isnan([none.mean, none.fraction_lower, none.p_value]).all()
    with pytest.raises(ValueError, match="b: expected one value for each of the 2"):
        paired_difference([1.0, 2.0], [1.0], ["a", "a"], rng=rng())


# --- many comparisons --------------------------------------------------------------------------------------


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, NAN, 0.6]), [1.0, NAN, 1.0])
    assert holm([]).shape == (0,)
    assert holm([NAN]).tolist() == pytest.approx([NAN], nan_ok=True)
    for wrong in ([1.5], [-0.1], [np.inf], [[0.1]]):
        with pytest.raises(ValueError, match="p_values"):
            holm(wrong)


def test_holm_keeps_the_family_wise_error():
    source = rng(5)
    families = source.random((4000, 10))
    false = np.mean([(holm(p) < 0.05).any() for p in families])
    assert false == pytest.approx(0.05, abs=0.01)
    assert np.mean((families < 0.05).any(axis=1)) > 0.35
