"""Numbers as people read them."""

import numpy as np
import pytest

from sfumato.metrics.stats import Estimate
from sfumato.report.numbers import Metric, interval, mean, number, p_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (33.208, "33.2"),
        (0.5021, "0.502"),
        (4.0, "4.00"),
        (1234.5, "1234"),
        (0.0, "0"),
        (-13.04, "-13.0"),
        (1.83e-4, "1.8e-4"),
        (2.5e6, "2.5e6"),
        (float("nan"), "n/a"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_an_interval_has_the_decimals_of_its_mean():
    assert interval(Estimate(33.21, 28.12, 39.0, 9, 9)) == "[28.1, 39.0]"
    assert interval(Estimate(33.21, -0.01, 139.0, 9, 9)) == "[0.0, 139.0]"
    assert interval(Estimate(2.0, np.nan, np.nan, 1, 9)) == "[n/a]"


def test_a_mean_of_nearly_zero_has_the_decimals_of_its_interval():
    wide = Estimate(6.9e-4, -0.143, 0.034, 9, 9)
    assert (mean(wide), interval(wide)) == ("0.001", "[-0.143, 0.034]")
    narrow = Estimate(6.9e-4, -1.3e-3, 8.8e-4, 9, 9)
    assert (mean(narrow), interval(narrow)) == ("6.9e-4", "[-1.3e-3, 8.8e-4]")
    alone = Estimate(6.9e-4, np.nan, np.nan, 1, 9)
    assert (mean(alone), interval(alone)) == ("6.9e-4", "[n/a]")
    large = Estimate(2.5e5, 1e5, 4e5, 9, 9)
    assert (mean(large), interval(large)) == ("2.5e5", "[1.0e5, 4.0e5]")


def test_a_p_value_is_never_zero():
    assert [p_value(p) for p in (1e-4, 0.0123, 0.5, np.nan)] == ["< 0.001", "0.012", "0.50", "n/a"]


def test_a_metric_is_shown_in_its_unit_with_its_interval():
    metric = Metric("force_mae", "force MAE", "meV/Å", "", 1e3)
    assert metric.heading == "force MAE, meV/Å"
    e = metric.of({"force_mae": Estimate(0.5, 0.4, 0.7, 3, 4)})
    assert (e.mean, e.low, e.high, e.n, e.total) == (500, 400, 700, 3, 4)
    assert metric.of({}) is None
    assert metric.of({"force_mae": Estimate(np.nan, np.nan, np.nan, 0, 4)}) is None
    assert Metric("n", "extra minima", "", "").heading == "extra minima"
