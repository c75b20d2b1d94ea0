"""The Potential protocol, its bridges to ASE, and what a user may type after --model."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as AseLennardJones

from sfumato.models.pair import PAIRS
from sfumato.potentials.adopted import adopted
from sfumato.potentials.ase import FromASE, from_ase
from sfumato.potentials.devices import spread
from sfumato.potentials.factories import call_factory
from sfumato.potentials.potential import MissingElementError, Potential, as_calculator
from sfumato.potentials.specs import NAMED, describe, resolve
from sfumato.systems import Batch, Prediction, System

WATER = System([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
CRYSTAL = System([29] * 2, [[0, 0, 0], [1.9, 1.7, 1.8]], 3.6 * np.eye(3), [True] * 3)


class Spring(Calculator):
    """E = ½ k Σ |r − r₀|², and a memory of what it has seen."""

    implemented_properties = ("energy", "forces")

    def __init__(self, k: float = 2.0):
        super().__init__()
        self.k = k
        self.guess = 0.0
        self.seen: list[Atoms] = []

    def reset(self):
        super().reset()
        self.guess = 0.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.seen.append(atoms.copy())
        self.results = {
            "energy": 0.5 * self.k * (atoms.positions**2).sum() + self.guess,
            "forces": -self.k * atoms.positions,
        }
        self.guess += 1.0


def test_an_ase_calculator_gives_its_own_numbers_for_every_structure_of_a_batch():
    potential = from_ase(AseLennardJones(sigma=1.2, rc=8.0), "x")
    systems = [WATER, System([1], [[0, 0, 0]]), System([6, 6], [[0, 0, 0], [0, 0, 1.5]])]
    prediction = potential.predict(Batch.of(systems))
    start = 0
    for k, system in enumerate(systems):
        atoms = Atoms(system.numbers, system.positions, calculator=AseLennardJones(sigma=1.2, rc=8.0))
        assert prediction.energy[k] == atoms.get_potential_energy()
        np.testing.assert_array_equal(prediction.forces[start : start + len(system)], atoms.get_forces())
        start += len(system)
    assert prediction.stress is None
    assert potential.abilities.batch == 1
    assert isinstance(potential, Potential)


def test_results_never_depend_on_what_was_computed_before():
    potential = FromASE(Spring(), "spring")
    first = potential.predict(Batch.of([WATER])).energy
    potential.predict(Batch.of([CRYSTAL, WATER]))
    assert potential.predict(Batch.of([WATER, WATER])).energy.tolist() == [first[0]] * 2
    calculator = Spring()
    atoms = Atoms(WATER.numbers, WATER.positions, calculator=calculator)
    remembered = [atoms.get_potential_energy()]
    atoms.positions += 1e-9
    remembered.append(atoms.get_potential_energy())
    assert remembered[1] - remembered[0] > 0.5  # without the reset, this calculator does depend on it


def test_charge_and_multiplicity_are_stated_wherever_calculators_look():
    calculator = Spring()
    ion = dataclasses.replace(WATER, charge=-1, multiplicity=2)
    from_ase(calculator, "spring").predict(Batch.of([ion, WATER]))
    first, second = calculator.seen
    assert (first.info["charge"], first.info["spin"], first.info["multiplicity"]) == (-1, 2, 2)
    assert first.get_initial_charges().sum() == -1
    assert first.get_initial_magnetic_moments().sum() == 1
    assert (second.info["charge"], second.info["spin"]) == (0, 1)
    assert not second.has("initial_charges")
    assert not second.has("initial_magmoms")


def test_stress_comes_where_there_is_a_volume_and_the_calculator_has_one():
    potential = from_ase(EMT(), "emt")
    atoms = Atoms(CRYSTAL.numbers, CRYSTAL.positions, cell=CRYSTAL.cell, pbc=True, calculator=EMT())
    stress = potential.predict(Batch.of([CRYSTAL])).stress
    assert stress is not None
    np.testing.assert_allclose(stress[0], atoms.get_stress(voigt=False), rtol=0, atol=1e-12)
    assert potential.predict(Batch.of([dataclasses.replace(CRYSTAL, pbc=[False] * 3)])).stress is None
    assert from_ase(Spring(), "spring").predict(Batch.of([CRYSTAL])).stress is None


def test_what_a_calculator_raises_comes_through_unchanged():
    class Broken(Spring):
        def calculate(self, *args, **kwargs):
            raise KeyError("no such orbital")

    with pytest.raises(KeyError, match="no such orbital"):
        from_ase(Broken(), "broken").predict(Batch.of([WATER])).require()


def test_forces_for_other_atoms_are_refused():
    class Short(Spring):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"][:-1]

    with pytest.raises(ValueError, match=r"short: .* shape \(2, 3\), expected \(3, 3\)"):
        from_ase(Short(), "short").predict(Batch.of([WATER])).require()


def test_a_missing_element_is_named_and_costs_its_own_structure_only():
    calculator = Spring()
    potential = from_ase(calculator, "organic", elements=[1, 6, 7, 8])
    potential.predict(Batch.of([WATER]))
    other = System([29, 14], [[0, 0, 0], [0, 0, 2]])
    found = potential.predict(Batch.of([WATER, other, WATER]))
    assert [*found.failures] == [1]
    assert np.isfinite(found.energy).tolist() == [True, False, True]
    with pytest.raises(MissingElementError, match=r"organic has no parameters for Si, Cu, .* H, C, N, O"):
        found.require()
    assert len(calculator.seen) == 3


def test_a_potential_survives_the_way_to_ase_and_back():
    lj = PAIRS["lj"]
    atoms = Atoms(CRYSTAL.numbers, CRYSTAL.positions, cell=CRYSTAL.cell, pbc=True)
    atoms.calc = as_calculator(lj)
    direct = lj.predict(Batch.of([CRYSTAL]))
    assert atoms.get_potential_energy() == direct.energy[0]
    np.testing.assert_array_equal(atoms.get_forces(), direct.forces)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), direct.stress[0], atol=1e-14)
    again = from_ase(as_calculator(lj), "again").predict(Batch.of([CRYSTAL]))
    np.testing.assert_allclose(again.stress, direct.stress, atol=1e-14)
    atoms.positions[1] += 0.1
    assert atoms.get_potential_energy() != direct.energy[0]


def test_a_molecule_has_no_stress_in_ase():
    atoms = Atoms(WATER.numbers, WATER.positions, calculator=as_calculator(PAIRS["lj"]))
    atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="lj"):
        atoms.get_stress()


def test_a_changed_charge_is_a_new_calculation_in_ase():
    class Counting(Potential):
        name, identity = "counting", "0"

        def compute(self, batch):
            return Prediction(batch.charge.astype(float), np.zeros((3, 3)))

    atoms = Atoms(WATER.numbers, WATER.positions, calculator=as_calculator(Counting()))
    assert atoms.get_potential_energy() == 0
    atoms.info["charge"] = 2
    assert atoms.get_potential_energy() == 2


FILE = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from ase.calculators.lj import LennardJones
from beside import SIGMA
from sfumato.systems import Prediction

@dataclass
class Flat:
    name: str = "flat"
    identity: str = "the same whatever the code says"
    chunk: int = 5
    def predict(self, batch):
        return Prediction(np.zeros(len(batch)), np.zeros((len(batch.numbers), 3)))

def make():
    return LennardJones(sigma=SIGMA, rc=9.0)

def potential():
    return Flat()

def a_class():
    return LennardJones

def nothing():
    return None

def broken():
    raise RuntimeError("no licence")
"""


@pytest.fixture
def model_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name in ("beside", "my_model")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "beside.py").write_text("SIGMA = 1.3\n")
    path = tmp_path / "my_model.py"
    path.write_text(FILE)
    yield path
    for name in ("beside", "my_model"):
        sys.modules.pop(name, None)


def test_a_users_file_and_module_give_what_the_calculator_gives(model_file):
    expected = from_ase(AseLennardJones(sigma=1.3, rc=9.0), "x").predict(Batch.of([WATER]))
    paths = list(sys.path)
    for spec in (f"{model_file}:make", "my_model.py:make", "my_model:make"):
        found = resolve(spec).predict(Batch.of([WATER]))
        assert found.energy == expected.energy
        np.testing.assert_array_equal(found.forces, expected.forces)
    assert sys.path == paths


def test_a_users_potential_keeps_its_name_and_chunk(model_file):
    potential = resolve(f"{model_file}:potential")
    assert isinstance(potential, Potential)
    assert (potential.name, potential.abilities.batch) == ("flat", 5)
    assert potential.predict(Batch.of([WATER])).energy.tolist() == [0.0]


@pytest.mark.parametrize("factory", ["make", "potential"])
def test_identity_of_a_users_model_follows_source_factory_and_what_it_made(model_file, factory):
    first = resolve(f"{model_file}:{factory}").identity
    assert resolve(f"my_model.py:{factory}").identity == first
    elsewhere = model_file.parent / "other"
    elsewhere.mkdir()
    (elsewhere / "my_model.py").write_text(FILE)
    assert resolve(f"{elsewhere / 'my_model.py'}:{factory}").identity == first
    model_file.write_text(FILE.replace("sigma=SIGMA", "sigma=2 * SIGMA"))
    assert resolve(f"{model_file}:{factory}").identity != first


def test_identity_is_the_same_in_another_process(model_file):
    code = f"from sfumato.potentials.specs import resolve; print(resolve('{model_file}:make').identity)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout.strip() == resolve(f"{model_file}:make").identity


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gfn2-xbt", "did you mean 'gfn2-xtb'"),
        ("sevenet:7net-0", "did you mean 'sevennet'"),
        ("my_model.py", "add :factory"),
        ("my_model.py:", "unknown model"),
        ("absent.py:make", "there is no file absent.py"),
        ("my_model.py:mak", "no function 'mak'; did you mean 'make'"),
        ("my_model.py:nothing", "returned a NoneType; return an ASE calculator or a Potential"),
        ("my_model.py:a_class", "returned the class LennardJones; return an ASE calculator"),
        ("my_model.py:broken", r"broken\(\) raised RuntimeError: no licence"),
        ("no_such_package.module:make", "No module named 'no_such_package': is it installed in this .*t\\?$"),
        ("lj:1", "lj takes no argument"),
        ("mace", "write --model mace:FILE"),
        ("mace:absent.model", "there is no file absent.model"),
        ("chgnet:absent.tar", "there is no file absent.tar"),
        ("", "unknown model ''"),
        ("nosuchpkg", "unknown model 'nosuchpkg'; `sfumato list` shows the names"),
        ("xtb", "did you mean 'gfn2-xtb' or 'gfn1-xtb'"),
        ("lj-hard", "did you mean 'lj-hard-cutoff'"),
    ],
)
def test_a_spec_that_leads_nowhere_says_where_to_go(model_file, spec, words):
    with pytest.raises(ValueError, match=words):
        resolve(spec)


def test_the_error_of_a_factory_is_chained(model_file):
    with pytest.raises(ValueError, match="no licence") as caught:
        resolve("my_model.py:broken")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("mistake", ["raise ValueError('at the top')", "import absent_package", "def ("])
def test_a_file_that_cannot_be_imported_is_named_with_the_reason(model_file, mistake):
    model_file.write_text(mistake)
    modules = set(sys.modules)
    with pytest.raises(ValueError, match=r"my_model\.py:make.*(at the top|absent_package|SyntaxError)"):
        resolve("my_model.py:make")
    assert not [name for name in set(sys.modules) - modules if name.startswith("sfumato_user")]


@pytest.mark.parametrize("method", ["gfn1-xtb", "gfn2-xtb"])
def test_extended_tight_binding_gives_the_engines_numbers(method):
    pytest.importorskip("tblite")
    from sfumato.potentials.engines import TBLite

    potential = resolve(method)
    prediction = potential.predict(Batch.of([WATER, WATER]))
    label = TBLite(method.upper().replace("XTB", "xTB")).label(WATER)
    # Not to the bit: with several threads tblite sums in any order.
    np.testing.assert_allclose(prediction.energy, [label.energy] * 2, rtol=0, atol=1e-9)
    np.testing.assert_allclose(prediction.forces[3:], label.forces, rtol=0, atol=1e-9)
    assert (potential.name, potential.abilities.level.lower()) == (method, method)


def test_an_unconverged_point_is_a_failure_with_its_reason():
    pytest.importorskip("tblite")
    from sfumato.potentials.engines import TBLite

    found = TBLite(max_iterations=2).predict(Batch.of([WATER, System([1], [[0, 0, 0]], multiplicity=2)]))
    assert re.match(r"not converged: .*SCF", found.failures[0].reason)
    with pytest.raises(RuntimeError, match=r"structure 0: not converged"):
        found.require()


def test_without_tblite_the_error_says_what_to_install(monkeypatch):
    from importlib import metadata

    from sfumato.potentials import engines

    def absent(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    engines._version.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'sfumato\[xtb\]'"):
        resolve("gfn2-xtb").predict(Batch.of([WATER])).require()


def test_every_named_model_is_described_and_the_pair_potentials_resolve():
    rows = describe()
    assert [re.match(r"[\w-]+", row[0])[0] for row in rows[: len(NAMED)]] == list(NAMED)
    assert all(len(row) == 3 and row[1] for row in rows)
    for name, potential in PAIRS.items():
        assert resolve(name).identity == potential.identity


def test_resolving_pairs_and_calculators_does_not_load_torch(model_file):
    code = (
        "import sys; from sfumato.potentials.specs import resolve; "
        f"resolve('lj').identity; resolve('{model_file}:make'); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert Path(model_file).exists()


class Picky(Potential):
    """Lennard-Jones that raises for some structures, and says nonsense of others."""

    name, identity = "picky", "0"

    def __init__(self, limit=64):
        self.limit, self.calls = limit, 0

    def compute(self, batch):
        self.calls += 1
        if (batch.numbers == 79).any():
            raise KeyError("gold")
        if (batch.numbers == 80).any():
            raise MemoryError
        found = PAIRS["lj"].compute(batch)
        energy = found.energy.copy()
        energy[np.unique(batch.index[batch.numbers == 81])] = np.nan
        return Prediction(energy, found.forces, found.stress)


def dimer(z):
    return System([6, z], [[0, 0, 0], [0, 0, 2.0]])


def test_a_structure_that_cannot_be_predicted_never_costs_its_batch():
    systems = [dimer(z) for z in (6, 79, 8, 80, 7, 81, 9, 1)]
    picky = Picky()
    found = picky.predict(Batch.of(systems))
    reasons = {k: failure.reason for k, failure in found.failures.items()}
    assert reasons == {1: "KeyError: 'gold'", 3: "out of memory", 5: "the predicted energy is not finite"}
    for k, system in enumerate(systems):
        forces = found.forces[2 * k : 2 * k + 2]
        if k in reasons:
            assert np.isnan(found.energy[k])
            assert np.isnan(forces).all()
        else:
            alone = PAIRS["lj"].predict(Batch.of([system]))
            assert found.energy[k] == alone.energy[0]
            np.testing.assert_array_equal(forces, alone.forces)
    with pytest.raises(KeyError, match="gold"):
        found.require()


def test_one_failure_among_many_is_found_in_few_calls():
    picky = Picky()
    found = picky.predict(Batch.of([dimer(79 if k == 37 else 6) for k in range(64)]))
    assert [*found.failures] == [37]
    assert picky.calls <= 2 * 6 + 1  # by halves


def test_a_potential_without_choices_says_so():
    lj = PAIRS["lj"]
    assert lj.to(device="cpu") is lj
    with pytest.raises(ValueError, match=r"lj has a device of its own \(cpu\), and cannot be moved to cuda"):
        lj.to(device="cuda")
    with pytest.raises(ValueError, match="lj has a precision of its own"):
        lj.to(dtype="float32")


def test_a_session_follows_its_atoms_and_can_lose_structures():
    systems = [dimer(6), dimer(8), dimer(79)]
    session = Picky().session(Batch.of(systems))
    moved = np.concatenate([system.positions * 1.1 for system in systems])
    found = session.predict(moved)
    assert [*found.failures] == [2]
    alone = PAIRS["lj"].predict(Batch.of([System([6, 6], systems[0].positions * 1.1)]))
    assert found.energy[0] == alone.energy[0]
    rest = session.take([1, 0])
    assert rest.predict(rest.batch.positions).energy.tolist() == found.energy[[1, 0]].tolist()


def test_an_object_that_behaves_like_a_potential_is_adopted():
    class Own:
        name, identity, chunk, elements = "own", "1", 7, [6, 8]

        def predict(self, batch):
            return PAIRS["lj"].predict(batch)

    own = adopted(Own())
    assert (own.name, own.abilities.batch, own.abilities.elements) == ("own", 7, {6, 8})
    assert own.predict(Batch.of([dimer(8)])).energy == PAIRS["lj"].predict(Batch.of([dimer(8)])).energy
    assert adopted(own) is own
    with pytest.raises(ValueError, match="a str is not a potential: it needs name, identity and predict"):
        adopted("lj")


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda", "torch sees 0 GPUs"), ("cuda:1", "torch sees 0 GPUs"), ("gpu", "write cpu, cuda or cuda:0")],
)
def test_a_device_that_is_not_there_is_refused_before_anything_starts(device, words, monkeypatch):
    monkeypatch.setattr("sfumato.potentials.devices.gpus", lambda: 0)
    with pytest.raises(ValueError, match=words):
        resolve("mindscaip-nano", device)
    with pytest.raises(ValueError, match=words):
        spread(device)


def test_workers_are_spread_over_the_gpus_that_are_there(monkeypatch):
    monkeypatch.setattr("sfumato.potentials.devices.gpus", lambda: 2)
    assert spread("cuda") == ("cuda:0", "cuda:1")
    assert spread("cuda:1, cuda:0") == ("cuda:1", "cuda:0")
    assert (spread("cpu"), spread("")) == (("cpu",), ())


def test_a_factory_takes_the_device_and_precision_it_has_arguments_for(tmp_path):
    (tmp_path / "sized.py").write_text(
        "from ase.calculators.lj import LennardJones\n"
        "def make(dtype='float64', device='cpu'):\n"
        "    calculator = LennardJones()\n"
        "    calculator.parameters['dtype'], calculator.parameters['device'] = dtype, device\n"
        "    return calculator\n"
    )
    plain = resolve(f"{tmp_path}/sized.py:make")
    assert plain.inner.parameters["dtype"] == "float64"
    assert resolve(f"{tmp_path}/sized.py:make", device="cpu").abilities.device == "cpu"
    single = call_factory(f"{tmp_path}/sized.py:make", dtype="float32")
    assert single.wishes == {"dtype": "float32"}
