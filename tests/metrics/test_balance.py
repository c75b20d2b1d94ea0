"""No step of an energy hides between samples, and what is smooth is explained with few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.metrics.balance import balance, imbalance
from sfumato.metrics.jumps import Sample, unexplained

PLACES = np.geomspace(1.3, 12.0, 61)


def wall(x):
    return (1.5 / x) ** 12 - 2 * (1.5 / x) ** 6, 12 * ((1.5 / x) ** 12 - (1.5 / x) ** 6) / x


class Curve:
    """Lennard-Jones with a step of the energy, a jump of the force, or of its slope."""

    def __init__(self, at=3.0, step=0.0, push=0.0, spring=0.0, factor=1.0):
        self.at, self.step, self.push, self.spring, self.factor = at, step, push, spring, factor
        self.asked = 0

    def __call__(self, places):
        return [self.sample(s) for s in places]

    def sample(self, s):
        self.asked += 1
        (energy, force), inside = wall(s), max(self.at - s, 0.0)
        energy += self.step * (inside > 0) + self.push * inside + self.spring * inside**2 / 2
        force += self.push * (inside > 0) + self.spring * inside
        return Sample(s, energy, self.factor * force, np.array([self.factor * force]))


def books(curve, most=400):
    return balance(curve, curve(PLACES.tolist()), 1e-8, 1e-10, 1e-6, most)


def test_the_imbalance_is_what_one_interval_at_a_time_gives():
    samples = Curve()(np.sort(np.random.default_rng(0).uniform(1.3, 4, 30)).tolist())
    columns = (np.array([getattr(s, name) for s in samples]) for name in ("place", "energy", "power"))
    expected = [unexplained(samples, k) for k in range(29)]
    np.testing.assert_allclose(imbalance(*columns), expected, atol=1e-12)
    assert np.abs(expected).max() > 1e-6


@given(st.floats(1.5, 11.0), st.sampled_from([1e-5, -1e-3, 0.1]))
def test_a_step_of_any_size_is_found_wherever_it_is(at, height):
    found = books(Curve(at, step=height))
    assert any(abs(place - at) < 2e-6 for place in found.open)
    assert len(found.open) <= 2


def test_what_is_smooth_is_explained_with_few_samples():
    curve = Curve()
    found = books(curve)
    assert found.open == found.deep == []
    assert not found.exhausted
    assert found.left_over < 1.1e-8
    assert curve.asked < 200


@pytest.mark.parametrize("facts", [{"push": 1e-3}, {"spring": 1.0}], ids=["force", "slope"])
def test_a_force_or_slope_that_jumps_takes_many_halvings(facts):
    found = books(Curve(3.3, **facts))
    assert found.open == []
    assert any(abs(place - 3.3) < 2e-3 for place in found.deep)


def test_a_force_that_is_no_gradient_exhausts_the_samples_and_says_so():
    found = books(Curve(factor=1.01))
    assert found.exhausted
    assert found.left_over > 1e-4
