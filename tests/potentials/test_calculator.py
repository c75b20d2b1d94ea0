"""The ASE calculator: ASE's signs and orders, and neighbors that are kept without being seen in results."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

from sfumato.graph import GraphSettings
from sfumato.graph.verlet import Neighbors
from sfumato.io import from_ase
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.potentials.network import NetworkPotential
from sfumato.systems import Batch

WATER = Atoms("OHH", [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])


def potential(dtype="float64", rank="compact"):
    graph = GraphSettings(k=6, cutoff=4.0, rank=rank)
    config = MinDScAIPConfig(
        width=8, heads=2, layers=1, radial=8, directional="angular_bias", graph=graph, elements=(1, 8, 13)
    )
    model = MinDScAIP(config, torch.Generator().manual_seed(5))
    model.scale.fill_(50.0)
    return NetworkPotential(model, "tiny", dtype=dtype)


POTENTIAL = potential()


def crystal(seed=0, times=2):
    atoms = bulk("Al", "fcc", 3.9, cubic=True) * times
    atoms.rattle(0.15, seed=seed)
    return atoms


def with_calculator(atoms, skin, dtype="float64"):
    atoms = atoms.copy()
    atoms.calc = (POTENTIAL if dtype == "float64" else POTENTIAL.to(dtype=dtype)).calculator(skin=skin)
    return atoms


def fresh(atoms):
    found = POTENTIAL.predict(Batch.of([from_ase(atoms)]))
    return float(found.energy[0]), found.forces


def agree(atoms, tolerance=1e-10):
    energy, forces = fresh(atoms)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=tolerance)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=tolerance)


# --- what ASE expects


def test_energy_forces_and_stress_have_ases_signs_units_and_order():
    atoms = with_calculator(crystal(), 0.5)
    agree(atoms)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    stress = atoms.get_stress()
    h = 1e-4
    for k, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energy = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h / 2
            strain[b, a] += sign * h / 2
            other = with_calculator(atoms, 0.5)
            other.set_cell(atoms.cell @ strain, scale_atoms=True)
            energy.append(other.get_potential_energy())
        slope = (energy[0] - energy[1]) / (2 * h * atoms.get_volume())
        assert stress[k] == pytest.approx(slope, abs=1e-8)
    assert np.abs(stress).max() > 1e-4


def test_molecules_and_slabs_have_no_stress():
    for atoms in (with_calculator(WATER, 0.5), with_calculator(crystal(), 0.5)):
        atoms.pbc = [True, True, False] if atoms.cell.any() else False
        agree(atoms)
        with pytest.raises(PropertyNotImplementedError, match="tiny gives no stress for this structure"):
            atoms.get_stress()


def test_the_parts_of_a_result_are_computed_at_once():
    atoms = with_calculator(crystal(), 0.5)
    atoms.get_potential_energy()
    assert set(atoms.calc.results) == {"energy", "free_energy", "forces", "stress"}
    atoms.get_forces()[:] = 7  # not a view of what is kept
    agree(atoms)


# --- neighbors that are kept


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("start", [WATER * 1, crystal()], ids=["molecule", "crystal"])
def test_along_a_trajectory_results_do_not_depend_on_the_skin(start, skin):
    atoms = with_calculator(start, skin)
    rng = np.random.default_rng(0)
    velocity = rng.normal(size=(len(atoms), 3))
    steps = 24
    for _ in range(steps):
        velocity = 0.9 * velocity + 0.4 * rng.normal(size=velocity.shape)
        atoms.positions += 0.02 * velocity
        agree(atoms)
    searches = atoms.calc.session.neighbors.searches
    assert searches == steps if skin == 0 else 1 < searches < steps / 2


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
def test_a_simulation_takes_the_same_path_with_and_without_a_skin(dtype, tolerance):
    paths = []
    for skin in (0.0, 0.5):
        atoms = with_calculator(crystal(), skin, dtype)
        atoms.set_momenta(np.random.default_rng(1).normal(size=(len(atoms), 3)))
        VelocityVerlet(atoms, 2 * units.fs).run(30)
        paths.append(atoms.positions)
        searches = atoms.calc.session.neighbors.searches
    assert np.abs(paths[0] - crystal().positions).max() > 0.2
    np.testing.assert_allclose(paths[1], paths[0], rtol=0, atol=tolerance)
    assert searches < 20


def test_a_structure_that_changes_is_searched_anew():
    atoms = with_calculator(crystal(), 0.6)
    seen = []

    def searched(change):
        """A change of what a session cannot change begins another one."""
        change()
        agree(atoms)
        session = atoms.calc.session
        before = seen[-1][1] if seen and seen[-1][0] is session else 0
        seen.append((session, session.neighbors.searches))
        return session.neighbors.searches - before

    assert searched(lambda: None) == 1
    assert searched(lambda: atoms.positions.__iadd__([0.1, 0, 0])) == 0
    assert searched(lambda: atoms.positions.__iadd__([0.1, 0, 0])) == 0
    assert searched(lambda: atoms.positions.__iadd__([0.11, 0, 0])) == 1
    assert searched(lambda: atoms.numbers.__setitem__(0, 8)) == 1
    assert searched(lambda: atoms.positions.__setitem__((3, 0), atoms.positions[3, 0] + 0.31)) == 1
    assert searched(lambda: atoms.set_cell(atoms.cell * 1.01)) == 1
    assert searched(lambda: atoms.set_pbc([True, True, False])) == 1
    assert searched(lambda: atoms.append("H")) == 1
    assert searched(lambda: atoms.positions.__isub__(atoms.cell[0])) == 1  # to other images
    assert searched(lambda: atoms.__delitem__(slice(1, None))) == 1


def test_pairs_that_are_kept_for_too_long_would_be_seen(monkeypatch):
    monkeypatch.setattr(Neighbors, "_stale", lambda *_: False)
    atoms = with_calculator(crystal(), 0.3)
    agree(atoms)
    atoms.positions[0] += atoms.cell[0]  # the same crystal
    with pytest.raises(AssertionError):
        agree(atoms)


# --- bad input


def test_nonsense_in_the_middle_of_a_simulation_is_refused():
    atoms = with_calculator(crystal(), 0.5)
    agree(atoms)
    atoms.positions[3] = atoms.positions[7]
    with pytest.raises(ValueError, match="atoms 3 and 7 of structure 0 are at the same place"):
        atoms.get_potential_energy()
    atoms.positions[3, 1] = np.nan
    with pytest.raises(ValueError, match="is not finite"):
        atoms.get_forces()
    atoms.positions = crystal().positions
    atoms.numbers[0] = 79
    with pytest.raises(ValueError, match="tiny has no parameters for Au"):
        atoms.get_potential_energy()
    atoms.numbers[0] = 13
    atoms.cell[2] = atoms.cell[0]
    with pytest.raises(ValueError, match=r"zero volume|no volume"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_a_skin_is_a_length(skin):
    with pytest.raises(ValueError, match="skin: expected a length in Å, 0 or more, got"):
        with_calculator(WATER, skin).get_potential_energy()
