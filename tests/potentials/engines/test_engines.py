"""Engines: known energies, forces as gradients, released labels, and every refusal."""

import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read

from sfumato.io import read_scan_set
from sfumato.potentials import engines
from sfumato.potentials.engines import ASE, ENGINES, HYDROGEN, WATER, Psi4, PySCF, TBLite, make_engine
from sfumato.potentials.engines import pyscf as pyscf_engine
from sfumato.systems import System
from sfumato.units import HARTREE, MEV
from tests import ROOT, SHARED

DATA = SHARED / "data"
ARCHIVE = DATA / "bsct-spice.tar.zst"
MINI = ROOT / "src" / "sfumato" / "data" / "bsct-mini.extxyz"

HYDROXIDE = System(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.97]]), charge=-1)
HYDROXYL = System(HYDROXIDE.numbers, HYDROXIDE.positions, multiplicity=2)
OXYGEN = System(np.array([8, 8]), np.array([[0, 0, 0], [0, 0, 1.21]]), multiplicity=3)
DICARBON = System(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, 2.2]]))
"""A pair with nearly degenerate orbitals, on which a plain SCF fails."""

CHEAP = PySCF(xc="pbe", basis="def2-svp", grid_level=1)


needs_tblite = pytest.mark.skipif(find_spec("tblite") is None, reason="needs the extra xtb")
needs_pyscf = pytest.mark.skipif(find_spec("pyscf") is None, reason="needs the extra dft")


def moved(system, atom, axis, step):
    positions = np.array(system.positions)
    positions[atom, axis] += step
    return System(system.numbers, positions, charge=system.charge, multiplicity=system.multiplicity)


def slope(engine, system, atom, axis, step):
    """Return −dE/dx by a fourth-order central difference."""
    e = [engine.label(moved(system, atom, axis, k * step)).energy for k in (-2, -1, 1, 2)]
    return -(e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * step)


def released(scan, frames):
    """Return {frame: (system, energy, forces)} of a released scan, reading no further than needed."""
    if not ARCHIVE.exists():
        pytest.skip(f"the released data are not at {ARCHIVE}")
    import zstandard

    wanted = {f"bsct_spice/{scan}/atoms_{k}.xyz": k for k in frames}
    found = {}
    with (
        ARCHIVE.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            if member.name in wanted:
                atoms = read(StringIO(archive.extractfile(member).read().decode()), format="extxyz")
                system = System(atoms.numbers, atoms.positions)
                found[wanted[member.name]] = (system, atoms.get_potential_energy(), atoms.get_forces())
            if len(found) == len(wanted):
                break
    return found


def bundled(name):
    """Return one of the bundled molecules."""
    (atoms,) = (a for a in read(MINI, ":") if a.info["name"] == name)
    return System(atoms.numbers, atoms.positions)


@needs_tblite
class TestTBLite:
    @pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB"])
    def test_known_energies(self, method):
        assert TBLite(method).self_test() is True

    def test_self_test_stops_a_changed_method(self, monkeypatch):
        monkeypatch.setitem(engines.TBLITE_KNOWN, "GFN2-xTB", (-0.982323024, -5.070362))
        with pytest.raises(ValueError, match=r"H2O is -5\.07036573 hartree, known is -5\.07036200"):
            TBLite().self_test()

    @pytest.mark.parametrize(("name", "energy"), [("H2O", -137.96777625229421), ("CH4", -113.60956621093894)])
    def test_energies_that_the_package_documents(self, name, energy):
        atoms = molecule(name)
        label = TBLite().label(System(atoms.numbers, atoms.positions))
        assert label.energy == pytest.approx(energy, rel=3e-8)  # other CODATA sets

    def test_forces_are_the_gradient(self):
        system = bundled("N-O/hydroxylamine")
        forces = TBLite().label(system).forces
        for atom, axis in ((0, 0), (1, 1), (4, 2)):
            assert forces[atom, axis] == pytest.approx(slope(TBLite(), system, atom, axis, 4e-3), abs=2e-5)

    def test_golden_predictions_of_the_same_method(self):
        golden = DATA / "golden-bsct" / "gfn2-xtb.npz"
        if not golden.exists():
            pytest.skip(f"the golden predictions are not at {golden}")
        arrays = np.load(golden)
        for frame, (system, *_) in released("C-C/220", (0, 30, 99)).items():
            label = TBLite().label(system)
            # The golden forces carry the noise of tblite's default accuracy and of its restarts.
            assert label.energy == pytest.approx(arrays["C-C/220/energy"][frame], rel=2e-8)
            np.testing.assert_allclose(label.forces, arrays["C-C/220/forces"][frame], rtol=0, atol=2e-3)

    def test_results_do_not_depend_on_history(self):
        first = TBLite().label(WATER)
        other = TBLite().label(bundled("C-C/ethane"))
        again = TBLite().label(WATER, guess="ignored")
        assert abs(other.energy - first.energy) > 1
        # To the last bit with one thread; with several, sums are taken in any order.
        assert again.energy == pytest.approx(first.energy, abs=1e-9)
        np.testing.assert_allclose(again.forces, first.forces, rtol=0, atol=1e-7)

    def test_bundled_labels_are_what_the_engine_gives(self):
        scan = next(
            s for s in read_scan_set(MINI.with_name("bsct-mini-gfn2.h5")) if s.name == "O-P/phosphinous-acid"
        )
        for frame in (0, 30, 99):
            label = TBLite().label(scan.system(frame))
            assert label.energy == pytest.approx(scan.energy[frame], abs=1e-7)
            np.testing.assert_allclose(label.forces, scan.forces[frame], rtol=0, atol=1e-5)

    def test_charge_and_multiplicity_reach_the_engine(self):
        anion, radical = TBLite().label(HYDROXIDE), TBLite().label(HYDROXYL)
        assert abs(anion.energy - radical.energy) > 1  # eV
        triplet, singlet = TBLite().label(OXYGEN), TBLite().label(System(OXYGEN.numbers, OXYGEN.positions))
        assert abs(triplet.energy - singlet.energy) > 0.01

    def test_an_unconverged_point_is_no_number(self):
        label = TBLite(max_iterations=2).label(WATER)
        assert not label.converged
        assert np.isnan(label.energy)
        assert np.isnan(label.forces).all()
        assert label.forces.shape == (3, 3)
        assert "not converged in 2 cycles" in label.message

    @pytest.mark.parametrize(
        ("system", "reason"),
        [
            (System(np.array([95, 1]), np.array([[0, 0, 0], [0, 0, 1.6]])), "Z >86"),
        ],
    )
    def test_what_tblite_refuses_is_a_failure_with_its_reason(self, system, reason):
        label = TBLite().label(system)
        assert not label.converged
        assert reason in label.message

    def test_a_crystal_does_not_care_which_image_of_an_atom_is_given(self):
        cell, pbc = np.diag([5.0, 6.0, 7.0]), np.ones(3, dtype=bool)
        crystal = System(WATER.numbers, WATER.positions, cell=cell, pbc=pbc)
        shifted = System(
            WATER.numbers, WATER.positions + np.array([[0, 0, 0], [5, 0, 0], [0, 0, -7]]), cell, pbc
        )
        here, there = TBLite().label(crystal), TBLite().label(shifted)
        assert here.energy == pytest.approx(there.energy, abs=1e-8)
        np.testing.assert_allclose(here.forces, there.forces, rtol=0, atol=1e-6)
        assert abs(here.energy - TBLite().label(WATER).energy) > 1e-3

    @pytest.mark.parametrize(
        ("z", "apart", "multiplicities", "energy"),
        [(64, 2.49, (1, 8), -403.901), (63, 2.50, (1, 7), -404.092)],
    )
    def test_lanthanides_have_their_4f_shell_in_the_core(self, z, apart, multiplicities, energy):
        x = apart * np.array([[0, 0, 0], [1, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]])
        for multiplicity in multiplicities:
            label = TBLite().label(System(np.array([z, 17, 17, 17]), x, multiplicity=multiplicity))
            assert label.energy == pytest.approx(energy, abs=1e-3)
        with pytest.raises(ValueError, match=f"is {multiplicities[1]}, or 1 with the 4f electrons left out"):
            TBLite().label(System(np.array([z, 17, 17, 17]), x, multiplicity=2))

    def test_a_slab_is_refused_rather_than_made_periodic_in_all_directions(self):
        slab = System(np.array([2]), np.zeros((1, 3)), np.diag([4.0, 4, 0]), [True, True, False])
        with pytest.raises(ValueError, match="enough vacuum and make it fully periodic"):
            TBLite().label(slab)

    def test_identity_follows_method_and_settings(self):
        variants = [TBLite(), TBLite("GFN1-xTB"), TBLite(accuracy=1.0), TBLite(max_iterations=50)]
        assert len({engine.identity for engine in variants}) == 4
        assert TBLite().identity == TBLite("GFN2-xTB").identity


@pytest.mark.parametrize(
    "engine",
    [pytest.param(TBLite(), marks=needs_tblite), pytest.param(CHEAP, marks=needs_pyscf), Psi4()],
    ids=["tblite", "pyscf", "psi4"],
)
@pytest.mark.parametrize(
    ("charge", "multiplicity", "electrons"), [(0, 1, 9), (-1, 2, 10), (8, 4, 1)], ids=["odd", "even", "few"]
)
def test_impossible_spin_is_an_error(engine, charge, multiplicity, electrons):
    wrong = System(HYDROXIDE.numbers, HYDROXIDE.positions, charge=charge, multiplicity=multiplicity)
    with pytest.raises(
        ValueError, match=f"^{electrons} electrons .* cannot have multiplicity {multiplicity}"
    ):
        engine.label(wrong)


@pytest.mark.parametrize(
    "engine",
    [pytest.param(TBLite(), marks=needs_tblite), pytest.param(CHEAP, marks=needs_pyscf), Psi4(), ASE("lj")],
    ids=["tblite", "pyscf", "psi4", "ase"],
)
def test_two_nuclei_on_one_point_are_an_error(engine):
    numbers, positions = [1, 8, 1, 2], [[0, 0, 0.7], [0, 0, 0], [0, 0.9, 0], [0, 0, 0.7005]]
    with pytest.raises(ValueError, match=r"^atoms 0 and 3 are at the same place, \[0\.0, 0\.0, 0\.7\] Å"):
        engine.label(System(np.array(numbers), np.array(positions)))


@pytest.mark.parametrize(
    ("pbc", "message"), [([1, 0, 0], "0 and 1"), ([0, 1, 1], "1 and 2"), ([1, 1, 1], "0 and 1")]
)
def test_images_count_as_the_same_place_in_periodic_directions_only(pbc, message):
    cell = np.array([[5, 0, 0], [1, 6, 0], [0, 2, 7.0]])
    positions = np.array([[0.1, 0, 0], [10.1, 0, 0], [10.1, 2, 7]])
    system = System(np.full(3, 2), positions, cell=cell, pbc=np.array(pbc, dtype=bool))
    with pytest.raises(ValueError, match=f"atoms {message} are at the same place"):
        ASE("lj").label(system)
    open_ends = System(system.numbers, system.positions, cell=cell)
    assert ASE("lj").label(open_ends).converged


def test_overlap_is_found_among_many_atoms():
    positions = np.stack(np.meshgrid(*[np.arange(7.0)] * 3, [0.0]), axis=-1)[..., 0, :3].reshape(-1, 3)
    positions = np.concatenate([positions, positions[[300]]])
    with pytest.raises(ValueError, match="atoms 300 and 343 are"):
        ASE("lj").label(System(np.full(344, 18), positions))


@needs_pyscf
class TestPySCF:
    def test_forces_are_the_gradient_with_the_moving_grid(self):
        bent = moved(WATER, 1, 0, 0.1)
        forces = CHEAP.label(bent).forces
        np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-5)
        assert forces[0, 2] == pytest.approx(slope(CHEAP, bent, 0, 2, 5e-3), abs=2e-5)

    def test_dispersion_is_in_energy_and_forces(self):
        far = System(np.array([2, 2]), np.array([[0, 0, 0], [0, 0, 3.0]]))
        plain, dispersed = CHEAP.label(far), PySCF("pbe-d3bj", "def2-svp", grid_level=1).label(far)
        assert -0.01 < dispersed.energy - plain.energy < -1e-5
        assert dispersed.forces[1, 2] < plain.forces[1, 2]

    def test_the_guess_does_not_change_the_answer(self):
        near = moved(WATER, 1, 1, 0.02)
        plain = CHEAP.label(near)
        guided = CHEAP.label(near, CHEAP.label(WATER).density)
        assert guided.energy == pytest.approx(plain.energy, abs=1e-8)
        np.testing.assert_allclose(guided.forces, plain.forces, rtol=0, atol=2e-4)

    def test_a_guess_of_another_molecule_is_an_error(self):
        with pytest.raises(ValueError, match=r"guess of shape \(10, 10\)"):
            CHEAP.label(WATER, CHEAP.label(HYDROGEN).density)

    def test_open_shells_report_their_spin(self):
        assert CHEAP.label(OXYGEN).spin_squared == pytest.approx(2.0, abs=0.02)
        assert CHEAP.label(WATER).spin_squared == 0.0
        hydrogen = CHEAP.label(System(np.array([1]), np.zeros((1, 3)), multiplicity=2))
        assert hydrogen.spin_squared == pytest.approx(0.75, abs=1e-9)
        assert hydrogen.energy == pytest.approx(-0.4986 * HARTREE, abs=0.01)

    def test_charge_reaches_the_engine(self):
        assert CHEAP.label(HYDROXIDE).energy < CHEAP.label(HYDROXYL).energy + 3

    def test_heavy_elements_get_the_core_potentials_of_their_basis(self):
        # All electrons of iodine would be about −7000 hartree.
        iodide = System(np.array([53, 1]), np.array([[0, 0, 0], [0, 0, 1.61]]))
        assert CHEAP.label(iodide).energy == pytest.approx(-298.28 * HARTREE, abs=1.0)

    def test_valence_basis_sets_get_the_core_potentials_that_belong_to_them(self):
        chloride = System(np.array([17, 1]), np.array([[0, 0, 0], [0, 0, 1.28]]))
        label = PySCF("pbe", "lanl2dz", grid_level=1).label(chloride)
        # All electrons of chlorine would be about −12500 eV and pull with more than 100 eV/Å.
        assert label.energy == pytest.approx(-15.5 * HARTREE, abs=10)
        assert np.abs(label.forces).max() < 10

    def test_a_nonlocal_functional_is_affordable_and_its_forces_are_the_gradient(self):
        engine = PySCF("wb97m-v", "sto-3g", grid_level=1)
        label = engine.label(HYDROGEN)
        assert label.forces[1, 2] == pytest.approx(slope(engine, HYDROGEN, 1, 2, 4e-3), abs=1e-4)

    def test_a_hard_case_is_converged_by_second_order_steps(self):
        label = PySCF("pbe", "def2-svp", max_cycle=12).label(DICARBON)
        assert label.converged
        assert label.message == "converged by second-order steps"
        assert label.energy == pytest.approx(-75.5471347 * HARTREE, abs=1e-4)

    def test_an_unconverged_point_is_no_number(self):
        label = PySCF("pbe", "def2-svp", max_cycle=1).label(DICARBON)
        assert not label.converged
        assert np.isnan(label.energy)
        assert np.isnan(label.forces).all()
        assert label.message.startswith("SCF not converged")
        assert label.density is None

    @pytest.mark.parametrize(
        ("engine", "reason"),
        [
            (PySCF("pbf", "def2-svp"), "PBF"),
            (PySCF("pbe", "def3-svp"), "Unknown basis"),
        ],
    )
    def test_an_unknown_functional_or_basis_is_an_error(self, engine, reason):
        with pytest.raises(ValueError, match=f"cannot set up {engine.level}.*{reason}"):
            engine.label(HYDROGEN)

    def test_an_element_without_basis_is_an_error(self):
        with pytest.raises(ValueError, match="not found for Au in 6-31g"):
            PySCF("pbe", "6-31g").label(System(np.array([79, 1]), np.array([[0, 0, 0], [0, 0, 1.6]])))

    def test_a_crystal_is_refused(self):
        crystal = System(np.array([2]), np.zeros((1, 3)), cell=4 * np.eye(3), pbc=np.ones(3, dtype=bool))
        with pytest.raises(ValueError, match="periodic"):
            CHEAP.label(crystal)

    def test_identity_follows_level_and_settings(self):
        changes = {"xc": "pbe", "basis": "def2-svp", "density_fit": False, "grid_level": 4, "conv_tol": 1e-9}
        variants = [PySCF(), *(PySCF(**{key: value}) for key, value in changes.items())]
        assert len({engine.identity for engine in variants}) == 6

    def test_a_gpu_has_an_identity_and_a_name_of_its_own(self, monkeypatch):
        monkeypatch.setattr(pyscf_engine, "_gpu_version", lambda: "gpu4pyscf-cuda12x 1.9.0")
        processor, gpu = PySCF(), PySCF(gpu=True)
        assert gpu.identity != processor.identity
        assert gpu._engine() == f"gpu4pyscf-cuda12x 1.9.0, {processor._engine()}"

    @pytest.mark.skipif(find_spec("gpu4pyscf") is not None, reason="gpu4pyscf is installed")
    def test_a_gpu_engine_without_its_package_is_an_error_that_says_what_to_install(self):
        assert make_engine("pyscf", "pbe/def2-svp") == PySCF("pbe", "def2-svp")
        with pytest.raises(ValueError, match="pip install gpu4pyscf-cuda12x"):
            PySCF("pbe", "def2-svp", gpu=True).label(HYDROGEN)

    def test_importing_picks_fast_kernels_and_leaves_the_environment_as_it_was(self):
        folder = Path(find_spec("pyscf").origin).parent / "lib"
        bundled_blas = list(folder.glob("libopenblas*"))
        cpuinfo = Path("/proc/cpuinfo")
        if not (bundled_blas and cpuinfo.exists() and " avx2 " in cpuinfo.read_text()):
            pytest.skip("needs a wheel of PySCF with its own OpenBLAS on Linux, and AVX2")
        code = (
            "import ctypes, os; from sfumato.potentials.engines import _import_pyscf; _import_pyscf();"
            f"blas = ctypes.CDLL({str(bundled_blas[0])!r}); name = blas.openblas_get_corename;"
            "name.restype = ctypes.c_char_p; print(name().decode(), 'OPENBLAS_CORETYPE' in os.environ)"
        )
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        assert shown.stdout.split() == ["Haswell", "False"]

    def test_self_test_of_unknown_settings_says_so(self):
        assert CHEAP.self_test() is False

    def test_known_energies(self):
        assert PySCF().self_test() is True

    def test_self_test_stops_a_changed_functional(self, monkeypatch):
        monkeypatch.setitem(
            engines.PYSCF_KNOWN, ("wb97m-d3bj", "def2-tzvppd", True, 3), (-1.170452, -76.479722606)
        )
        with pytest.raises(ValueError, match=r"energy of H2 is -1\.17044840"):
            PySCF().self_test()

    @pytest.mark.slow
    def test_released_labels_are_reproduced(self):
        for system, energy, forces in released("N-O/19086", (30, 70)).values():
            label = PySCF().label(system)
            assert abs(label.energy - energy) < 1 * MEV
            assert np.abs(label.forces - forces).mean() < 2 * MEV

    @pytest.mark.slow
    def test_bundled_labels_are_what_the_engine_gives(self):
        scan = next(s for s in read_scan_set(MINI.with_suffix(".h5")) if s.name == "N-O/hydroxylamine")
        label = PySCF().label(scan.system(30))
        assert label.energy == pytest.approx(scan.energy[30], abs=0.01 * MEV)
        np.testing.assert_allclose(label.forces, scan.forces[30], rtol=0, atol=0.1 * MEV)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [(0, False), (2, True), (RuntimeError("cudaErrorNoDevice"), False), (ImportError("libcudart"), False)],
    ids=["none", "two", "no driver", "no libraries"],
)
def test_a_gpu_is_used_where_package_and_device_are_there(monkeypatch, devices, expected):
    def count():
        if isinstance(devices, Exception):
            raise devices
        return devices

    cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(pyscf_engine, "find_spec", lambda name: name == "gpu4pyscf" or None)
    assert pyscf_engine.gpu_available() is expected
    assert make_engine("pyscf", "pbe/def2-svp") == PySCF("pbe", "def2-svp", gpu=expected)
    monkeypatch.setattr(pyscf_engine, "find_spec", lambda name: None)
    assert pyscf_engine.gpu_available() is False


def test_engines_are_made_by_name_and_level(monkeypatch):
    monkeypatch.setattr(pyscf_engine, "gpu_available", lambda: False)
    assert make_engine("tblite", "gfn1-xtb") == TBLite("GFN1-xTB")
    assert make_engine("pyscf", "wb97m-d3bj/def2-tzvppd") == PySCF()
    assert make_engine("psi4", "wb97m-d3bj/def2-tzvppd") == Psi4()
    assert make_engine("ase", "my_model.py:make") == ASE("my_model.py:make")
    assert set(ENGINES) == {"tblite", "pyscf", "psi4", "ase"}


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        ("pysfc", "pbe/def2-svp", "unknown engine 'pysfc'; did you mean 'pyscf'"),
        ("tblite", "GFN3-xTB", "unknown method 'GFN3-xTB'; choose GFN2-xTB or GFN1-xTB"),
        ("pyscf", "pbe", "a level reads functional/basis"),
        ("pyscf", "/def2-svp", "a level reads functional/basis"),
        ("psi4", "pbe/", "Psi4: a level reads functional/basis"),
    ],
)
def test_wrong_engines_and_levels_are_errors(name, level, message):
    with pytest.raises(ValueError, match=message):
        make_engine(name, level)


def test_a_missing_package_is_an_error_that_names_the_extra():
    with pytest.raises(ValueError, match=r"pip install 'sfumato\[dft\]'"):
        engines._version("no-such-package-here", "dft")
