"""Force metrics of rare events: every number by hand, then what must hold for any forces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from sfumato.metrics.rare_events import (
    angle_errors,
    area_over_cdf,
    areas,
    by_distance,
    detection,
    magnitude_errors,
    score_table,
    scores,
)

REFERENCE = np.array([[3.0, 0, 0], [0, 4.0, 0], [0, 0, 1.0], [0, 0, 0]])
PREDICTED = np.array([[0.0, 2.5, 0], [0, 0, 0], [0, 1.0, 1.0], [1.0, 0, 0]])

forces = arrays(float, st.tuples(st.integers(1, 8), st.just(3)), elements=st.floats(-9, 9, width=32))


def test_magnitude_and_angle_by_hand():
    assert magnitude_errors(PREDICTED, REFERENCE) == pytest.approx([-0.5, -4.0, np.sqrt(2) - 1, 1.0])
    found = angle_errors(PREDICTED, REFERENCE)
    assert found[:3] == pytest.approx([90.0, 90.0, 45.0])  # a predicted force of zero is a right angle
    assert np.isnan(found[3])  # the reference has no direction
    assert angle_errors(-REFERENCE[:3], REFERENCE[:3]) == pytest.approx([180.0] * 3)


def test_what_is_not_predicted_is_not_a_number():
    assert np.isnan(magnitude_errors([[np.nan] * 3], [[1.0, 0, 0]])).all()
    assert np.isnan(angle_errors([[np.nan] * 3], [[1.0, 0, 0]])).all()
    with pytest.raises(ValueError, match=r"shape \(N, 3\), got \(1, 3\) and \(2, 3\)"):
        magnitude_errors([[1.0, 0, 0]], np.zeros((2, 3)))


def test_areas_by_hand():
    """Exactly min(X, L)/L; by three points at 0, ½, 1 the weights are ¼, ½, ¼."""
    errors = np.array([0.0, 0.2, 0.5, 0.7, 1.0, 3.0, np.nan])
    exact = areas(errors, 1.0, None)
    assert exact[:6] == pytest.approx([0, 0.2, 0.5, 0.7, 1, 1])
    assert np.isnan(exact[6])
    three = areas(errors, 1.0, 3)
    assert three[:6] == pytest.approx([0, 0.25, 0.25, 0.75, 0.75, 1])
    assert np.isnan(three[6])
    assert area_over_cdf([0.2, 0.7, np.nan], 1.0, None) == pytest.approx(0.45)
    assert area_over_cdf([15.0, 45.0], 60.0, None) == pytest.approx(0.5)
    assert np.isnan(area_over_cdf([], 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([0.1], 0.0), "must be positive"), (([0.1], 1.0, 1), "at least 2"), (([-0.1], 1.0), "not be negative")],
)
def test_areas_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        area_over_cdf(*arguments)


@settings(max_examples=30)
@given(arrays(float, st.integers(1, 30), elements=st.floats(0, 2)), st.integers(2, 80))
def test_the_area_is_the_trapezoid_of_the_released_recipe(errors, points):
    grid = np.linspace(0, 1, points)
    cdf = (errors[None] <= grid[:, None]).mean(axis=1)
    assert area_over_cdf(errors, 1.0, points) == pytest.approx(1 - np.trapezoid(cdf, grid), abs=1e-12)
    # The trapezoid differs from the integral by at most half a step.
    assert (
        abs(area_over_cdf(errors, 1.0, points) - area_over_cdf(errors, 1.0, None))
        <= 0.5 / (points - 1) + 1e-12
    )


@settings(max_examples=30)
@given(forces, st.integers(0, 2**32 - 1))
def test_errors_do_not_depend_on_the_frame_of_reference(g, seed):
    rng = np.random.default_rng(seed)
    f = g + rng.normal(size=g.shape)
    turn = Rotation.random(rng=rng).as_matrix()
    assert magnitude_errors(f @ turn, g @ turn) == pytest.approx(magnitude_errors(f, g), abs=1e-12)
    assert angle_errors(f @ turn, g @ turn) == pytest.approx(angle_errors(f, g), abs=1e-5, nan_ok=True)
    assert magnitude_errors(g, f) == pytest.approx(-magnitude_errors(f, g))  # antisymmetric
    assert (magnitude_errors(g, g) == 0).all()


def test_scores_by_hand():
    """Two snapshots; the second atom's error is beyond every limit, the third snapshot has no atom."""
    reference = np.array([[1.0, 0, 0], [0, 2.0, 0], [1.0, 0, 0]])
    predicted = np.array([[1.3, 0, 0], [0, 0, 0.5], [np.cos(np.pi / 9), np.sin(np.pi / 9), 0]])
    table = score_table(predicted, reference, np.array([0, 0, 1]), 3, points=None)
    found = scores(table, np.arange(3), seed=0)
    means = {name: estimate.mean for name, estimate in found.items()}
    assert means["err_M"] == pytest.approx((0.3 + 1.0 + 0) / 3)
    assert means["err_A"] == pytest.approx((0 + 1.0 + 20 / 60) / 3)
    assert means["rms_dF"] == pytest.approx(np.sqrt((0.3**2 + 1.5**2) / 3))
    assert means["mean_dF"] == pytest.approx(1.8 / 3)
    assert means["mean_angle"] == pytest.approx(110 / 3)
    assert [means[k] for k in ("over_0.5", "over_15deg", "over_30deg")] == pytest.approx(
        [1 / 3, 2 / 3, 1 / 3]
    )
    assert means["force_rmse"] == pytest.approx(np.sqrt((0.09 + 4.25 + 2 - 2 * np.cos(np.pi / 9)) / 9))
    assert means["force_mae"] == pytest.approx((0.3 + 2.5 + 1 - np.cos(np.pi / 9) + np.sin(np.pi / 9)) / 9)
    assert {(e.n, e.total) for e in found.values()} == {(2, 2)}
    assert all(e.low <= e.mean <= e.high for e in found.values())


def test_no_interval_of_one_snapshot():
    table = score_table([[1.0, 0, 0]], [[1.1, 0, 0]], np.array([0]), 1)
    assert np.isnan(scores(table, np.zeros(1, dtype=int), 0)["err_M"].low)


def test_errors_by_distance_by_hand():
    reference = np.array([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])
    predicted = reference + np.array([[0.5, 0, 0], [0.1, 0, 0], [1.0, 0, 0], [np.nan] * 3])
    rows = by_distance(predicted, reference, [0.0, 2.0, 2.5, 0.0], (0.0, 1e-6, 3.0, np.inf))
    assert [row["atoms"] for row in rows] == [1, 2]
    assert rows[0] == pytest.approx(
        {"from": 0, "to": 1e-6, "atoms": 1, "mean_dF": 0.5, "mean_angle": 0, "force_rmse": np.sqrt(0.25 / 3)}
    )
    assert rows[1]["mean_angle"] == pytest.approx(22.5)
    assert rows[1]["mean_dF"] == pytest.approx((0.1 + np.sqrt(2) - 1) / 2)


def test_detection_by_hand():
    flags, truth = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 1], bool)
    assert detection(flags, truth) == pytest.approx({"precision": 0.5, "recall": 1 / 3, "f1": 0.4})
    nothing = np.zeros(4, bool)
    assert np.isnan(detection(nothing, nothing)["f1"])
    with pytest.raises(ValueError, match="3 flags for 4 atoms"):
        detection(flags[:3], truth)
