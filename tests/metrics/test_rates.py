"""Pass rates: Wilson's intervals, and fewer trials than there seem where they resemble each other."""

import numpy as np
import pytest
from scipy.stats import binomtest

from sfumato.metrics.rates import pass_rate


@pytest.mark.parametrize(("passed", "n"), [(0, 30), (17, 30), (30, 30), (999, 1000)])
def test_independent_trials_have_wilsons_interval(passed, n):
    found = pass_rate([k < passed for k in range(n)], [str(k) for k in range(n)], n)
    expected = binomtest(passed, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.mean, found.n, found.total) == (passed / n, n, n)


def test_where_all_come_out_alike_each_group_counts_once():
    found = pass_rate([True] * 60, [str(k // 3) for k in range(60)], 60)
    expected = binomtest(20, 20).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low)


def test_trials_that_resemble_each_other_are_worth_fewer():
    groups = [str(k // 10) for k in range(200)]
    alike = pass_rate([k // 10 % 2 == 0 for k in range(200)], groups, 200)
    mixed = pass_rate([k % 2 == 0 for k in range(200)], groups, 200)
    assert alike.high - alike.low > 2.5 * (mixed.high - mixed.low)


def test_the_intervals_cover_the_truth_of_grouped_trials():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        share = np.repeat(rng.beta(4, 1, 40), 5)
        found = pass_rate(rng.random(200) < share, [str(k // 5) for k in range(200)], 200)
        inside += found.low <= 0.8 <= found.high
    assert inside / 300 > 0.9


def test_no_trial_has_no_rate():
    found = pass_rate([], [], 5)
    assert np.isnan(found.mean)
    assert (found.n, found.total) == (0, 5)
