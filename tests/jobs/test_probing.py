"""Jobs of the probes on planted faults: what jumps is measured, what is smooth refuted, what fails said."""

from dataclasses import replace

import numpy as np
import pytest

from sfumato.execution.records import decode
from sfumato.execution.runner import Item
from sfumato.jobs.approach import Approached
from sfumato.jobs.frames import Frame
from sfumato.jobs.gradient import Gradient
from sfumato.jobs.search import Search
from sfumato.jobs.surface import Surface, UnpredictedError, finest
from sfumato.jobs.tracks import Approach, Exchange, Trip
from sfumato.models.pair import PAIRS, Morse, PairPotential
from sfumato.reference.paths import Line
from sfumato.reference.swaps import chosen_swaps, groups_of
from sfumato.systems import Prediction, System
from sfumato.testing import structures
from tests import broken_potentials as broken
from tests.broken_potentials import Changed

STIFF = PairPotential("stiff", Morse(depth=20.0, steepness=6.0))
PULL = np.geomspace(1.4, 12.0, 61)


def pulled(a=6, b=6, places=PULL):
    base = System([a, b], np.zeros((2, 3)))
    return Trip.along(Line(base, np.array([[0, 0, 0], [0, 1.0, 0]])), places)


def search(potential, track=None):
    (record,) = Search().work(potential, (Item("k", track or pulled()),))
    return record


def jumps(record):
    """Of each jump the place and the order of the lowest derivative that jumps."""
    return [(round(j["place"], 4), j["stays"].index(True), j["sizes"]) for j in record["jumps"]]


# --- the search


@pytest.mark.parametrize("potential", [PAIRS["lj"], PAIRS["morse"], STIFF], ids=lambda p: p.name)
def test_nothing_smooth_jumps(potential):
    record = search(potential)
    assert record["status"] == "ok"
    assert record["responds"]
    assert jumps(record) == []


def test_a_hard_cutoff_is_a_jump_of_the_energy_where_it_is():
    record = search(PAIRS["lj-hard-cutoff"])
    ((place, order, sizes),) = jumps(record)
    r0 = structures.bond(6, 6)
    assert (place, order) == (2.5, 0)
    assert sizes[0] == pytest.approx(2 * (r0 / 2.5) ** 6 - (r0 / 2.5) ** 12, rel=1e-6)


@pytest.mark.parametrize("at", [1.63, 2.9, 4.44, 7.77, 11.2])
def test_a_step_of_1e_5_ev_is_found_wherever_it_is(at):
    ((place, order, sizes),) = jumps(search(broken.pair_step(at, 1e-5)))
    assert (place, order) == (at, 0)
    assert sizes[0] == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.parametrize(("power", "order"), [(1, 1), (2, 2)])
def test_a_kink_has_its_order(power, order):
    def spring(batch, found):
        gap = batch.positions[1] - batch.positions[0]
        r = np.linalg.norm(gap)
        inside = max(2.6 - r, 0.0)
        pull = power * inside ** (power - 1) * (inside > 0) * gap / r
        return Prediction(found.energy + inside**power, found.forces + np.array([-pull, pull]))

    ((place, found, sizes),) = jumps(search(Changed(spring)))
    assert (place, found) == (2.6, order)
    assert sizes[order] == pytest.approx(power, rel=0.2)


def test_the_proof_of_a_jump_is_kept_and_does_not_depend_on_the_interval():
    (jump,) = search(PAIRS["lj-hard-cutoff"])["jumps"]
    sizes = np.array(jump["profile"])[:, 0]
    assert jump["widths"][0] / jump["widths"][-1] > 1000
    assert sizes == pytest.approx(sizes[-1], rel=1e-3)


def test_noise_is_no_jump_and_raises_what_can_be_seen():
    loud = search(Changed(lambda batch, found: broken.loud(batch, found, 1e-4)))
    assert loud["noise"][1] > 1e-5
    assert jumps(loud) == []
    assert loud["floor"][1] > 100 * search(PAIRS["morse"])["floor"][1]


def test_a_path_is_cut_where_the_potential_fails_and_the_rest_searched():
    class Fails(Changed):
        def compute(self, batch):
            if any(abs(np.linalg.norm(s.positions[1] - s.positions[0]) - 5.0) < 0.2 for s in batch):
                raise ValueError("not converged")
            return PAIRS["lj-hard-cutoff"].compute(batch)

    record = search(Fails())
    assert record["lost"] > 5
    assert "not converged" in record["reason"]
    assert [place for place, _, _ in jumps(record)] == [2.5]


def test_a_path_that_fails_altogether_is_a_failure_with_its_reason():
    class Refuses(Changed):
        def compute(self, batch):
            raise ValueError("no parameters for C")

    record = search(Refuses())
    assert (record["status"], record["reason"]) == ("failed", "ValueError: no parameters for C")


def test_a_path_without_an_answer_says_so():
    record = search(PAIRS["lj"], pulled(places=np.linspace(8, 12, 20)))
    assert record["responds"] is False


def test_double_precision_is_used_where_it_is_offered():
    class Two(Changed):
        def __init__(self, dtype="float32"):
            change = broken.single if dtype == "float32" else None
            super().__init__(change, {"float32": None, "float64": None}, dtype=dtype)

        def to(self, *, device=None, dtype=None):
            return Two(dtype or "float32")

    assert finest(Two()).abilities.dtype == "float64"
    assert search(Two())["dtype"] == "float64"
    found = gradient(Two(), structures.molecule((1, 6, 7, 8)))
    assert (found["dtype_as_run"], found["dtype"]) == ("float32", "float64")
    assert found["noise_as_run"][0] > 1e3 * found["noise"][0]


@pytest.mark.parametrize(("name", "ranks"), [("lj", set()), ("lj-neighbor-cap", {3})])
def test_of_many_ranks_the_one_that_jumps_is_named(name, ranks):
    base = structures.cluster((1, 6, 7, 8), np.random.default_rng(0))
    found, covered = set(), set()
    for group in groups_of(base, chosen_swaps(base)):
        record = search(PAIRS[name], Exchange.among(base, group))
        covered |= {swap.rank for swap in group}
        found |= {group[k].rank for jump in record["jumps"] for k in jump["swaps"]}
    assert found == ranks
    assert {3, 10, 20} <= covered


# --- approach


def test_energies_and_forces_of_an_approach_are_those_of_the_potential():
    track = Approach.between(System([6, 8], [[0, 0, 0], [0, 0, 1.2]]), (0, 1), np.array([1.0, 0.5]))
    (record,) = Approached().work(PAIRS["lj"], (Item("k", track),))
    for system, energy, forces in zip(
        track.systems(), decode(record["energy"]), decode(record["forces"]), strict=True
    ):
        (e,), f = Surface(PAIRS["lj"]).values([system])
        assert energy == e
        np.testing.assert_array_equal(forces, f[0])


def test_distances_that_fail_are_gaps_with_a_reason():
    class Short(Changed):
        def compute(self, batch):
            if any(np.linalg.norm(s.positions[1] - s.positions[0]) < 0.3 for s in batch):
                raise ValueError("too close")
            return PAIRS["lj"].compute(batch)

    track = Approach.between(System([6, 8], [[0, 0, 0], [0, 0, 1.2]]), (0, 1), np.array([1.0, 0.5, 0.2]))
    (record,) = Approached().work(Short(), (Item("k", track),))
    assert (record["lost"], record["reason"]) == (1, "ValueError: too close")
    assert np.isfinite(decode(record["energy"])).tolist() == [True, True, False]
    (record,) = Approached().work(Short(), (Item("k", replace(track, distances=np.array([0.1]))),))
    assert (record["status"], record["reason"]) == ("failed", "ValueError: too close")


# --- forces against energy


def gradient(potential, system):
    (record,) = Gradient().work(potential, (Item("k", Frame.of(system)),))
    return record


def numbers(record):
    slopes = decode(record["slopes"])
    return np.abs(slopes[:, 2] + slopes[:, 3]).max(), np.abs(decode(record["curl"])).max()


def test_a_gradient_has_no_mismatch_and_no_curl():
    base = structures.cluster((6,), np.random.default_rng(0))  # any size
    mismatch, curl = numbers(gradient(PAIRS["morse"], base))
    assert mismatch < 1e-8
    assert curl < 1e-3
    record = gradient(PAIRS["morse"], structures.molecule((1, 6, 7, 8)))
    assert set(decode(record["slopes"])[:, 0]) == {1, 6, 7, 8}


def test_the_curl_of_a_swirl_is_its_own():
    base = structures.molecule((1, 6, 7, 8))
    mismatch, curl = numbers(gradient(Changed(broken.swirl), base))
    assert mismatch > 0.01
    assert curl > 0.1
    loops = decode(gradient(Changed(broken.swirl), base)["loops"])
    assert (np.abs(loops[:, 0]) > 10 * loops[:, 2] + loops[:, 3]).any()


def test_a_conservative_force_of_another_energy_has_mismatch_but_no_curl():
    double = Changed(lambda batch, found: replace(found, forces=1.01 * found.forces))
    mismatch, curl = numbers(gradient(double, structures.molecule((1, 6, 7, 8))))
    assert mismatch > 1e-3
    assert curl < 1e-2


def test_a_structure_that_cannot_be_predicted_has_a_reason():
    class Refuses(Changed):
        def compute(self, batch):
            raise ValueError("no parameters for O")

    record = gradient(Refuses(), structures.molecule((1, 8)))
    assert (record["status"], record["reason"]) == ("failed", "ValueError: no parameters for O")
    with pytest.raises(UnpredictedError, match="no parameters"):
        Surface(Refuses()).values([structures.molecule((1, 8))])
