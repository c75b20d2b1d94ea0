"""Total charge and spin reach every model, and where they change nothing a reader is told."""

import json
import re
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from sfumato.campaigns.label import label_structures
from sfumato.cli import main
from sfumato.io import Molecule, read_molecules, read_predictions, write_scan_set
from sfumato.models.pair import PAIRS
from sfumato.potentials.engines.ase import ASE
from sfumato.potentials.potential import Abilities, Potential
from sfumato.potentials.specs import load
from sfumato.protocols import charges
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.overview import report_pages
from sfumato.protocols.run import load_run, run
from sfumato.report.html import report_text
from sfumato.systems import Batch, ScanSet, System
from tests import made_runs

AMMONIUM = System(
    [7, 1, 1, 1, 1],
    [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [0.6, -0.6, -0.6], [-0.6, 0.6, -0.6]],
    charge=1,
)
METHYL = System(
    [6, 1, 1, 1], [[0, 0, 0.1], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0]], multiplicity=2
)
OXYGEN = System([8, 8], [[0, 0, 0], [0, 0, 1.21]], multiplicity=3)
SYSTEMS = (AMMONIUM, METHYL, OXYGEN)

FACTORY = """
def make():
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
"""


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "my_model.py").write_text(FACTORY)
    return f"{tmp_path / 'my_model.py'}:make"


def fake_mace(monkeypatch, tmp_path):
    """Install a package of the shape of mace, with a model that reads charge and spin from `info`."""
    import torch
    from tblite.ase import TBLite

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding_specs = {"total_charge": {}, "total_spin": {}}
            self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    class Calculator(TBLite):
        def __init__(self, models, device, default_dtype):
            super().__init__(method="GFN2-xTB", accuracy=0.01, verbosity=0)
            self.z_table = types.SimpleNamespace(zs=[1, 6, 7, 8])

        def calculate(self, atoms, properties, changes):
            plain = atoms.copy()
            plain.set_initial_charges([atoms.info["charge"] / len(atoms)] * len(atoms))
            plain.set_initial_magnetic_moments([(atoms.info["spin"] - 1) / len(atoms)] * len(atoms))
            super().calculate(plain, properties, changes)

    package, module = types.ModuleType("mace"), types.ModuleType("mace.calculators")
    module.MACECalculator = Calculator
    monkeypatch.setitem(sys.modules, "mace", package)
    monkeypatch.setitem(sys.modules, "mace.calculators", module)
    file = tmp_path / "omol.model"
    file.write_bytes(b"stands for a model")
    monkeypatch.setattr(torch, "load", lambda *_, **__: Model())
    return f"mace:{file}"


def test_an_ion_and_radicals_have_the_same_numbers_by_every_route(factory, tmp_path, monkeypatch):
    pytest.importorskip("tblite")
    batch = Batch.of(SYSTEMS)
    expected = load("gfn2-xtb").predict(batch).require()
    found = {"factory": load(factory).predict(batch).require()}
    adapter = load(fake_mace(monkeypatch, tmp_path))
    assert adapter.abilities.charge
    found["adapter"] = adapter.predict(batch).require()
    molecules = [Molecule(str(k), system) for k, system in enumerate(SYSTEMS)]
    for name, engine in (("engine", ASE(factory)), ("adapter as engine", ASE(f"mace:{tmp_path}/omol.model"))):
        out = tmp_path / f"{name}.extxyz"
        label_structures(molecules, engine, out, store=tmp_path / name)
        found[name] = read_predictions(out)
        assert [(m.system.charge, m.system.multiplicity) for m in read_molecules(out)] == [
            (1, 1),
            (0, 2),
            (0, 3),
        ]
    for name, numbers in found.items():
        np.testing.assert_allclose(numbers.energy, expected.energy, rtol=0, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(numbers.forces, expected.forces, rtol=0, atol=2e-4, err_msg=name)
    plain = [replace(OXYGEN, multiplicity=1), replace(METHYL, charge=1, multiplicity=1)]
    other = load("gfn2-xtb").predict(Batch.of(plain)).require()
    assert np.abs(other.energy - expected.energy[[2, 1]]).min() > 0.05  # it matters


# --- where it changes nothing


class Deaf(Potential):
    """Takes charge and spin, and does nothing with them."""

    name, identity = "deaf", "deaf"
    abilities = Abilities(batch=8, charge=True)

    def compute(self, batch):
        return PAIRS["morse"].compute(batch)


class Hearing(Deaf):
    name, identity = "hearing", "hearing"

    def compute(self, batch):
        found = super().compute(batch)
        return replace(found, energy=found.energy + 3.0 * batch.charge + 0.1 * batch.multiplicity)


class NoSpin(Hearing):
    name, identity = "nospin", "nospin"

    def compute(self, batch):
        found = super().compute(batch)
        return replace(found, energy=found.energy - 0.1 * batch.multiplicity)


class Refusing(Deaf):
    """Has no answer for the neutral molecule."""

    name, identity = "refusing", "refusing"

    def compute(self, batch):
        if (batch.charge == 0).any():
            raise ValueError("no convergence")
        return super().compute(batch)


def ions(charge=1, multiplicity=2, name="C-O/ion"):
    plain, ion = made_runs.diatomic("C-C/plain", 1.4), made_runs.diatomic(name, 1.42)
    scans = [plain, replace(ion, charge=charge, multiplicity=multiplicity)]
    return ScanSet("ions", "Morse", "CC0-1.0", "made by hand", scans)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Deaf, "60 of 120 structures state a total charge and 60 of 120 structures state an open shell"),
        (NoSpin, "60 of 120 structures state an open shell"),
        (Hearing, ""),
    ],
)
def test_a_model_that_does_not_listen_is_found_out_by_one_more_structure(tmp_path, model, said):
    write_scan_set(tmp_path / "ions.h5", ions())
    done = run("bsct", [model()], tmp_path / "ions.h5", out=tmp_path / "run")
    assert done.models[model.name].coverage == (2, 2)
    for each in (done, load_run(tmp_path / "run")):
        if not said:
            assert each.remarks == []
            continue
        (line,) = each.remarks
        assert line.startswith(f"{model.name}: {said}, which changes nothing: without it")
        assert line in report_text(report_pages([each]))
        assert each.as_json()["models"][model.name]["ignores"]["measured"]


def test_one_that_says_so_itself_is_believed_and_asked_nothing_more(tmp_path):
    tasks = list(bsct.plan(ions(), Settings()))
    assert charges.probes(tasks, Abilities()) == []
    assert charges.probes(tasks, Abilities(charge=True, level="GFN2-xTB")) == []
    write_scan_set(tmp_path / "ions.h5", ions(charge=-1, multiplicity=1))
    done = run("errors", ["morse"], tmp_path / "ions.h5", out=tmp_path / "run")
    (line,) = done.remarks
    assert re.search(r"\d+ of \d+ structures state a total charge, which changes nothing: it takes no", line)


def test_what_cannot_be_computed_otherwise_tells_nothing(tmp_path):
    data = ions()
    data = ScanSet("ions", "Morse", "CC0-1.0", "made by hand", [data.scans[1]])
    done = run("bsct", [Refusing()], data, out=tmp_path / "run")
    assert done.complete
    assert "state an open shell" in done.remarks[0]
    assert "charge" not in done.remarks[0].partition(",")[0]


def test_neutral_closed_shells_need_nothing(tmp_path):
    data = ScanSet("plain", "Morse", "CC0-1.0", "made by hand", [made_runs.diatomic("C-C/plain", 1.4)])
    done = run("bsct", ["morse", Deaf()], data, out=tmp_path / "run")
    assert done.remarks == []
    lines = (tmp_path / "run" / "records" / "deaf.evaluate.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 60


@pytest.mark.parametrize("command", ["run bsct", "run errors", "eval"])
def test_the_command_line_warns(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    write_scan_set("ions.h5", ions())
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--model", "morse", "--data", "ions.h5", "--out", "r", "--json", "r.json"])
    assert ended.value.code == 0
    assert re.search(r"warning: morse: \d+ of \d+ structures state a total charge", capsys.readouterr().out)
    ignored = json.loads((tmp_path / "r.json").read_text())["models"]["morse"]["ignores"]
    assert ignored["charge"] == ignored["spin"] >= 60
    assert not ignored["measured"]
    with pytest.raises(SystemExit):
        main(["report", "r"])
    assert "warning: morse: " in capsys.readouterr().out
