"""Bootstrap intervals and paired tests: exact cases, analytic intervals, simulated coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sfumato.metrics import stats
from sfumato.metrics.stats import Estimate, by_stratum, paired_difference, stratified_bootstrap

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
    # 40,000 resamples leave each end uncertain by about 1.3 % of the standard error.
    assert (estimate.high - values.mean()) / (1.959964 * error) == pytest.approx(1, abs=0.03)
    assert (values.mean() - estimate.low) / (1.959964 * error) == pytest.approx(1, abs=0.03)


def test_the_proportions_of_strata_are_kept():
    # Strata that differ but do not vary: an unstratified bootstrap would give a wide interval.
    values, strata = [1.0] * 3 + [100.0] * 7, ["a"] * 3 + ["b"] * 7
    estimate = stratified_bootstrap(values, strata, rng=rng())
    assert estimate == Estimate(70.3, 70.3, 70.3, 10, 10)
    mixed = stratified_bootstrap(values, ["a"] * 10, rng=rng())
    assert mixed.low < 60
    assert mixed.high > 80


def test_one_draw_fewer_than_values_makes_the_variance_unbiased():
    # Of two values one is drawn: the mean is 0 or 1, with the variance ¼ = s²/2. Two draws would give
    # ½ half of the time, and the variance ⅛.
    estimate = stratified_bootstrap([0.0, 1.0], ["a", "a"], rng=rng(), confidence=0.4)
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def simulated_coverage(sizes: dict[str, int], trials: int = 400) -> float:
    center = {name: 10.0 * i for i, name in enumerate(sizes)}
    strata = [name for name, k in sizes.items() for _ in range(k)]
    truth = np.mean([center[name] for name in strata])
    source, hits = rng(7), 0
    for _ in range(trials):
        values = [center[name] + source.normal() * (1 + i % 2) for i, name in enumerate(strata)]
        estimate = stratified_bootstrap(values, strata, rng=source, resamples=800)
        hits += estimate.low <= truth <= estimate.high
    return hits / trials


def test_nominal_95_percent_intervals_cover_about_95_percent():
    # 400 trials leave ±0.022 at two standard errors.
    assert simulated_coverage({"a": 60, "b": 20}) == pytest.approx(0.95, abs=0.025)
    # Nine strata of three: drawing all k instead of k − 1 values would cover 0.86 only.
    assert simulated_coverage({str(i): 3 for i in range(9)}) == pytest.approx(0.94, abs=0.025)


def test_strata_of_one_are_pooled_and_never_give_a_false_certainty():
    values, names = [1.0, 4.0, 9.0, 16.0], ["a", "b", "c", "d"]
    assert stratified_bootstrap(values, names, rng=rng()) == stratified_bootstrap(
        values, ["x"] * 4, rng=rng()
    )
    # A single lone value joins the smallest other stratum.
    lone = stratified_bootstrap([1, 2, 5, 5, 5, 9], ["a", "a", "b", "b", "b", "c"], rng=rng())
    joined = stratified_bootstrap([1, 2, 5, 5, 5, 9], ["a", "a", "b", "b", "b", "a"], rng=rng())
    assert (lone.low, lone.high) == pytest.approx((joined.low, joined.high), abs=0.2)
    assert lone.low < lone.mean < lone.high


def test_coverage_counts_and_values_that_cannot_have_an_interval():
    assert stratified_bootstrap([1.0, NAN, 3.0], ["a", "a", "b"], rng=rng(), total=9).n == 2
    given_all = stratified_bootstrap([1.0, NAN, 3.0], ["a", "a", "b"], rng=rng())
    assert (given_all.mean, given_all.n, given_all.total) == (2.0, 2, 3)
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

    drawn: list[int] = []

    class Watched(np.random.Generator):
        def integers(self, *args, size, **kwargs):
            drawn.append(size[0] * size[1])
            return super().integers(*args, size=size, **kwargs)

    monkeypatch.setattr(stats, "CHUNK", 500)
    again = stratified_bootstrap(values, strata, rng=Watched(np.random.PCG64(5)))
    assert max(drawn) <= 500
    assert sum(drawn) == 10_000 * 19 * 2
    assert (again.low, again.high) == pytest.approx((first.low, first.high), abs=0.02)
    cut = paired_difference(values, values[::-1], strata, rng=Watched(np.random.PCG64(5)))
    assert max(drawn) <= 500
    assert cut.p_value == pytest.approx(paired.p_value, abs=0.02)


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


def test_by_stratum_estimates_each_alone():
    values, strata = [1.0, 3.0, 10.0, NAN, 7.0], ["N-O", "C-C", "C-C", "N-O", "O-P"]
    estimates = by_stratum(values, strata, rng=rng())
    assert list(estimates) == ["C-C", "N-O", "O-P"]
    assert (estimates["C-C"].mean, estimates["C-C"].low, estimates["C-C"].high) == (6.5, 3.0, 10.0)
    assert (estimates["N-O"].mean, estimates["N-O"].n, estimates["N-O"].total) == (1.0, 1, 2)
    assert np.isnan(estimates["O-P"].low)
    assert by_stratum([], [], rng=rng()) == {}


# --- paired difference ---------------------------------------------------------------------------------


def exact_p(d) -> float:
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=len(d))]
    return float(np.mean(np.array(sums) >= abs(sum(d)) * (1 - 1e-12)))


@pytest.mark.parametrize(
    "d",
    [[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, -2.0, 0.5, 3.0, 2.0, -0.1, 4.0], [0.1] * 6, [-0.3, -0.1, -0.2, 0.1]],
)
def test_the_p_value_is_that_of_all_sign_flips(d):
    b = rng(2).normal(size=len(d))
    result = paired_difference(b + d, b, ["a"] * len(d), rng=rng(), resamples=40_000)
    assert result.mean == pytest.approx(np.mean(d))
    assert result.p_value == pytest.approx(exact_p(d), abs=0.01)
    assert result.fraction_lower == np.mean(np.array(d) < 0)


def test_the_p_value_is_never_zero_and_one_for_no_difference():
    b = np.arange(60.0)
    certain = paired_difference(b - 1, b, ["a"] * 60, rng=rng(), resamples=999)
    assert certain.p_value == 1 / 1000
    assert (certain.mean, certain.low, certain.high, certain.fraction_lower) == (-1, -1, -1, 1.0)
    same = paired_difference(b, b, ["a"] * 60, rng=rng(), resamples=999)
    assert (same.mean, same.fraction_lower, same.p_value) == (0.0, 0.0, 1.0)
    assert paired_difference([1.0], [5.0], ["a"], rng=rng()).p_value == 1.0


def test_p_values_of_equal_potentials_are_uniform():
    source = rng(11)
    p = [
        paired_difference(
            source.normal(size=12), source.normal(size=12), ["a", "b", "c"] * 4, rng=source, resamples=199
        ).p_value
        for _ in range(400)
    ]
    # Two standard errors of 400 trials: 0.022 at 0.05, 0.05 at 0.5.
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.055)


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
