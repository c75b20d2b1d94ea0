"""Steps that no force shows are found wherever they are, and what is smooth is left in peace."""

import numpy as np
import pytest

from sfumato.metrics.jumps import EnergyHunt, ForceHunt, Sample, unexplained
from sfumato.models.pair import PAIRS, LennardJones, Morse, PairPotential
from sfumato.reference.paths import Line, Turn
from sfumato.systems import System
from sfumato.testing import Settings, check, invariance, offpath, smoothness, structures
from sfumato.testing.bench import Bench
from sfumato.testing.jumps import Trip, searched
from sfumato.testing.paths import Flight, flight, push, span
from sfumato.testing.result import NotApplicableError
from tests import broken_potentials as broken
from tests.broken_potentials import Changed, add_energy

DISTANCES = (2.0, 2.5, 3.0, 3.7, 4.4, 5.0, 6.0, 7.0)
STIFF = PairPotential("stiff", Morse(depth=20.0, steepness=6.0))


def failures(potential, run, **settings):
    return [m for m in run(Bench(potential, Settings(**settings))) if not m.passed]


# --- energy that the force does not show


@pytest.mark.parametrize(("at", "height"), [*zip(DISTANCES, 4 * (1e-4, 1.0), strict=True)])
def test_a_step_of_the_energy_alone_is_found_at_any_distance(at, height):
    (worst, *_) = failures(broken.pair_step(at, height), smoothness.cutoff)
    assert "jump of the energy" in worst.where
    assert worst.value == pytest.approx(height, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("at", DISTANCES)
@pytest.mark.parametrize("height", [1e-4, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_step_of_any_height_breaks_the_contract(at, height, seed):
    assert "cutoff" in {
        r.name for r in check(broken.pair_step(at, height), settings=Settings(seed=seed)).broken
    }


@pytest.mark.parametrize("height", [1e-4, 1.0])
def test_a_step_at_an_angle_is_found(height):
    assert failures(broken.angle_step(150, height), offpath.angle)
    assert not failures(broken.angle_step(150, height), smoothness.cutoff)


@pytest.mark.parametrize("elements", [(1, 7), (8, 8)])
def test_a_step_of_one_pair_of_elements_is_found(elements):
    potential = broken.pair_step(3.3, 0.01, elements)
    assert not failures(potential, smoothness.cutoff)
    assert failures(potential, offpath.all_pairs)


@pytest.mark.parametrize("at", [2.0, 2.6])
def test_a_step_at_the_fifth_neighbor_is_found(at):
    assert failures(broken.coordination_step(5, at, 0.01), offpath.coordination)


def test_a_step_around_a_molecule_is_found_on_random_paths():
    base = Bench(PAIRS["lj"], Settings()).structure("molecule")
    angle = base.positions[5] @ base.positions[3]

    def beyond(batch):
        return 0.01 * (len(batch.numbers) == 6 and batch.positions[5] @ batch.positions[3] > angle + 0.05)

    assert failures(Changed(add_energy(beyond)), offpath.random_paths)


@pytest.mark.parametrize("potential", [PAIRS["morse"], STIFF], ids=lambda p: p.name)
@pytest.mark.parametrize("run", [offpath.all_pairs, offpath.random_paths, offpath.angle, offpath.in_line])
def test_what_is_smooth_passes(potential, run):
    assert not failures(potential, run, seed=3)


def test_a_stiff_smooth_potential_keeps_the_contract():
    assert not failures(STIFF, invariance.isolated)
    assert check(PairPotential("stiff", LennardJones(depth=100.0)), settings=Settings(quick=True)).passed


def test_a_wrong_force_buys_no_tolerance():
    wrong = Changed(lambda batch, found: broken.replace(found, forces=50 * found.forces))
    tolerances = [m.tolerance for m in smoothness.cutoff(Bench(wrong, Settings())) if m.unit == "eV"]
    assert max(tolerances) < 1e-5


# --- lines, cells, slabs, charge


def test_atoms_in_line_must_have_a_force():
    (first, *_) = failures(Changed(broken.straight_nan), offpath.in_line)
    assert "H–C–N in line: structure 0: the predicted forces" in first.where


def test_the_stress_of_a_left_handed_cell_is_that_of_a_right_handed_one():
    found = failures(Changed(broken.left_handed), invariance.wrap)
    assert {m.where for m in found} == {"crystal, other order of cell vectors, stress"}


def test_a_slab_does_not_feel_its_third_vector():
    assert any("thicknesses" in m.where for m in failures(broken.AlwaysPeriodic(), invariance.vacuum))
    assert not failures(PAIRS["lj"], invariance.vacuum)


def test_a_charge_that_does_not_matter_must_not_matter():
    assert failures(Changed(broken.feels_charge), invariance.charge)
    assert not failures(Changed(), invariance.charge)


def test_a_charge_that_matters_must_matter():
    assert failures(Changed(charge=True), invariance.charge_felt)
    assert not failures(Changed(broken.feels_charge, charge=True), invariance.charge_felt)


# --- structures of the user


def cyclopropenyl():
    angles = 2 * np.pi * np.arange(3) / 3
    return System(
        np.array([6, 6, 6]), 0.85 * np.stack([np.cos(angles), np.sin(angles), 0.1 * angles], axis=1)
    )


def test_a_step_beside_a_structure_of_the_user_is_found():
    base = cyclopropenyl()
    size = np.linalg.norm(base.positions)

    def bigger(batch):
        return 0.01 * (len(batch.numbers) == 3 and np.linalg.norm(batch.positions) > size + 0.02)

    report = check(Changed(add_energy(bigger)), settings=Settings(quick=True), structures=[base])
    assert report["own structures"].status == "failed"
    assert "structure 1 of the file" in report["own structures"].where
    assert check(Changed(), settings=Settings(quick=True), structures=[base] * 40).passed


# --- what the search is made of


def wave(places, jump=0.0, kink=0.0, at=0.37):
    step = places > at
    energy = np.sin(3 * places) + jump * step - kink * step * (places - at) ** 2 / 2
    force = -3 * np.cos(3 * places) + kink * step * (places - at)
    return [Sample(s, e, f, np.array([f, 0.0])) for s, e, f in zip(places, energy, force, strict=True)]


GRID = np.linspace(0, 1, 21)


def test_work_explains_the_energy_but_for_a_step():
    assert max(abs(unexplained(wave(GRID), k)) for k in range(20)) < 1e-7
    assert unexplained(wave(GRID, jump=0.02), 7) == pytest.approx(0.02, abs=1e-7)
    assert abs(unexplained(wave(GRID, jump=0.02), 6)) < 1e-7


@pytest.mark.parametrize(("hunt", "facts"), [("energy", {"jump": 1e-4}), ("force", {"kink": 0.1})])
def test_a_hunt_ends_where_the_jump_is_and_gives_up_early_where_none_is(hunt, facts):
    def hunted(**facts):
        grid = wave(GRID, **facts)
        one = EnergyHunt(grid, 7, (1e-10, 1e-10)) if hunt == "energy" else ForceHunt(grid, 7, 1e-8)
        steps = 0
        while not one.smooth and one.width > 1e-6:
            one.take(*wave(np.array([one.middle]), **facts))
            steps += 1
        return one, steps

    found, _ = hunted(**facts)
    assert found.middle == pytest.approx(0.37, abs=1e-5)
    smooth, steps = hunted()
    assert smooth.smooth
    assert steps <= 4


def test_what_does_not_respond_is_not_called_smooth():
    far = structures.system([6, 6], np.array([[0, 0, 0], [30.0, 0, 0]]))
    trip = Trip("far", Line(far, np.array([[0, 0, 0], [1.0, 0, 0]])), np.linspace(0, 2, 20), far)
    with pytest.raises(NotApplicableError, match="far: energy and forces do not respond"):
        list(searched(Bench(PAIRS["lj"], Settings()), [trip], smoothness.cutoffs_of))


def test_atoms_do_not_fly_out_of_a_steep_well():
    base = Bench(PAIRS["lj"], Settings()).structure("molecule")
    strong = 1e4 * np.random.default_rng(0).normal(size=base.positions.shape)
    path = flight(base, strong, np.random.default_rng(1))
    assert np.linalg.norm(path.at(0.3).positions - base.positions, axis=1).max() < 0.6


def test_a_path_in_a_crystal_ends_before_images_meet():
    base = Bench(PAIRS["lj"], Settings()).structure("crystal")
    toward = base.cell[0] / np.linalg.norm(base.cell[0])
    path = Line(base, np.array([np.zeros(3), toward]))
    gone = path.at(span(path, 3.0)).positions
    shifts = (np.array(list(np.ndindex(3, 3, 3))) - 1) @ base.cell
    nearest = np.linalg.norm(gone[1] - gone[0] + shifts, axis=1).min()
    bond = structures.bond(*base.numbers.tolist())
    assert nearest >= 0.74 * bond


@pytest.mark.parametrize("kind", ["line", "turn", "flight"])
def test_the_tangent_of_a_path_is_its_derivative(kind):
    bench = Bench(PAIRS["lj"], Settings())
    base, rng = bench.structure("molecule"), np.random.default_rng(1)
    path = {
        "line": lambda: push(base, rng),
        "turn": lambda: Turn(base, np.array([3, 4]), base.positions[0], np.array([0.6, 0, 0.8]), 1.3),
        "flight": lambda: flight(base, bench.point(base).forces, rng),
    }[kind]()
    assert isinstance(path, Line | Turn | Flight)
    moved = (path.at(0.2 + 1e-6).positions - path.at(0.2 - 1e-6).positions) / 2e-6
    assert np.abs(moved).max() > 0.1
    np.testing.assert_allclose(path.tangent(0.2), moved, atol=1e-8)
    length = span(path, 0.3)
    assert min(structures.distances(path.at(length))) > 0.6
