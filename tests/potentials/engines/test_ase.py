"""A user's ASE calculator as an engine: analytic energies, charge and spin, failures, identity."""

import pickle

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from sfumato.potentials.engines import ASE, make_engine
from sfumato.systems import System

ARGON = System(np.array([18, 18]), np.array([[0, 0, 0], [0, 0, 1.5]]))

HEADER = """
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

class Mine(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.found(self.atoms)
        self.results = {"energy": energy, "forces": forces}

    def found(self, atoms):
"""
FOOTER = """

def make():
    return Mine()
"""


@pytest.fixture
def spec(tmp_path):
    """Write a calculator whose `found(atoms)` has this body, and return its spec."""

    def write(body):
        file = tmp_path / "my_model.py"
        file.write_text(HEADER + "        " + body + FOOTER)
        return f"{file}:make"

    return write


def test_lennard_jones_as_on_paper(tmp_path):
    file = tmp_path / "pair.py"
    file.write_text(
        "from ase.calculators.lj import LennardJones\n"
        "def make(): return LennardJones(sigma=1.2, epsilon=0.5, rc=1e6)\n"
    )
    label = make_engine("ase", f"{file}:make").label(ARGON)
    x = (1.2 / 1.5) ** 6
    slope = 4 * 0.5 * (12 * x**2 - 6 * x) / 1.5
    assert label.energy == pytest.approx(4 * 0.5 * (x**2 - x), rel=1e-12)
    np.testing.assert_allclose(label.forces, [[0, 0, -slope], [0, 0, slope]], atol=1e-12)
    assert (label.converged, label.message, label.spin_squared) == (True, "", None)


def test_a_crystal_keeps_its_cell():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0] += 0.1
    crystal = System(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
    label = ASE("ase.calculators.emt:EMT").label(crystal)
    atoms.calc = EMT()
    assert label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(label.forces, atoms.get_forces(), rtol=0, atol=1e-12)
    assert np.abs(label.forces).max() > 0.1


def test_a_module_of_the_package_names_and_a_named_model_serve_as_well():
    label = ASE("lj").label(ARGON)
    assert label.converged
    np.testing.assert_allclose(label.forces[0], -label.forces[1], atol=1e-12)
    assert label.engine == "ase lj"


@pytest.mark.parametrize(("charge", "multiplicity"), [(0, 1), (-1, 2), (2, 3)])
def test_charge_and_multiplicity_are_where_calculators_look(spec, charge, multiplicity):
    engine = ASE(
        spec(
            "return (atoms.get_initial_charges().sum() + 10 * atoms.get_initial_magnetic_moments().sum()"
            " + 100 * atoms.info['charge'] + 1000 * atoms.info['multiplicity']"
            " + 10000 * atoms.info['spin']), np.zeros((len(atoms), 3))"
        )
    )
    ion = System(np.full(7, 1), np.arange(21.0).reshape(7, 3), charge=charge, multiplicity=multiplicity)
    assert engine.label(ion).energy == 101 * charge + 10 * (multiplicity - 1) + 11000 * multiplicity


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('no convergence')", "^RuntimeError: no convergence$"),
        ("return float('nan'), np.zeros((2, 3))", "not finite"),
        ("return 0.0, np.full((2, 3), np.inf)", "not finite"),
        ("return 0.0, np.zeros((3, 3))", r"forces: .* shape \(3, 3\)"),
    ],
)
def test_a_point_without_numbers_is_a_failure_with_its_reason(spec, body, reason):
    label = ASE(spec(body)).label(ARGON)
    assert not label.converged
    assert np.isnan(label.energy)
    assert np.isnan(label.forces).all()
    assert label.forces.shape == (2, 3)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(label.message)


def test_results_do_not_depend_on_history(spec):
    engine = ASE(spec("return float(bool(self.results)), np.zeros((len(atoms), 3))"))
    assert [engine.label(ARGON).energy for _ in range(2)] == [0.0, 0.0]


def test_identity_follows_source_and_spec(spec):
    first = ASE(spec("return 0.0, np.zeros((len(atoms), 3))")).identity
    assert ASE(spec("return 0.0, np.zeros((len(atoms), 3))")).identity == first
    assert ASE(spec("return 1.0, np.zeros((len(atoms), 3))")).identity != first
    assert ASE("lj").identity != ASE("morse").identity


def test_a_worker_makes_its_own_calculator_from_the_same_source(spec):
    engine = ASE(spec("return 1.0, np.zeros((len(atoms), 3))"))
    sent = pickle.dumps(engine)
    assert b"Mine" not in sent
    there = pickle.loads(pickle.dumps(pickle.loads(sent)))
    assert (there, hash(there)) == (engine, hash(engine))
    assert there.label(ARGON).energy == engine.label(ARGON).energy
    assert there.identity == engine.identity
    spec("return 2.0, np.zeros((len(atoms), 3))")
    with pytest.raises(ValueError, match=r"my_model\.py:make changed while the campaign was going"):
        pickle.loads(sent).label(ARGON)


def test_nothing_is_pinned_for_a_users_calculator():
    assert ASE("lj").self_test() is False


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ("absent.py:make", "there is no file absent.py"),
        ("ase.calculators.emt:EMTT", "no function 'EMTT'; did you mean 'EMT'"),
        ("nothing", "unknown model 'nothing'"),
        ("ase.calculators.nothing:Calculator", "No module named"),
    ],
)
def test_a_spec_that_leads_to_no_calculator_is_an_error(level, reason):
    with pytest.raises(ValueError, match=reason):
        make_engine("ase", level).label(ARGON)
