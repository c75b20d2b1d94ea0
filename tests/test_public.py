"""What `import sfumato` offers works as its name says, and says what to do where it does not."""

import numpy as np
import pytest
from ase.build import molecule

import sfumato
from sfumato.io import from_ase, write_scan_set
from tests import made_runs


def test_scans_are_loaded_by_name_or_from_a_path(tmp_path):
    made = made_runs.ScanSet("one", "Morse", "CC0-1.0", "made by hand", [made_runs.diatomic("C-C/a")])
    write_scan_set(tmp_path / "one.h5", made)
    for path in (tmp_path / "one.h5", str(tmp_path / "one.h5")):
        assert sfumato.load_scans(path).identity == made.identity
    assert len(sfumato.load_scans("bsct-mini")) == 9


@pytest.mark.parametrize("name", ["morse", "mindscaip-nano", "gfn2-xtb"])
def test_whatever_is_loaded_is_an_ase_calculator_too(name):
    if name == "gfn2-xtb":
        pytest.importorskip("tblite", reason="needs the extra xtb")
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    atoms.calc = sfumato.load(name).calculator()
    assert np.abs(atoms.get_forces()).max() > 0.1
    again = sfumato.from_ase(atoms.calc).predict(sfumato.Batch.of([from_ase(atoms)]))
    assert again.energy[0] == pytest.approx(atoms.get_potential_energy())


def test_atoms_are_not_taken_for_a_calculator():
    with pytest.raises(TypeError, match=r"takes an ASE calculator, such as atoms\.calc, got Atoms"):
        sfumato.from_ase(molecule("H2O"))


def test_every_public_name_can_be_imported():
    for name in sfumato.__all__:
        offered = getattr(sfumato, name)
        assert name in (offered.__name__, "load_scans"), name
        assert offered.__module__.startswith("sfumato."), name
    with pytest.raises(AttributeError, match="no attribute 'load_bsct'"):
        sfumato.load_bsct  # noqa: B018
