"""Pair potentials: exact where mathematics says so, and the broken ones broken as advertised."""

import numpy as np
import pytest

from sfumato.datasets import named as datasets
from sfumato.graph.neighbors import neighbor_pairs
from sfumato.models.pair import PAIRS, ZBL, LennardJones, Morse, PairPotential, bond_length, switch
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.run import run
from sfumato.systems import Batch, System
from tests.tiny_models import crystal, molecule, moved

SMOOTH = ["lj", "morse"]
CONSERVATIVE = [*SMOOTH, "lj-hard-cutoff", "lj-neighbor-cap"]


def predict(potential, *systems):
    return potential.predict(Batch.of(systems)).require()


def dimer(r, numbers=(6, 6)):
    return System(numbers, [[0, 0, 0], [0, 0, r]])


def cluster(n=12, seed=0):
    return molecule(n, seed, spread=2.2)


@pytest.mark.parametrize(("form", "depth"), [(LennardJones(0.7), 0.7), (Morse(3.0, 1.5), 3.0)])
def test_a_dimer_has_its_minimum_at_the_sum_of_radii_with_the_depth_asked_for(form, depth):
    potential = PairPotential("x", form)
    r0 = float(bond_length(np.array(6), np.array(8)))
    at = predict(potential, dimer(r0, (6, 8)))
    assert at.energy[0] == pytest.approx(-depth, rel=1e-14)
    assert np.abs(at.forces).max() < 1e-12


def test_values_by_hand():
    r0 = float(bond_length(np.array(6), np.array(6)))
    lj = predict(PAIRS["lj"], dimer(2 * r0)).energy[0]
    assert lj == pytest.approx(2.0**-12 - 2 * 2.0**-6, rel=1e-12)
    morse = predict(PAIRS["morse"], dimer(r0 + 0.5)).energy[0]
    assert morse == pytest.approx(4 * ((1 - np.exp(-1.0)) ** 2 - 1), rel=1e-12)


def test_zbl_tends_to_the_bare_coulomb_repulsion_and_matches_a_published_value():
    near, _ = ZBL()(np.array([1e-6]), np.array([14]), np.array([14]))
    assert near[0] == pytest.approx(14 * 14 * 14.399645 / 1e-6, rel=1e-4)
    # Si–Si at 1 Å by the formula: a = 0.8854·0.529177/(2·14^0.23) Å, weights and rates of the source
    a = 0.8854 * 0.529177 / (2 * 14**0.23)
    x = 1.0 / a
    screening = (
        0.18175 * np.exp(-3.1998 * x)
        + 0.50986 * np.exp(-0.94229 * x)
        + 0.28022 * np.exp(-0.4029 * x)
        + 0.02817 * np.exp(-0.20162 * x)
    )
    far, _ = ZBL()(np.array([1.0]), np.array([14]), np.array([14]))
    assert far[0] == pytest.approx(196 * 14.399645 * screening, rel=5e-6)


@pytest.mark.parametrize("form", [LennardJones(), Morse(), ZBL()])
def test_forces_are_the_gradient(form):
    potential = PairPotential("x", form, cutoff=5.0, switch_from=2.0)
    for system in (cluster(), crystal()):
        forces = predict(potential, system).forces
        h = 1e-5
        for atom, axis in [(0, 0), (2, 1), (3, 2)]:
            step = np.zeros_like(system.positions)
            step[atom, axis] = h
            plus, minus = (
                predict(potential, moved(system, system.positions + s)).energy[0] for s in (step, -step)
            )
            assert -(plus - minus) / (2 * h) == pytest.approx(forces[atom, axis], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", ["lj-hard-cutoff", "lj-neighbor-cap"])
def test_a_broken_energy_still_has_its_exact_gradient_between_its_jumps(name):
    """So that what catches it is the jump and not a wrong force."""
    system, h = cluster(), 1e-6
    forces = predict(PAIRS[name], system).forces
    for atom, axis in [(0, 0), (5, 1), (9, 2)]:
        step = np.zeros_like(system.positions)
        step[atom, axis] = h
        plus, minus = (
            predict(PAIRS[name], moved(system, system.positions + s)).energy[0] for s in (step, -step)
        )
        assert -(plus - minus) / (2 * h) == pytest.approx(forces[atom, axis], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_stress_is_the_strain_derivative(name):
    system, h = crystal(), 1e-6
    stress = predict(PAIRS[name], system).stress[0]
    assert stress == pytest.approx(stress.T, abs=1e-12)
    volume = abs(np.linalg.det(system.cell))
    for a, b in [(0, 0), (1, 2), (2, 0)]:
        strain = np.zeros((3, 3))
        strain[a, b] += h / 2
        strain[b, a] += h / 2
        energies = [
            predict(PAIRS[name], moved(system, system.positions @ m, system.cell @ m)).energy[0]
            for m in (np.eye(3) + strain, np.eye(3) - strain)
        ]
        assert (energies[0] - energies[1]) / (2 * h * volume) == pytest.approx(stress[a, b], rel=1e-6)


def test_there_is_no_stress_without_a_volume():
    assert predict(PAIRS["lj"], cluster()).stress is None


@pytest.mark.parametrize("name", PAIRS)
def test_order_place_and_company_of_atoms_do_not_matter(name):
    system = cluster()
    alone = predict(PAIRS[name], system)
    assert np.abs(alone.forces).max() > 0.1
    order = np.random.default_rng(3).permutation(len(system))
    shuffled = predict(PAIRS[name], System(system.numbers[order], system.positions[order]))
    assert shuffled.energy == pytest.approx(alone.energy, rel=1e-12)
    assert shuffled.forces == pytest.approx(alone.forces[order], rel=1e-10, abs=1e-10)
    elsewhere = predict(PAIRS[name], moved(system, system.positions + np.array([3.0, -20.0, 7.0])))
    assert elsewhere.forces == pytest.approx(alone.forces, rel=1e-8, abs=1e-8)
    batched = predict(PAIRS[name], cluster(5, 1), system, dimer(1.4))
    assert batched.energy[1] == pytest.approx(alone.energy[0], rel=1e-12)
    assert batched.forces[5:17] == pytest.approx(alone.forces, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_supercell_has_twice_the_energy_and_the_same_forces(name):
    system = crystal()
    double = System(
        np.tile(system.numbers, 2),
        np.concatenate([system.positions, system.positions + system.cell[1]]),
        system.cell * [[1], [2], [1]],
        system.pbc,
    )
    one, two = predict(PAIRS[name], system), predict(PAIRS[name], double)
    assert np.abs(one.forces).max() > 1e-3
    assert np.abs(one.stress).max() > 1e-6
    assert two.energy[0] == pytest.approx(2 * one.energy[0], rel=1e-10)
    assert two.forces == pytest.approx(np.tile(one.forces, (2, 1)), abs=1e-10)
    assert two.stress == pytest.approx(one.stress, rel=1e-10)


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_net_force_is_zero_for_pairs_and_not_for_a_force_field_with_noise(name):
    assert np.abs(predict(PAIRS[name], cluster()).forces.sum(axis=0)).max() < 1e-9
    noisy = predict(PAIRS["lj-direct-noise"], cluster()).forces
    noise = noisy - predict(PAIRS["lj"], cluster()).forces
    assert np.abs(noise.sum(axis=0)).max() > 1e-3
    assert 0.01 < np.sqrt((noise**2).mean()) < 0.1


def test_the_switch_is_one_then_zero_and_smooth_between():
    r = np.linspace(3.9, 6.1, 4001)
    s, slope = switch(r, 4.0, 6.0)
    assert (s[r <= 4] == 1).all()
    assert (s[r >= 6] == 0).all()
    assert (np.diff(s) <= 0).all()
    for order in (1, 2, 3):  # derivatives vanish at both ends
        d = np.diff(s, order) / (r[1] - r[0]) ** order
        assert np.abs(d[: 100 - order]).max() < 1e-9
    assert np.gradient(s, r)[1:-1] == pytest.approx(slope[1:-1], abs=1e-5)


def steps_through(potential, system_at, where, h):
    """Energy change over a step of 2h across a place."""
    a, b = (predict(potential, system_at(where + s)).energy[0] for s in (-h, h))
    return abs(b - a)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_potential_has_no_step_at_its_cutoff(name):
    assert steps_through(PAIRS[name], dimer, 2.5, 1e-3) > 1e-7  # inside it the distance is felt
    assert steps_through(PAIRS[name], dimer, 6.0, 1e-3) < 1e-12
    beyond = predict(PAIRS[name], dimer(6.0 + 1e-9))
    assert beyond.energy[0] == 0
    assert not beyond.forces.any()


def test_the_hard_cutoff_steps_by_the_pair_energy_there():
    phi, _ = LennardJones()(np.array([2.5]), np.array([6]), np.array([6]))
    for h in (1e-3, 1e-6, 1e-9):
        step = steps_through(PAIRS["lj-hard-cutoff"], dimer, 2.5, h)
        assert step == pytest.approx(abs(phi[0]), rel=1e-2)
    assert abs(phi[0]) > 0.05


def test_the_neighbor_cap_steps_when_two_neighbors_swap():
    """A carbon with three hydrogens at 1.1 Å and an oxygen that comes closer than they are."""
    h = 1.1 * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])

    def at(r):
        return System([6, 1, 1, 1, 8], np.vstack([[0, 0, 0], h, [-r / 3**0.5] * 3]))

    lj = LennardJones()
    jump = [lj(np.array([1.1]), np.array([6]), np.array([z]))[0][0] / 2 for z in (1, 8)]
    for d in (1e-4, 1e-7, 1e-9):
        step = steps_through(PAIRS["lj-neighbor-cap"], at, 1.1, d)
        assert step == pytest.approx(abs(jump[0] - jump[1]), rel=0.02)
        assert steps_through(PAIRS["lj"], at, 1.1, d) < 1e3 * d


@pytest.mark.parametrize("r", [0.0, 1e-200, 1e-30])
def test_atoms_at_one_place_are_an_error_that_names_them(r):
    found = PAIRS["lj"].predict(Batch.of([dimer(1.5), dimer(r)]))
    assert set(found.failures) == {1}
    with pytest.raises(ValueError, match="lj: atoms 0 and 1 are at the same place"):
        found.require()
    for potential in PAIRS.values():
        assert np.isfinite(predict(potential, dimer(1e-8)).forces).all()


def test_an_element_without_a_radius_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="lj has no parameters for Og"):
        predict(PAIRS["lj"], dimer(3.0, (6, 118)))


def test_identity_follows_every_setting():
    variants = [
        *PAIRS.values(),
        PairPotential("lj", LennardJones(1.1)),
        PairPotential("lj", LennardJones(), cutoff=5.0),
        PairPotential("lj", LennardJones(), switch_from=3.0),
        PairPotential("lj", LennardJones(), noise=0.1),
    ]
    assert len({p.identity for p in variants}) == len(variants)
    assert PairPotential("lj", LennardJones()).identity == PAIRS["lj"].identity


@pytest.fixture(scope="module")
def residuals(tmp_path_factory):
    """Mean work–energy residuals of every pair potential on bsct-mini, on the grid and refined four-fold."""
    folder = tmp_path_factory.mktemp("controls")
    data = datasets.load("bsct-mini")
    found = {}
    for refine in (1, 4):
        settings = Settings(refine=refine)
        measured = run("bsct", list(PAIRS.values()), data, out=folder, settings=settings)
        assert measured.complete
        for name, model in measured.models.items():
            for side in ("full", "stretch"):
                metric = f"{bsct.residual_name(settings)}_{side}"
                found[name, refine, side] = model.estimates[metric].mean
    return found


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("side", ["full", "stretch"])
def test_smooth_potentials_leave_integration_error_only(residuals, name, side):
    """It falls with the cube of the step: 64-fold for a four-fold refinement."""
    assert residuals[name, 1, side] / residuals[name, 4, side] > 50


def test_the_hard_cutoff_is_caught_on_the_published_grid(residuals):
    assert residuals["lj-hard-cutoff", 1, "stretch"] > 100 * residuals["lj", 1, "stretch"]
    ratio = residuals["lj-hard-cutoff", 1, "stretch"] / residuals["lj-hard-cutoff", 4, "stretch"]
    assert ratio == pytest.approx(1.0, abs=0.1)


def test_the_neighbor_cap_is_caught(residuals):
    assert residuals["lj-neighbor-cap", 1, "full"] > 2 * residuals["lj", 1, "full"]
    assert residuals["lj-neighbor-cap", 4, "full"] > 50 * residuals["lj", 4, "full"]


def test_direct_noise_is_caught_on_a_finer_path(residuals):
    assert residuals["lj-direct-noise", 4, "stretch"] > 50 * residuals["lj", 4, "stretch"]
    fall = residuals["lj-direct-noise", 1, "stretch"] / residuals["lj-direct-noise", 4, "stretch"]
    assert fall < 8


def test_a_cap_below_every_count_keeps_that_many_pairs():
    system = cluster()
    full = neighbor_pairs(system, 6.0)
    counts = np.bincount(full.i, minlength=len(system))
    assert counts.min() > 3
    every = PairPotential("all", LennardJones(), neighbors=int(counts.max()))
    assert predict(every, system).energy == pytest.approx(predict(PAIRS["lj"], system).energy, rel=1e-12)
