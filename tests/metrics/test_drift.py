"""Drift of made-up energies, and what residuals look like for every kind of fault."""

import math

import numpy as np
import pytest

from sfumato.metrics.drift import (
    BLOCKS,
    block_slopes,
    drift_over,
    end_error,
    residuals,
    robust_spread,
    scatter,
    split_residuals,
    zoom,
)

TIME = np.linspace(0, 10, 1001)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_drift_of_a_line_is_its_slope():
    slopes = block_slopes(TIME, 3.0 - 0.7 * TIME)
    assert slopes == pytest.approx(np.full(BLOCKS - 1, -0.7))
    found = drift_over({"a": slopes}, rng())
    assert (found.mean, found.low, found.high) == pytest.approx((-0.7, -0.7, -0.7))
    assert drift_over({"a": slopes}, rng(), size=True).mean == pytest.approx(0.7)


def test_drifts_up_and_down_do_not_cancel_where_sizes_count():
    slopes = {"up": block_slopes(TIME, TIME), "down": block_slopes(TIME, -TIME)}
    assert drift_over(slopes, rng()).mean == pytest.approx(0)
    assert drift_over(slopes, rng(), size=True).mean == pytest.approx(1)


def test_short_runs_have_no_drift_and_are_counted():
    slopes = {"short": block_slopes(TIME[:10], TIME[:10]), "long": block_slopes(TIME, TIME)}
    found = drift_over(slopes, rng())
    assert (found.n, found.total) == (1, 2)
    none = drift_over({"short": slopes["short"]}, rng(), total=5)
    assert math.isnan(none.mean)
    assert (none.n, none.total) == (0, 5)


@pytest.mark.parametrize("kind", ["walk", "walk with drift", "noise with drift"])
def test_intervals_cover_the_true_drift(kind):
    """95 % intervals of three trajectories together, 100 times: not fewer than 89 % cover."""
    true = 0.0 if kind == "walk" else 0.05
    covered = 0
    for seed in range(100):
        random = rng(seed)
        slopes = {}
        for k in range(3):
            steps = random.normal(size=1001)
            noise = 0.02 * np.cumsum(steps) if "walk" in kind else 0.3 * steps
            slopes[str(k)] = block_slopes(TIME, true * TIME + noise)
        found = drift_over(slopes, random)
        covered += found.low <= true <= found.high
    assert covered >= 89


def test_end_error_and_scatter():
    energy = np.array([1.0, 5.0, -2.0, 3.5])
    assert end_error(energy) == 2.5
    assert math.isnan(end_error(energy[:0]))
    assert scatter(2 + 3 * TIME) == pytest.approx(0, abs=1e-10)
    assert scatter(TIME + np.sin(50 * TIME)) == pytest.approx(math.sqrt(0.5), rel=0.02)
    assert math.isnan(scatter(energy[:2]))
    assert robust_spread(rng().normal(size=20000)) == pytest.approx(1, rel=0.03)


WORK = 0.05 * np.sin(0.3 * np.arange(800))
"""eV, of a bond that vibrates."""


def crossings(every, height):
    """Steps up and down, as where a pair crosses its cutoff again and again."""
    places = np.flatnonzero(rng(3).random(800) < 1 / every)
    found = np.zeros(800)
    found[places] = height * rng(4).choice([-1.0, 1.0], size=len(places))
    return found


def test_what_noise_of_the_energy_looks_like():
    e = 1e-4 * rng().normal(size=801)
    seen = residuals(np.diff(e), WORK)
    assert seen.noise == pytest.approx(1e-4, rel=0.1)
    assert abs(seen.growth) < 0.4


def test_what_jumps_look_like():
    seen = residuals(crossings(20, 1e-3), WORK)
    assert seen.jump == pytest.approx(1e-3, rel=0.7)
    assert 0.6 < seen.growth < 1.4
    rare = residuals(crossings(200, 1e-3), WORK)
    assert rare.jump == pytest.approx(1e-3, rel=0.1)
    assert rare.mismatch == 0


def test_what_a_smoothly_wrong_force_looks_like():
    seen = residuals(0.01 * WORK, WORK)
    assert seen.mismatch == pytest.approx(0.01)
    assert seen.growth > 1.7
    assert seen.jump < 0.01 * 0.01 * WORK.max()


def test_what_a_smooth_surface_looks_like():
    seen = residuals(1e-10 * np.sin(0.6 * np.arange(800)), WORK)
    assert seen.jump < 1e-10
    assert seen.mismatch < 1e-8


def test_too_few_residuals_say_nothing():
    seen = residuals(WORK[:10], WORK[:10])
    assert math.isnan(seen.jump)
    assert math.isnan(seen.growth)
    assert residuals(np.zeros(100), WORK[:100]).jump == 0


def test_residuals_are_taken_apart_again():
    true = rng(1).normal(size=40)
    potential = np.cumsum(rng(2).normal(size=50))
    unexplained = np.full(50, np.nan)
    unexplained[7:47] = np.cumsum(true)
    residual, work = split_residuals(potential[:47], unexplained[:47], 4)
    assert residual == pytest.approx(true)
    assert work == pytest.approx(true - np.diff(potential)[3:43])
    assert not len(split_residuals(potential, np.full(50, np.nan), 4)[0])


def seen_along(kind, points=65):
    """Energies and work along a straight line of 0.01 Å in a well, with a fault."""
    x = np.linspace(0, 1, points)
    energy, work = 0.02 * x + 0.003 * x**2, -(0.02 + 0.006 * x)
    if kind == "jump":
        energy = energy + 1e-5 * (x > 0.37)
    elif kind == "spread":
        work = 1.01 * work
    elif kind == "noise":
        energy = energy + 1e-5 * rng(2).normal(size=points)
    elif kind == "kink":
        energy, work = energy + 0.01 * np.maximum(x - 0.37, 0), work - 0.01 * (x > 0.37)
    return energy, work


@pytest.mark.parametrize(
    ("kind", "unexplained", "found"),
    [
        ("jump", 1e-5, "jump"),
        ("spread", -2.3e-4, "spread"),
        ("noise", 2e-5, "noise"),
        ("kink", 8e-4, "gone"),
        ("none", 1e-6, "gone"),
        ("none", 0.0, ""),
    ],
)
def test_a_closer_look_tells_of_what_kind_a_residual_is(kind, unexplained, found):
    assert zoom(unexplained, *seen_along(kind)) == found


def test_a_jump_in_noise_is_a_jump():
    energy, work = seen_along("noise")
    jump = 2e-3 * (np.arange(65) > 20)
    assert zoom(2e-3, energy + jump, work) == "jump"
