"""Psi4: numbers against PySCF's and their own gradient, and a process that may crash, hang or be missing."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sfumato.files import temporary_name
from sfumato.potentials.engines import HYDROGEN, PSI4_KNOWN, WATER, Psi4, PySCF
from sfumato.potentials.engines import psi4 as psi4_engine
from sfumato.systems import System
from sfumato.units import HARTREE

CHEAP = Psi4("pbe", "def2-svp", radial_points=40, angular_points=110)
HELIUM = System(np.array([2, 2]), np.array([[0, 0, 0], [0, 0, 3.0]]))
HYDROXYL = System(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.97]]), multiplicity=2)
HYDROXIDE = System(HYDROXYL.numbers, HYDROXYL.positions, charge=-1)
DICARBON = System(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, 2.2]]))
"""A pair with nearly degenerate orbitals, on which a plain SCF fails."""

needs_psi4 = pytest.mark.skipif(
    shutil.which("psi4") is None or find_spec("dftd3") is None, reason="needs Psi4 and the extra psi4"
)
needs_pyscf = pytest.mark.skipif(find_spec("pyscf") is None, reason="needs the extra dft")


def running(engine):
    """Return the process of an engine, started if need be."""
    engine.identity  # noqa: B018
    return engine._process()._process


@pytest.fixture(scope="module", autouse=True)
def _tidy():
    yield
    for process in psi4_engine._running.values():
        process.end()


@pytest.fixture
def interrupted():
    """Stop the process of an engine, so that it cannot answer, and call something a little later."""
    timers = []

    def later(engine, action):
        process = running(engine)
        process.send_signal(signal.SIGSTOP)
        timers.append(threading.Timer(0.3, action, [process]))
        timers[-1].start()

    yield later
    for timer in timers:
        timer.join()


@needs_psi4
class TestNumbers:
    @needs_pyscf
    def test_energy_and_forces_are_those_of_another_program(self):
        # PySCF without density fitting: what is left is Psi4's fit, 2e-5 hartree here, and the grids.
        engine = Psi4("pbe", "def2-svp", radial_points=50, angular_points=194)
        label, other = engine.label(WATER), PySCF("pbe", "def2-svp", density_fit=False).label(WATER)
        assert label.energy == pytest.approx(other.energy, abs=5e-5 * HARTREE)
        np.testing.assert_allclose(label.forces, other.forces, rtol=0, atol=5e-3)
        assert label.spin_squared == 0.0

    def test_forces_are_the_gradient(self):
        engine, h = Psi4("pbe-d3bj", "sto-3g", radial_points=60, angular_points=194), 5e-3
        moved = [System(HELIUM.numbers, 0.4 * HELIUM.positions * (1 + k * h / 1.2)) for k in (-2, -1, 1, 2)]
        e = [engine.label(system).energy for system in moved]
        slope = -(e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * h)
        force = engine.label(System(HELIUM.numbers, 0.4 * HELIUM.positions)).forces[1, 2]
        assert slope > 1
        assert force == pytest.approx(slope, abs=1e-3)  # Psi4 leaves out that the grid moves

    @needs_pyscf
    def test_dispersion_is_that_of_another_program(self):
        with_d3 = Psi4("pbe-d3bj", "def2-svp", radial_points=40, angular_points=110)
        plain, dispersed = CHEAP.label(HELIUM), with_d3.label(HELIUM)
        other = [PySCF(xc, "def2-svp", grid_level=0).label(HELIUM) for xc in ("pbe", "pbe-d3bj")]
        assert dispersed.energy - plain.energy == pytest.approx(other[1].energy - other[0].energy, abs=1e-8)
        difference = other[1].forces - other[0].forces
        np.testing.assert_allclose(dispersed.forces - plain.forces, difference, rtol=0, atol=1e-8)
        assert difference[1, 2] < -1e-4
        assert "dftd3" in dispersed.engine
        assert "dftd3" not in plain.engine

    def test_open_shells_report_their_spin(self):
        hydrogen = CHEAP.label(System(np.array([1]), np.zeros((1, 3)), multiplicity=2))
        assert hydrogen.spin_squared == pytest.approx(0.75, abs=1e-9)
        assert hydrogen.energy == pytest.approx(-0.4986 * HARTREE, abs=0.01)
        radical = CHEAP.label(HYDROXYL)
        assert radical.spin_squared == pytest.approx(0.75, abs=0.02)
        assert CHEAP.label(HYDROXIDE).energy < radical.energy + 3

    def test_results_do_not_depend_on_history(self):
        first = CHEAP.label(HYDROGEN)
        CHEAP.label(HYDROXIDE)
        again = CHEAP.label(HYDROGEN, guess="ignored")
        assert again.energy == pytest.approx(first.energy, abs=1e-10)
        np.testing.assert_allclose(again.forces, first.forces, rtol=0, atol=1e-9)

    def test_the_frame_is_kept(self):
        turned = System(WATER.numbers, WATER.positions[:, [1, 2, 0]] + 3.0)
        label, other = CHEAP.label(turned), CHEAP.label(WATER)
        assert label.energy == pytest.approx(other.energy, abs=1e-3)
        np.testing.assert_allclose(label.forces, other.forces[:, [1, 2, 0]], rtol=0, atol=5e-3)

    def test_an_unconverged_point_is_no_number(self):
        label = Psi4("pbe", "sto-3g", radial_points=40, angular_points=110, max_cycle=2).label(HYDROXIDE)
        assert not label.converged
        assert np.isnan(label.energy)
        assert np.isnan(label.forces).all()
        assert label.message == "SCF not converged in two attempts of 2"

    @pytest.mark.slow
    def test_a_hard_case_is_converged_by_second_order_steps(self):
        label = Psi4("pbe", "def2-svp", max_cycle=60).label(DICARBON)
        assert label.message == "converged by second-order steps"
        assert label.energy == pytest.approx(-75.5471347 * HARTREE, abs=1e-2)

    @pytest.mark.slow
    def test_known_energies_and_a_changed_functional(self, monkeypatch):
        assert Psi4().self_test() is True
        key = ("wb97m-d3bj", "def2-tzvppd", 99, 590)
        hydrogen, water = PSI4_KNOWN[key]
        monkeypatch.setitem(PSI4_KNOWN, key, (hydrogen - 2e-6, water))
        with pytest.raises(ValueError, match=r"energy of H2 is -1\.17"):
            Psi4().self_test()

    def test_self_test_of_unknown_settings_says_so(self):
        assert CHEAP.self_test() is False


@needs_psi4
class TestProcess:
    def test_one_process_serves_all_labels(self):
        process = running(CHEAP)
        CHEAP.label(HYDROGEN)
        assert running(CHEAP) is process

    def test_a_crash_is_a_failure_with_its_reason_and_the_next_label_works(self, interrupted):
        interrupted(CHEAP, lambda process: process.kill())
        label = CHEAP.label(HYDROGEN)
        assert not label.converged
        assert label.message.startswith("the Psi4 process was killed by SIGKILL (often: out of memory)")
        assert CHEAP.label(HYDROGEN).converged

    def test_a_death_between_labels_costs_nothing(self):
        process = running(CHEAP)
        process.kill()
        process.wait()
        assert CHEAP.label(HYDROGEN).converged

    def test_an_error_inside_psi4_is_a_failure_with_its_reason_and_the_next_label_works(self):
        engine = Psi4("pbe", "sto-3g", radial_points=40, angular_points=119)
        for _ in range(2):
            label = engine.label(HYDROGEN)
            assert not label.converged
            assert "not a Lebedev number" in label.message
            assert "most recent" not in label.message

    def test_an_interrupted_answer_is_never_taken_for_the_next(self, interrupted):
        interrupted(CHEAP, lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            CHEAP.label(HELIUM)
        assert CHEAP.label(HYDROGEN).energy == pytest.approx(-1.16 * HARTREE, abs=0.5)

    def test_it_dies_with_a_killed_parent(self):
        code = (
            "import os, signal; from sfumato.potentials.engines import Psi4;"
            "engine = Psi4('pbe', 'sto-3g'); engine.identity;"
            "print(engine._process()._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
        )
        parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert parent.returncode == -signal.SIGKILL
        child = Path(f"/proc/{parent.stdout.strip()}")
        for _ in range(100):
            if not child.exists() or "\nState:\tZ" in (child / "status").read_text():
                break
            time.sleep(0.1)
        else:
            pytest.fail("the Psi4 process outlived its parent by ten seconds")

    def test_folders_of_killed_processes_are_swept_and_those_of_living_ones_kept(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PSI_SCRATCH", str(tmp_path))
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        name = temporary_name("sfumato-psi4")
        dead = name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
        alive = name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
        foreign = ".sfumato-psi4.elsewhere-1-0123456789abcdef.part"
        for name in (dead, alive, foreign):
            (tmp_path / name).mkdir()
        engine = Psi4("pbe", "sto-3g", max_cycle=33)
        running(engine)
        names = {path.name for path in tmp_path.iterdir()}
        assert names >= {alive, foreign}
        assert dead not in names
        assert len(names) == 3
        engine._process().end()
        assert {path.name for path in tmp_path.iterdir()} == {alive, foreign}

    @pytest.mark.parametrize(
        ("xc", "basis", "reason"),
        [
            ("pbf", "def2-svp", "cannot compute pbf/def2-svp: unknown functional 'pbf'"),
            ("pbe", "def3-svp", "no basis set def3-svp for H"),
            ("b97-d", "def2-svp", "dispersion correction d2 is not available"),
            ("wb97m-v", "def2-svp", "no gradient of VV10"),
            ("b2plyp-d3bj", "def2-svp", "double hybrids"),
        ],
    )
    def test_what_psi4_cannot_do_is_an_error(self, xc, basis, reason):
        with pytest.raises(ValueError, match=reason):
            Psi4(xc, basis).label(HYDROGEN)

    def test_an_element_without_basis_is_an_error_that_names_both(self):
        gold = System(np.array([79, 1]), np.array([[0, 0, 0], [0, 0, 1.6]]))
        with pytest.raises(ValueError, match=r"cannot compute pbe/6-31g: no basis set 6-31g for Au"):
            Psi4("pbe", "6-31g").label(gold)

    def test_identity_follows_level_and_settings(self):
        changes = {"xc": "pbe0", "basis": "sto-3g", "radial_points": 75}
        identities = {CHEAP.identity}
        for key, value in changes.items():
            engine = Psi4(
                **{"xc": "pbe", "basis": "def2-svp", "radial_points": 40, "angular_points": 110}
                | {key: value}
            )
            identities.add(engine.identity)
            engine._process().end()
        assert len(identities) == 4
        assert Psi4("pbe", "def2-svp", 40, 110, python=running(CHEAP).args[0]).identity == CHEAP.identity


def test_a_crystal_is_refused():
    crystal = System(np.array([2]), np.zeros((1, 3)), cell=4 * np.eye(3), pbc=np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="periodic"):
        CHEAP.label(crystal)


class TestMissing:
    def test_without_the_program_the_error_says_what_to_install(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("SFUMATO_PSI4_PYTHON", raising=False)
        with pytest.raises(ValueError, match=r"apt install psi4.*conda install psi4.*SFUMATO_PSI4_PYTHON"):
            Psi4("pbe", "none").label(HYDROGEN)

    def test_a_python_that_is_not_there_is_named(self, monkeypatch):
        monkeypatch.setenv("SFUMATO_PSI4_PYTHON", "/no/such/python")
        with pytest.raises(ValueError, match="cannot run /no/such/python: No such file"):
            Psi4("pbe", "none").label(HYDROGEN)

    def test_a_python_without_psi4_is_named(self, monkeypatch, tmp_path):
        empty = tmp_path / "python"
        empty.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
        empty.chmod(0o755)
        with pytest.raises(ValueError, match="cannot import it: No module named 'psi4'"):
            Psi4("pbe", "none", python=str(empty)).label(HYDROGEN)

    def test_what_is_no_python_is_named_with_its_last_words(self):
        with pytest.raises(ValueError, match="/bin/false cannot run it: the Psi4 process exited with code 1"):
            Psi4("pbe", "none", python="/bin/false").label(HYDROGEN)

    @pytest.mark.parametrize(
        ("line", "python"),
        [("#!/opt/conda/bin/python3.12", "/opt/conda/bin/python3.12"), ("#!/usr/bin/env python3", "python3")],
    )
    def test_the_python_is_that_of_the_program(self, monkeypatch, tmp_path, line, python):
        program = tmp_path / "psi4"
        program.write_text(f"{line}\nimport psi4\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("SFUMATO_PSI4_PYTHON", raising=False)
        assert psi4_engine._find_python() == python
