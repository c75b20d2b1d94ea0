"""Rank correlations: by hand, against scipy, and whether their intervals cover."""

import math

import numpy as np
import pytest
from scipy import stats

from sfumato.metrics.correlation import association


def test_by_hand():
    """Ranks 1 2 3 4 5 6 against 2 1 4 3 6 5: Σd² = 6, ρ = 1 − 36/210; 12 of 15 pairs agree, τ = 9/15."""
    found = association([1, 2, 3, 4, 5, 6], [20, 10, 40, 30, 60, 50])
    assert found.spearman.mean == pytest.approx(1 - 36 / 210, abs=1e-12)
    assert found.kendall.mean == pytest.approx(0.6, abs=1e-12)
    half = 1.959964 * math.sqrt((1 + (1 - 36 / 210) ** 2 / 2) / 3)
    assert found.spearman.low == pytest.approx(math.tanh(math.atanh(1 - 36 / 210) - half), abs=1e-6)
    half = 1.959964 * math.sqrt(0.437 / 2)
    assert found.kendall.high == pytest.approx(math.tanh(math.atanh(0.6) + half), abs=1e-6)
    assert found.partial is None


def test_ties_are_those_of_scipy():
    x, y = [1, 1, 2, 3, 3, 3, 5], [2, 1, 1, 4, 4, 7, 7]
    found = association(x, y)
    assert found.spearman.mean == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.kendall.mean == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_only_the_order_counts():
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    assert association(x, y) == association(np.exp(3 * x), y**3)
    assert association(x, -y).spearman.mean == pytest.approx(-association(x, y).spearman.mean)


def test_what_a_third_number_explains_is_taken_out():
    """x and y follow z; given z nothing is left. Where they share more than z, that stays."""
    rng = np.random.default_rng(1)
    z, own, a, b = rng.normal(size=(4, 4000))
    apart = association(z + 0.5 * a, z + 0.5 * b, given=z)
    assert apart.spearman.mean > 0.7
    assert abs(apart.partial.mean) < 0.05
    assert apart.partial.low < 0 < apart.partial.high
    shared = association(z + own + 0.5 * a, z + own + 0.5 * b, given=z)
    assert shared.partial.low > 0.6
    assert math.isnan(association([1, 2, 3, 4], [1, 2, 3, 4], given=[1, 2, 3, 4]).partial.mean)


def test_a_family_may_carry_all_of_it():
    x = [1, 2, 3, 4, 11, 12, 13, 14]
    y = [1, 2, 3, 4, 14, 13, 12, 11]
    found = association(x, y, families=[*"aaaabbbb"])
    assert found.without == {"b": pytest.approx(1.0), "a": pytest.approx(-1.0)}
    assert found.spearman.mean == pytest.approx(1 - 6 * 20 / (8 * 63))


def test_models_without_a_number_are_left_out():
    found = association([1, 2, math.nan, 4, 5, 6, 7, 8], [1, math.nan, 3, 4, 5, 6, 7, 8])
    assert (found.spearman.n, found.spearman.total) == (6, 8)
    assert found.spearman.mean == pytest.approx(1)
    assert found.spearman.low > 0.99


@pytest.mark.parametrize("n", [0, 2, 5])
def test_of_few_there_is_no_interval(n):
    found = association(range(n), range(n))
    assert math.isnan(found.spearman.low)
    assert math.isnan(found.kendall.high)
    assert math.isnan(found.spearman.mean) == (n < 3)


def test_equal_values_have_no_order():
    assert math.isnan(association([1] * 8, range(8)).spearman.mean)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"as many values of each number, got \[2, 3\]"):
        association([1, 2], [1, 2, 3])


@pytest.mark.parametrize(("n", "r"), [(12, 0.0), (12, 0.7), (30, 0.5)])
def test_coverage_by_simulation(n, r):
    """Of normal pairs, whose ρ is (6/π) asin(r/2) and whose τ is (2/π) asin(r)."""
    rng, rounds, inside = np.random.default_rng(7), 500, np.zeros(2)
    truth = 6 / math.pi * math.asin(r / 2), 2 / math.pi * math.asin(r)
    for _ in range(rounds):
        a, b = rng.normal(size=(2, n))
        found = association(a, r * a + math.sqrt(1 - r * r) * b)
        inside += [e.low <= t <= e.high for e, t in zip((found.spearman, found.kendall), truth)]
    assert (inside / rounds > 0.92).all(), inside / rounds
    assert (inside / rounds < 0.99).all(), inside / rounds
