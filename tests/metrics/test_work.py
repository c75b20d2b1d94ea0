"""Energy against work: what a grid hides is no contradiction, a jump or a wrong force is one."""

import numpy as np
import pytest

from sfumato.metrics.smoothness import work_energy_order
from sfumato.metrics.work import Excess, work_energy_excess

X = np.linspace(1.0, 3.0, 89)  # the step of the released grids, 0.0227 Å


def along_x(values):
    """One atom on a straight line."""
    return np.stack([values, 0 * values, 0 * values], axis=-1)[:, None]


def excess(energy, force, x=X, **options):
    return work_energy_excess(energy(x), along_x(force(x)), along_x(x), **options)


def morse(x, depth=4.5, a=2.0, b=1.5):
    return depth * (1 - np.exp(-a * (x - b))) ** 2


def morse_force(x, depth=4.5, a=2.0, b=1.5):
    return -2 * a * depth * (1 - np.exp(-a * (x - b))) * np.exp(-a * (x - b))


def edge(width, height=0.3, at=2.406):
    """A smooth step of the energy, and its force."""
    return (
        lambda x: height * np.tanh((x - at) / width),
        lambda x: -height / width * (1 - np.tanh((x - at) / width) ** 2),
    )


@pytest.mark.parametrize("at", [1.31, 1.82, 2.406, 2.9])
@pytest.mark.parametrize("height", [1e-3, 0.05, 1.0])
def test_a_morse_curve_has_none_and_a_jump_has_its_height(height, at):
    assert excess(morse, morse_force) == Excess(0.0, -1)
    jump = excess(lambda x: morse(x) + height * (x > at), morse_force)
    k = np.flatnonzero(at >= X)[-1]
    hidden = np.abs(np.diff(morse_force(X)) * np.diff(X))[k - 1 : k + 2].max()  # half of it, and the curve
    if height > hidden:
        assert jump.interval == k
    assert height - hidden < jump.height < height + 1e-3


@pytest.mark.parametrize("width", [0.3, 0.1, 0.03, 0.0155])
@pytest.mark.parametrize("at", np.linspace(2.38, 2.45, 8))
def test_a_smooth_edge_is_no_contradiction_but_one_between_two_frames_is(width, at):
    step, force = edge(width, at=at)
    assert excess(lambda x: morse(x) + step(x), lambda x: morse_force(x) + force(x)) == Excess(0.0, -1)
    middle = (X[62] + X[63]) / 2
    hidden, force = edge(0.003, at=middle)
    jump = excess(lambda x: morse(x) + hidden(x), lambda x: morse_force(x) + force(x))
    assert jump == (pytest.approx(0.6, abs=0.05), 62)


def test_the_order_of_a_steep_edge_falls_where_the_excess_stays_zero():
    step, force = edge(0.015, at=2.416)
    energy, forces = morse(X) + step(X), along_x(morse_force(X) + force(X))
    order = work_energy_order(energy, forces, along_x(X), 10)
    assert order.fine.full > 0.01
    assert order.order.full < 1.5
    assert work_energy_excess(energy, forces, along_x(X)).height == 0


def test_a_kink_is_none_and_a_force_that_is_no_gradient_is_one():
    kink = excess(
        lambda x: morse(x) + 0.5 * np.maximum(x - 2.406, 0), lambda x: morse_force(x) - 0.5 * (x > 2.406)
    )
    assert kink == Excess(0.0, -1)
    cut = excess(lambda x: morse(np.minimum(x, 2.1)), lambda x: morse_force(x) * (x < 2.1))
    assert cut == Excess(0.0, -1)
    wrong = excess(morse, lambda x: morse_force(x) + 0.05)
    assert wrong.height > 5e-4
    scaled = excess(morse, lambda x: 1.05 * morse_force(x))
    assert scaled.height > 1e-4


@pytest.mark.parametrize("waves", [5, 20, 47, 80])
def test_a_force_that_is_wrong_everywhere_is_one_however_fast_it_changes(waves):
    wrong = excess(morse, lambda x: morse_force(x) + 0.05 * np.sin(waves * x))
    assert 1e-4 < wrong.height < 0.05 * (X[1] - X[0])
    # A real ripple of the energy with this force is none.
    right = excess(
        lambda x: morse(x) + 0.05 / waves * np.cos(waves * x),
        lambda x: morse_force(x) + 0.05 * np.sin(waves * x),
    )
    assert right == Excess(0.0, -1)


@pytest.mark.parametrize("sigma", [1e-5, 1e-4, 5e-4])
def test_noise_of_the_energy_is_none_and_a_jump_in_it_is(sigma):
    noise = sigma * np.random.default_rng(0).normal(size=len(X))
    assert excess(lambda x: morse(x) + noise, morse_force) == Excess(0.0, -1)
    jump = excess(lambda x: morse(x) + noise + 0.05 * (x > 2.4), morse_force)
    assert jump.height == pytest.approx(0.05, abs=0.01)


def test_much_noise_is_no_excuse():
    noise = 5e-3 * np.random.default_rng(0).normal(size=len(X))
    assert excess(lambda x: morse(x) + noise, morse_force).height > 5e-3


def test_short_paths_and_bad_values():
    one = np.zeros((1, 2, 3))
    assert work_energy_excess([0.0], one, one) == Excess(0.0, -1)
    with pytest.raises(ValueError, match="energy: not finite in 1 of 2 frames"):
        work_energy_excess([0.0, np.nan], np.zeros((2, 1, 3)), np.zeros((2, 1, 3)))
    with pytest.raises(ValueError, match="forces: expected shape"):
        work_energy_excess([0.0, 0.0], np.zeros((3, 1, 3)), np.zeros((2, 1, 3)))
