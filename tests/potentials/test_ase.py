"""ASE calculators as potentials: kinds of results, charge and spin, stress, working folders."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, FileIOCalculator, PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator

from sfumato.potentials.ase import FromASE, from_ase
from sfumato.potentials.engines import ASE, PySCF, TBLite
from sfumato.systems import Batch, System

WATER = System([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
PAIR = System([18, 18], [[0, 0, 0], [0, 0, 3.6]])
CRYSTAL = System([18, 18], [[0, 0, 0], [0, 0, 3.6]], 8 * np.eye(3), [True] * 3)


class Given(Calculator):
    """Returns what it was given, each through a function."""

    implemented_properties = ("energy", "forces")

    def __init__(self, energy=float, forces=np.array):
        super().__init__()
        self.energy, self.forces = energy, forces

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        forces = np.arange(3.0 * len(atoms)).reshape(-1, 3)
        self.results = {"energy": self.energy(-1.25), "forces": self.forces(forces)}


def tensor(x):
    import torch

    return torch.tensor(x, requires_grad=True)


@pytest.mark.parametrize(
    "energy",
    [
        lambda e: [e],
        lambda e: np.array([e]),
        np.array,
        lambda e: np.array([[e]]),
        np.float32,
        lambda e: tensor([e]),
        tensor,
    ],
)
def test_an_energy_is_a_number_whatever_holds_it(energy):
    found = FromASE(Given(energy), "given").predict(Batch.of([WATER, PAIR])).require()
    assert found.energy.tolist() == [-1.25, -1.25]


@pytest.mark.parametrize("forces", [np.ndarray.tolist, tensor, np.float32, np.ravel, lambda f: f[None]])
def test_forces_are_read_whatever_holds_them(forces):
    found = FromASE(Given(forces=forces), "given").predict(Batch.of([PAIR])).require()
    np.testing.assert_array_equal(found.forces, np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("energy", "forces", "reason"),
    [
        (lambda e: [e, e], np.array, r"given: energy: the calculator returned shape \(2,\), expected \(\)"),
        (lambda e: "low", np.array, "given: energy: the calculator returned no numbers"),
        (lambda e: None, np.array, "given: energy: the calculator returned None"),
        (float, np.transpose, r"given: forces: the calculator returned shape \(3, 2\), expected \(2, 3\)"),
        (float, lambda f: None, "given: forces: the calculator returned None"),
    ],
)
def test_other_shapes_are_refused_by_name(energy, forces, reason):
    with pytest.raises(ValueError, match=reason):
        FromASE(Given(energy, forces), "given").predict(Batch.of([PAIR])).require()


class Raises(LennardJones):
    """Lists a stress among its properties, and has none."""

    def get_stress(self, atoms=None):
        raise PropertyNotImplementedError("stress property not implemented")


class Forgets(LennardJones):
    """Lists a stress among its properties, and leaves it out of the results."""

    def calculate(self, *arguments, **settings):
        super().calculate(*arguments, **settings)
        del self.results["stress"]


@pytest.mark.parametrize("kind", [Raises, Forgets])
def test_a_stress_that_is_only_advertised_is_no_failure(kind):
    settings = {"sigma": 3.4, "epsilon": 0.0104, "rc": 3.9, "smooth": True}
    batch = Batch.of([CRYSTAL, CRYSTAL])
    full = FromASE(LennardJones(**settings), "lj").predict(batch).require()
    found = FromASE(kind(**settings), "lj").predict(batch).require()
    assert found.stress is None
    assert full.stress is not None
    np.testing.assert_array_equal(found.energy, full.energy)
    np.testing.assert_array_equal(found.forces, full.forces)


def test_charge_and_spin_give_the_same_numbers_as_the_engine_of_the_method():
    calculator = pytest.importorskip("tblite.ase").TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
    ammonium = System(
        [7, 1, 1, 1, 1],
        [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [0.6, -0.6, -0.6], [-0.6, 0.6, -0.6]],
        charge=1,
    )
    hydroxyl = System([8, 1], [[0, 0, 0], [0, 0, 0.98]], multiplicity=2)
    batch = Batch.of([ammonium, hydroxyl, WATER])
    expected = TBLite().predict(batch).require()
    found = FromASE(calculator, "mine").predict(batch).require()
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-4)
    neutral = FromASE(calculator, "mine").predict(Batch.of([System(ammonium.numbers, ammonium.positions)]))
    assert neutral.failures or abs(neutral.energy[0] - found.energy[0]) > 1


PROGRAM = """
import numpy as np
x = np.loadtxt("job.in").reshape(-1, 3)
np.savetxt("job.out", [x.sum()])
"""


class Program(FileIOCalculator):
    """Writes its input, runs a program and reads its output."""

    implemented_properties = ("energy", "forces")

    def __init__(self, **settings):
        super().__init__(label="job", command=f"{sys.executable} prog.py", **settings)

    def write_input(self, atoms, properties=None, system_changes=None):
        super().write_input(atoms, properties, system_changes)
        Path(self.directory, "prog.py").write_text(PROGRAM)
        np.savetxt(Path(self.directory, "job.in"), atoms.positions)

    def read_results(self):
        energy = float(np.loadtxt(Path(self.directory, "job.out")))
        self.results = {"energy": energy, "forces": np.zeros((len(self.atoms), 3))}


def folder_of(potential):
    return Path(potential.inner.directory)


def test_every_calculator_that_writes_files_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = FromASE(Program(), "p"), FromASE(Program(), "p")
    assert first.identity == second.identity
    for potential in (first, second, first):
        assert potential.predict(Batch.of([PAIR])).require().energy[0] == pytest.approx(3.6)
    assert folder_of(first) != folder_of(second)
    assert list(tmp_path.iterdir()) == []
    gone = folder_of(first)
    assert gone.is_dir()
    del first, potential
    assert not gone.exists()


def test_a_stated_folder_holds_the_working_folders_and_a_copy_has_another(tmp_path):
    potential = FromASE(Program(directory=str(tmp_path / "scratch")), "p")
    copy = pickle.loads(pickle.dumps(potential))
    for each in (potential, copy):
        each.predict(Batch.of([PAIR])).require()
        assert folder_of(each).parent == tmp_path / "scratch"
    assert folder_of(potential) != folder_of(copy)


def test_calculators_inside_of_others_have_their_folders_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    potential = FromASE(SumCalculator([Program(), LennardJones(sigma=3.4, epsilon=0.01, rc=9)]), "sum")
    potential.predict(Batch.of([PAIR])).require()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_processes_are_removed(tmp_path):
    left = tmp_path / "scratch"
    potential = FromASE(Program(directory=str(left)), "p")
    potential.predict(Batch.of([PAIR])).require()
    mine = f"-{os.getpid()}-"
    dead, alive = (left / folder_of(potential).name.replace(mine, f"-{pid}-") for pid in (2**22 + 1, 1))
    dead.mkdir(), alive.mkdir()
    FromASE(Program(directory=str(left)), "p").predict(Batch.of([PAIR])).require()
    assert (dead.exists(), alive.exists()) == (False, True)


def test_whether_charge_counts_is_stated():
    assert FromASE(Given(), "given").abilities.charge
    assert not FromASE(Given(), "given", charge=False).abilities.charge
    assert TBLite().abilities.charge
    assert ASE("tblite.ase:TBLite").abilities.charge
    assert not ASE("mindscaip-nano").abilities.charge
    assert not PySCF().abilities.periodic


@pytest.mark.parametrize("thing", [Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), LennardJones, 3, None])
def test_what_is_not_a_calculator_is_refused_by_name(thing):
    with pytest.raises(TypeError, match=r"takes an ASE calculator, such as atoms\.calc, got .*sfumato\.io"):
        from_ase(thing)


def test_a_calculator_has_the_name_of_its_class():
    assert from_ase(LennardJones()).name == "lennardjones"
    assert from_ase(LennardJones(), "lj").name == "lj"
