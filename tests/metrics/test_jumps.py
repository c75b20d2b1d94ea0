"""Noise, derivatives and jumps: what they find in functions whose noise, slope and jumps are known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sfumato.metrics.jumps import STENCIL, ForceHunt, Sample, continued, fifth, jumps, suspects
from sfumato.metrics.noise import noise_level, ridders

GRID = np.arange(-4, 5)


def decaying(x):
    return 1 / x**6


@pytest.mark.parametrize("sigma", [1e-3, 1e-6, 1e-9])
def test_noise_on_a_smooth_function_is_found_whatever_the_function(sigma):
    rng = np.random.default_rng(0)
    estimates = [
        noise_level(np.exp(1 + 1e-4 * GRID) + sigma * rng.normal(size=(9,)) + phase)
        for phase in np.arange(40.0)
    ]
    assert np.median(estimates) == pytest.approx(sigma, rel=0.3)
    assert max(estimates) < 4 * sigma


def test_a_function_without_noise_has_only_the_rounding_of_its_numbers():
    assert noise_level(np.exp(5e-5 * GRID)) < 2e-16
    single = np.exp(5e-3 * GRID).astype(np.float32).astype(float)
    assert 1e-8 < noise_level(single) < 2e-7
    steps = 6000 + 2.0**-11 * GRID  # rounded alike: a straight line of numbers of single precision
    assert noise_level(steps) == pytest.approx(2.0**-11 / np.sqrt(12))
    assert noise_level(np.zeros(9)) == 0


def test_noise_of_several_components_is_their_mean_square():
    noise = np.random.default_rng(1).normal(size=(9, 1000))
    assert noise_level(noise * 1e-5) == pytest.approx(1e-5, rel=0.05)


def test_what_is_not_a_number_stays_visible():
    assert np.isnan(noise_level(np.where(GRID == 2, np.nan, 1.0)))


def test_the_derivative_is_exact_to_rounding_and_knows_its_error():
    steps = 0.1 * 0.5 ** np.arange(6)
    found = ridders(steps, np.exp(1 + steps), np.exp(1 - steps))
    assert found.value == pytest.approx(np.e, rel=1e-12)
    assert abs(found.value - np.e) < 20 * found.error + 1e-14
    assert steps[-1] <= found.step <= steps[1]


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_the_derivative_of_a_cubic_is_its_linear_coefficient(c):
    steps = 0.5 ** np.arange(4)
    above, below = (np.polynomial.polynomial.polyval(s * steps, c) for s in (1, -1))
    assert ridders(steps, above, below).value == pytest.approx(c[1], abs=1e-12)


def test_a_jump_beyond_the_smaller_steps_does_not_spoil_the_derivative():
    steps = 1e-2 * 0.5 ** np.arange(5)
    above = np.sin(steps) + 0.1 * (steps > 4e-3)
    assert ridders(steps, above, np.sin(-steps)).value == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(("step", "kink"), [(0.3, 0.0), (0.0, 0.7), (-0.2, 0.5)])
def test_jumps_of_value_and_slope_are_their_sizes(step, kink):
    x = 0.01 * STENCIL
    value, slope = jumps(np.cos(x) + np.where(x > 0, step + kink * x, 0), 0.01)
    assert value == pytest.approx(abs(step), abs=1e-5)
    assert slope == pytest.approx(abs(kink), abs=1e-3)


def test_what_a_smooth_function_leaves_fades_with_the_stencil():
    sizes = [jumps(np.exp(w * STENCIL), w) for w in (0.1, 0.05, 0.025)]
    for coarse, fine in pairwise(sizes):
        assert np.divide(coarse, fine) == pytest.approx(8, rel=0.05)


def test_the_component_that_jumps_most_counts():
    values = np.zeros((6, 3))
    values[3:, 1] = 1e-3
    assert jumps(values, 0.1)[0] == pytest.approx(1e-3)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.floats(-1, 1))
def test_a_cubic_is_continued_exactly(c, at):
    points = [(x, np.array([np.polynomial.polynomial.polyval(x, c)])) for x in (0.0, 0.3, 0.7, 1.1)]
    assert continued(points, at)[0] == pytest.approx(np.polynomial.polynomial.polyval(at, c), abs=1e-9)


@given(st.integers(3, 55))
def test_a_small_jump_in_the_tail_is_suspected_though_the_wall_is_steep(k):
    x = np.geomspace(1, 6, 61)
    jump = 0.02 * decaying(x[k])
    rough = fifth(decaying(x) + jump * (np.arange(61) > k))
    assert k - 2 in suspects(rough, 1e-16, 2)


def test_suspects_are_apart_and_as_many_as_asked():
    found = suspects(fifth(np.random.default_rng(2).normal(size=(40, 3))), 0.1, 4)
    assert len(found) == 4
    assert (np.diff(sorted(found)) > 2).all()


@given(st.floats(2.2, 4.8), st.booleans())
def test_a_hunt_ends_at_the_jump_or_kink(place, kink):
    def sample(s):
        force = np.exp(-s) + (0.5 * max(s - place, 0.0) if kink else 1e-3 * (s > place))
        return Sample(float(s), 0.0, float(force), np.array([force]))

    places = np.linspace(1, 6, 41)
    assume(np.abs(places - place).min() > 0.005)  # a kink on a point of the grid is on neither side
    hunt = ForceHunt([sample(s) for s in places], int(np.searchsorted(places, place)) - 1, 1e-12)
    while hunt.width > 1e-6:
        hunt.take(sample(hunt.middle))
    assert not hunt.smooth
    assert hunt.middle == pytest.approx(place, abs=1e-5 if kink else 1e-6)
