"""Mean absolute errors along a scan, by hand. The released reference values are in test_smoothness."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.metrics.forces import energy_mae_aligned, energy_mae_raw, force_mae
from sfumato.metrics.smoothness import Sides

NAN = float("nan")
REFERENCE = np.array([3.0, 0.0, 1.0, 5.0])
PREDICTED = np.array([104.0, 102.0, 101.0, 107.0])  # errors 101, 102, 100, 102; aligned −1, 0, −2, 0


def forces_with_errors(per_frame) -> tuple[np.ndarray, np.ndarray]:
    """Reference and prediction of two atoms whose six component errors average to `per_frame`."""
    reference = np.random.default_rng(0).normal(size=(len(per_frame), 2, 3))
    pattern = np.array([[0.0, 2.0, -1.0], [1.0, 0.0, -2.0]])  # mean |·| = 1
    return reference, reference + np.asarray(per_frame)[:, None, None] * pattern


def test_force_mae_by_hand_the_minimum_belongs_to_both_sides():
    reference, predicted = forces_with_errors([4.0, 2.0, 1.0, 3.0])
    np.testing.assert_allclose(force_mae(reference, predicted, 1), [2.5, 3.0, 2.0], rtol=1e-12)


def test_energy_mae_raw_and_aligned_by_hand():
    assert energy_mae_raw(REFERENCE, PREDICTED, 1) == Sides(405 / 4, 203 / 2, 304 / 3)
    assert energy_mae_aligned(REFERENCE, PREDICTED, 1) == Sides(3 / 4, 1 / 2, 2 / 3)


def test_only_the_raw_error_sees_the_zero_of_energy():
    shifted = energy_mae_aligned(REFERENCE, PREDICTED + 32_000, 1)
    np.testing.assert_allclose(shifted, energy_mae_aligned(REFERENCE, PREDICTED, 1), rtol=1e-9)
    assert energy_mae_raw(REFERENCE, PREDICTED + 32_000, 1).full > 32_000


@pytest.mark.parametrize(("minimum", "side"), [(0, "compress"), (3, "stretch")])
def test_a_minimum_at_a_scan_end_leaves_that_side_not_applicable(minimum, side):
    reference, predicted = forces_with_errors([4.0, 2.0, 1.0, 3.0])
    for sides in (
        force_mae(reference, predicted, minimum),
        energy_mae_raw(REFERENCE, PREDICTED, minimum),
        energy_mae_aligned(REFERENCE, PREDICTED, minimum),
    ):
        other = {"compress": "stretch", "stretch": "compress"}[side]
        assert np.isnan(getattr(sides, side))
        assert getattr(sides, other) == sides.full


def test_frames_without_reference_are_left_out_and_the_minimum_keeps_its_number():
    reference, predicted = forces_with_errors([4.0, 9.0, 2.0, 1.0, 3.0])
    reference[1, 1, 2], predicted[1] = NAN, NAN
    np.testing.assert_allclose(force_mae(reference, predicted, 2), [2.5, 3.0, 2.0], rtol=1e-12)
    target, found = np.insert(REFERENCE, 1, NAN), np.insert(PREDICTED, 1, NAN)
    assert energy_mae_aligned(target, found, 2) == energy_mae_aligned(REFERENCE, PREDICTED, 1)
    assert energy_mae_raw(target, found, 2) == energy_mae_raw(REFERENCE, PREDICTED, 1)


def test_bad_input_is_named():
    reference, predicted = forces_with_errors([4.0, 2.0, 1.0, 3.0])
    predicted[2, 0, 0] = NAN
    with pytest.raises(ValueError, match=r"predicted forces: not finite in 1 of 4 frames \(2\)"):
        force_mae(reference, predicted, 1)
    with pytest.raises(ValueError, match=r"predicted energy: not finite in 1 of 4 frames \(3\)"):
        energy_mae_raw(REFERENCE, [0, 0, 0, np.inf], 1)
    with pytest.raises(ValueError, match=r"predicted energy: expected shape \(4\), got \(3,\)"):
        energy_mae_aligned(REFERENCE, PREDICTED[:3], 1)
    with pytest.raises(ValueError, match=r"reference forces: expected shape \(any, any, 3\)"):
        force_mae(REFERENCE, PREDICTED, 1)
    with pytest.raises(ValueError, match="frame 4 is not one of 0…3"):
        energy_mae_aligned(REFERENCE, PREDICTED, 4)
    with pytest.raises(ValueError, match="frame -1 is not one of 0…3"):
        energy_mae_aligned(REFERENCE, PREDICTED, -1)
    with pytest.raises(ValueError, match="the reference energy of frame 1 is not finite"):
        energy_mae_aligned([3, NAN, 1, 5], PREDICTED, 1)
    with pytest.raises(ValueError, match="no frame has a finite reference"):
        energy_mae_raw([NAN] * 4, PREDICTED, 1)
