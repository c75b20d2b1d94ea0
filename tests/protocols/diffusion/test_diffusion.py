"""Point defects: against an independent relaxation, a pair potential's rule, failures, page and command."""

import io
import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from rich.console import Console

from sfumato.execution.records import encode, failed, ok
from sfumato.jobs.defects import Barrier, Formation, at_own_size
from sfumato.jobs.wander import Wander
from sfumato.potentials.ase import from_ase
from sfumato.potentials.potential import Potential
from sfumato.protocols.diffusion import Diffusion
from sfumato.protocols.diffusion.analysis import analyse, tasks
from sfumato.protocols.diffusion.data import read_crystal
from sfumato.protocols.diffusion.page import diffusion_page
from sfumato.protocols.diffusion.sets import middle_of_path, path_set
from sfumato.protocols.diffusion.settings import Settings
from sfumato.protocols.run import run
from sfumato.systems import Prediction

COPPER = read_crystal("Cu")


def test_a_vacancy_against_ase():
    """EMT copper, a cell with one atom of four missing: the numbers by ASE's own tools."""
    potential = from_ase(EMT(), "emt")
    found = Formation("vacancy", repeat=1, force=1e-3).measure(potential, COPPER.system)
    atoms = bulk("Cu", "fcc", found["edge"], cubic=True)
    atoms.calc = EMT()
    perfect = atoms.get_potential_energy() / 4
    assert abs(np.trace(atoms.get_stress(voigt=False))) < 1e-5
    del atoms[0]
    BFGS(atoms, logfile=None).run(fmax=1e-4)
    assert found["formation"] == pytest.approx(atoms.get_potential_energy() - 3 * perfect, abs=1e-4)


class Sized(Potential):
    """Crystals have their lowest energy, −3 eV per atom, at 3.7 Å."""

    name = identity = "sized"

    def compute(self, batch):
        edge = np.linalg.norm(batch.cell[:, 0], axis=1)
        atoms = np.diff(batch.offsets)
        return Prediction(atoms * ((edge - 3.7) ** 2 - 3), np.zeros_like(batch.positions))


def test_the_lattice_constant_by_hand():
    crystal, atom = at_own_size(Sized(), COPPER.system)
    assert (np.linalg.norm(crystal.cell[0]), atom) == pytest.approx((3.7, -3.0), abs=1e-5)
    assert crystal.positions[1] == pytest.approx(3.7 / 3.61 * COPPER.system.positions[1], abs=1e-5)
    with pytest.raises(ValueError, match="no lattice constant within 8%"):
        at_own_size(Sized(), read_crystal("Si").system)


def records(data, settings, identity="x"):
    """A vacancy that forms with 2.5 eV and hops over 0.4 eV; the last task failed."""
    made = {}
    for what, task in tasks(data, settings):
        key = task.key(identity)
        if isinstance(task.job, Wander):
            values = np.array([1.0, 3.0]) * (1 + (task.job.kelvin > 1000))
            made[key] = ok(key, seconds=1.0, diffusivities=encode(values), hops=4, picoseconds=10.0)
        elif isinstance(task.job, Barrier):
            energies, positions = np.array([0.0, 0.4, 0.1]), np.zeros((3, 2, 3))
            positions[:, 0, 0] = [0, 1, 3]
            made[key] = ok(
                key,
                seconds=1.0,
                energies=encode(energies),
                barrier=0.4,
                uphill=0.1,
                positions=encode(positions),
            )
        else:
            made[key] = ok(key, seconds=1.0, formation=2.5, edge=5.43)
        if what == "interstitial hop":
            made[key] = failed(key, "no rest")
    return made


def test_analysis_of_hand_made_records():
    data, settings = read_crystal("Si"), Settings()
    made = records(data, settings)
    made.pop(next(iter(made)))
    found = analyse(data, made, "m", "x", settings)
    assert found.coverage == (4, 6)
    assert (found.missing, found.failed) == (1, (("interstitial hop", "no rest"),))
    assert found.defect("vacancy") is None
    assert found.defect("split").formation == 2.5
    assert found.path("vacancy").distance.tolist() == [0, 1, 3]
    shown = found.as_json()
    assert shown["barrier"] == {"vacancy": 0.4}
    assert shown["formation"] == {"split": 2.5, "tetrahedral": 2.5, "hexagonal": 2.5}


def test_trajectories_of_hand_made_records():
    """Two replicas at each of two temperatures; ln 2 between them."""
    data, settings = read_crystal("Si"), Settings(kelvin="1000,1250", replicas=2)
    found = analyse(data, records(data, settings), "m", "x", settings)
    assert found.coverage == (9, 10)
    cold, hot = found.wandering
    assert (cold.diffusivity.mean, hot.diffusivity.mean, cold.hops, cold.picoseconds) == (2.0, 4.0, 8, 20.0)
    assert cold.diffusivity.low == pytest.approx(2 - 3.182 * np.sqrt(4 / 3) / 2, abs=1e-3)  # t(3), s/√4
    expected = np.log(2) * 8.617333e-5 / (1 / 1000 - 1 / 1250)
    assert found.activation.energy.mean == pytest.approx(expected)
    assert found.as_json()["activation"]["value"] == pytest.approx(expected)
    one = Settings(kelvin="1000", replicas=2)
    assert analyse(data, records(data, one), "m", "x", one).activation is None
    with pytest.raises(ValueError, match="'hot' is not a temperature; write them as"):
        Settings(kelvin="1000,hot")


def test_a_vacancy_wanders():
    """Without forces atoms fly: slow ones stay near their sites for a picosecond, fast ones do not."""
    job = Wander(kelvin=1.0, picoseconds=1.0, settle=0.1, timestep=5.0, every=10.0)
    found = job.measure(Sized(), COPPER.system)
    assert (found["hops"], found["picoseconds"]) == (0, pytest.approx(1.0))
    assert found["mean_kelvin"] == pytest.approx(1.0, rel=0.2)
    with pytest.raises(ValueError, match="it melted: .* of the sites are empty"):  # noqa: RUF043
        replace(job, kelvin=3000.0).measure(Sized(), COPPER.system)


def test_a_run_with_its_page(tmp_path):
    ase.io.write(tmp_path / "cu.cif", bulk("Cu", "fcc", 3.6, cubic=True))
    settings = {"images": 1, "kelvin": "1", "picoseconds": 1.0, "timestep": 10.0, "blocks": 2}
    found = run(Diffusion(), [Sized()], tmp_path / "cu.cif", settings=settings, out=tmp_path / "run")
    assert found.complete
    assert found.models["sized"].edge == pytest.approx(3.7, abs=1e-4)
    assert [one.hops for one in found.models["sized"].wandering] == [0]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(found.protocol.tables(found))
    text = console.export_text()
    assert "vacancy barrier" in text
    assert "diffusivity of all atoms together" in text
    page = diffusion_page([found])
    assert [name.rpartition("run-")[2] for name, _ in page.figures] == ["path-vacancy", "arrhenius"]
    assert 'id="diffusion0"' in str(page)
    assert "Vacancy in motion" in str(page)
    assert json.dumps(found.as_json())


def test_the_middle_of_a_path_by_hand():
    positions = np.zeros((5, 3, 3))
    positions[:, 0, 0] = [0, 0.6, 1.2, 1.8, 2.4]
    positions[:, 1, 1] = [0, 0.2, 0.5, 0.6, 0.9]  # makes room
    assert np.argwhere(middle_of_path(positions)).tolist() == [[2, 0]]


def test_a_set_from_the_path_of_a_hop():
    found = path_set(COPPER, Barrier("vacancy", images=5), Sized(), Sized())
    (one,) = found.sets
    assert (found.name, found.level, one.name) == ("Cu-vacancy", "sized", "vacancy")
    assert one.migrating.reshape(len(one), -1).sum(axis=1).tolist() == [1] * len(one)
    assert np.isfinite(one.energy).all()


@pytest.mark.slow
def test_the_barrier_of_a_vacancy_in_copper():
    path = Barrier("vacancy", force=0.02, images=3).measure(from_ase(EMT(), "emt"), COPPER.system)
    assert path["uphill"] == pytest.approx(0, abs=2e-3)
    assert 0.5 < path["barrier"] < 0.9  # 0.7 eV in copper


@pytest.mark.parametrize("data", ["H", "Xx", "nowhere.cif"])
def test_no_crystal(data):
    with pytest.raises(ValueError, match=f"'{data}' is neither a file nor an element that crystallizes as"):
        read_crystal(data)


def test_a_file_that_is_no_crystal_of_one_element(tmp_path):
    ase.io.write(tmp_path / "nacl.cif", bulk("NaCl", "rocksalt", 5.6))
    with pytest.raises(ValueError, match="expected the periodic cell of a perfect crystal of one element"):
        read_crystal(tmp_path / "nacl.cif")
