"""Pairs that can meet along a path: the same clashes as looking at every pair in every frame."""

import numpy as np
import pytest

from sfumato.reference.scans import clashes, displaced, moving_clashes, turned
from sfumato.reference.scans.reach import Rotation, met_by_pulling, met_by_turning
from sfumato.systems import System

TURNS = {
    "whole turns": 2 * np.pi * np.arange(60) / 60,
    "part of a turn": np.radians(np.linspace(75, 165, 60)) - np.radians(110),
    "one frame": np.array([0.3]),
}


def cloud(seed, n=40, box=6.0):
    """Atoms at random; the first lies on the axis and the second at its foot."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-box / 2, box / 2, (n, 3))
    positions[0], positions[1] = [0, 0, 1.5], [0, 0, 0]
    moving = rng.random(n) < 0.5
    moving[:2] = [True, False]
    return System(rng.choice([1, 6, 8, 16], n), positions), moving


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
def test_turning_finds_the_clashes_of_all_pairs(turn):
    found = []
    for seed in range(60):
        rest, moving = cloud(seed, n=10 + seed % 40)
        axis, pivot = rest.positions[0] - rest.positions[1], rest.positions[1]
        if seed % 3 == 0:
            axis = np.random.default_rng(seed).normal(size=3)
        frames = turned(rest.positions, moving, pivot, axis, turn)
        rotation = Rotation(pivot, axis, turn)
        for factor in (0.3, 0.9):
            every = moving_clashes(rest, frames, moving, [1, 0], factor)
            assert moving_clashes(rest, frames, moving, [1, 0], factor, rotation) == every
            found.append(every is not None)
    if len(turn) > 1:
        assert 10 < sum(found) < len(found)


def test_pulling_finds_the_clashes_of_all_pairs():
    found = []
    for seed in range(60):
        rest, moving = cloud(seed, n=6 + seed % 20, box=9.0)
        fragment = np.where(moving, 1, -1)
        line = rest.positions[0] - rest.positions[1]
        frames = displaced(rest.positions, fragment, line / 1.5, np.linspace(-0.6, 1.4, 50))
        for factor in (0.3, 0.9):
            every = clashes(rest.numbers, frames, (1, 0), factor)
            few = clashes(rest.numbers, frames, (1, 0), factor, fragment)
            assert (few is None) == (every is None)
            if every is not None:
                assert (few.i, few.j, few.limit) == (every.i, every.j, every.limit)
                assert few.distance == pytest.approx(every.distance, abs=1e-12)
            found.append(every is not None)
    assert 10 < sum(found) < len(found)


def test_few_pairs_are_left_of_many():
    rest, moving = cloud(0, n=600, box=20.0)
    rotation = Rotation(np.zeros(3), np.array([0, 0, 2.0]), TURNS["whole turns"])
    every = np.count_nonzero(moving) * np.count_nonzero(~moving)
    assert 0 < len(met_by_turning(rest.numbers, rest.positions, moving, rotation, 0.9)[0]) < 0.05 * every
    fragment = np.where(moving, 1, -1)
    pulled = met_by_pulling(rest.numbers, rest.positions, fragment, np.array([0, 0, 2.0]), 0.9)
    assert 0 < len(pulled[0]) < 0.05 * 600 * 599 / 2
