"""Structures with a path: where it leads, and records that are told apart by it."""

import numpy as np
import pytest

from sfumato.jobs.approach import Approached
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Task
from sfumato.jobs.search import Search
from sfumato.jobs.tracks import Approach, Exchange, Trip
from sfumato.reference.paths import Line, Turn
from sfumato.reference.swaps import Swap
from sfumato.systems import System
from sfumato.testing.paths import Flight

WATER = System([8, 1, 1], [[0, 0, 0], [0.05, 0.78, 0.57], [0.02, -0.74, 0.66]])


def test_an_atom_approaches_another_and_the_rest_stays():
    track = Approach.between(WATER, (1, 0), np.array([0.9, 0.2]))
    near, far = track.systems()[::-1]
    for system, r in ((near, 0.2), (far, 0.9)):
        gap = system.positions[1] - system.positions[0]
        assert np.linalg.norm(gap) == pytest.approx(r)
        np.testing.assert_allclose(np.cross(gap, WATER.positions[1]), 0, atol=1e-12)
        np.testing.assert_array_equal(system.positions[[0, 2]], WATER.positions[[0, 2]])


def test_an_atom_of_a_crystal_approaches_an_image():
    crystal = System([11, 17], [[0.5, 0, 0], [2.0, 0, 0]], np.diag([4.0, 9, 9]), [True] * 3)
    track = Approach.between(crystal, (0, 1), np.array([0.5]), np.array([-4.0, 0, 0]))
    (system,) = track.systems()
    np.testing.assert_allclose(system.positions[0], [-1.5, 0, 0])


@pytest.mark.parametrize("kind", ["line", "turn"])
def test_a_trip_is_the_path_it_was_made_of(kind):
    path = {
        "line": Line(WATER, np.eye(3)),
        "turn": Turn(WATER, np.array([1]), WATER.positions[0], np.array([0, 0, 1.0]), 1.2),
    }[kind]
    trip = Trip.along(path, np.linspace(0, 1, 9))
    np.testing.assert_array_equal(trip.path().at(0.3).positions, path.at(0.3).positions)
    np.testing.assert_array_equal(trip.path().tangent(0.3), path.tangent(0.3))


def test_only_lines_and_turns_become_trips():
    with pytest.raises(TypeError, match="got a Flight"):
        Trip.along(Flight(WATER, np.eye(3), np.eye(3)), np.linspace(0, 1, 9))


def test_the_key_of_a_record_tells_paths_seeds_structures_and_potentials_apart():
    places = np.linspace(0, 1, 9)
    frames = [
        Trip.along(Line(WATER, np.eye(3)), places),
        Trip.along(Line(WATER, -np.eye(3)), places),
        Trip.along(Line(WATER, np.eye(3)), 2 * places),
        Exchange.among(WATER, [Swap(0, 1, 2, 1)]),
        Frame.of(WATER),
    ]
    keys = [Task(Search(), frame).key("a") for frame in frames]
    keys += [Task(Search(1), frames[0]).key("a"), Task(Search(), frames[0]).key("b")]
    keys.append(Task(Approached(), Approach.between(WATER, (1, 0), places + 0.1)).key("a"))
    assert len(set(keys)) == len(keys)
    assert Task(Search(), Trip.along(Line(WATER, np.eye(3)), places)).key("a") == keys[0]
