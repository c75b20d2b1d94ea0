"""Molecules from files: the graph is kept, spelling does not matter, what cannot be read is listed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from sfumato.io.molecules import (
    Exclusion,
    Molecule,
    MoleculeError,
    canonical_smiles,
    conformers,
    molecule_from_smiles,
    read_molecules,
)
from sfumato.reference.scans import bonds
from sfumato.systems import System

Chem = pytest.importorskip("rdkit.Chem", reason="RDKit is not installed")

DRUGS = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C)C(=O)N2C",
    "OP(=O)(O)OC[C@H](N)C(=O)O",
    "FC(F)(Cl)CS(=O)C",
    "C/C=C/C#N",
    "CP(C)N=O",
)

METHANOL_2D = """flat

comment
  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.4000    0.0000    0.0000 O   0  0
  1  2  1  0
M  END
$$$$
"""

WATER_3D = """water
     made          3D

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.7600    0.5900 H   0  0
    0.0000    0.0000    0.0000 O   0  0
    0.0000   -0.7600    0.5900 H   0  0
  1  2  1  0
  2  3  1  0
M  END
$$$$
"""

ACETATE_V3000 = """
     made          3D

  0  0  0  0  0  0  0  0  0  0999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 4 3 0 0 0
M  V30 BEGIN ATOM
M  V30 1 C 0 0 0 0
M  V30 2 C 1.5 0 0 0
M  V30 3 O 2.1 1.1 0 0
M  V30 4 O 2.1 -1.1 0.1 0 CHG=-1
M  V30 END ATOM
M  V30 BEGIN BOND
M  V30 1 1 1 2
M  V30 2 2 2 3
M  V30 3 1 2 4
M  V30 END BOND
M  V30 END CTAB
M  END
$$$$
"""

METHYL_RADICAL = """methyl
     made          3D

  4  3  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1000 C   0  0
    1.0800    0.0000    0.0000 H   0  0
   -0.5400    0.9350    0.0000 H   0  0
   -0.5400   -0.9350    0.0000 H   0  0
  1  2  1  0
  1  3  1  0
  1  4  1  0
M  RAD  1   1   2
M  END
$$$$
"""


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


Write = Callable[[str, str], Path]


# --- SMILES --------------------------------------------------------------------------------------


def test_lines_comments_names_and_line_numbers(file: Write) -> None:
    found = read_molecules(file("a.smi", "# three\n\nO water of life\nCC\n  # more\n[Cl-]\tchloride\n"))
    assert [m.name for m in found] == ["water of life", "4", "chloride"]
    assert [len(m.system) for m in found] == [3, 8, 1]
    assert [m.system.charge for m in found] == [0, 0, -1]
    assert found.rejected == ()


def test_what_cannot_be_read_is_listed_with_line_and_reason_and_the_rest_is_kept(file: Write) -> None:
    text = "CC( open\nO water\nC(C)(C)(C)(C)C five\nC.C pair\n*C\nO water\n"
    found = read_molecules(file("a.smi", text))
    assert [m.name for m in found] == ["water"]
    told = {exclusion.name: exclusion.reason for exclusion in found.rejected}
    assert told["open"] == "line 1: 'CC(' is not a SMILES"
    assert "line 3: Explicit valence" in told["five"]
    assert told["pair"] == "line 4: it holds 2 separate molecules; give each on its own"
    assert told["5"].startswith("line 5: ")
    assert told["water"] == "an earlier molecule has this name; give it another"


@pytest.mark.parametrize("text", ["", "# nothing\n", "CC(\nC1CC\n"])
def test_a_file_of_which_nothing_can_be_read_is_an_error(file: Write, text: str) -> None:
    with pytest.raises(ValueError, match=r"a\.smi: no molecule could be read"):
        read_molecules(file("a.smi", text))


@pytest.mark.parametrize("seed", [-1, 2**31 - 1])
def test_no_file_or_a_seed_out_of_range_is_an_error(file: Write, tmp_path: Path, seed: int) -> None:
    with pytest.raises(ValueError, match=r"a\.smi: no such file"):
        read_molecules(tmp_path / "a.smi")
    with pytest.raises(ValueError, match="seed: must lie in"):
        read_molecules(file("a.smi", "C"), seed=seed)


def test_rdkit_keeps_quiet(file: Write, capfd: pytest.CaptureFixture[str]) -> None:
    read_molecules(file("a.smi", "CC(\nO\nC(C)(C)(C)(C)C\n"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("smiles", "charge", "multiplicity"),
    [
        ("[NH4+]", 1, 1),
        ("[O-]C=O", -1, 1),
        ("[CH3]", 0, 2),
        ("[O][O]", 0, 3),
        ("[O-][N+](=O)c1ccccc1", 0, 1),
        ("O=N[O]", 0, 2),
    ],
)
def test_charge_and_unpaired_electrons_are_those_of_the_graph(
    smiles: str, charge: int, multiplicity: int
) -> None:
    system = molecule_from_smiles(smiles).system
    assert (system.charge, system.multiplicity) == (charge, multiplicity)
    assert (system.numbers.sum() - charge - (multiplicity - 1)) % 2 == 0


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(DRUGS), st.integers(0, 10**6))
def test_every_spelling_gives_the_same_molecule(smiles: str, seed: int) -> None:
    graph = Chem.MolFromSmiles(smiles)
    order = np.random.default_rng(seed).permutation(graph.GetNumAtoms()).tolist()
    spelling = Chem.MolToSmiles(Chem.RenumberAtoms(graph, order), canonical=False)
    one, other = molecule_from_smiles(smiles), molecule_from_smiles(spelling)
    assert other.smiles == one.smiles
    np.testing.assert_array_equal(other.system.positions, one.system.positions)
    assert canonical_smiles(spelling) == canonical_smiles(one.smiles) == canonical_smiles(smiles)


@pytest.mark.parametrize("smiles", DRUGS)
def test_the_mapped_smiles_recovers_the_graph(smiles: str) -> None:
    molecule = molecule_from_smiles(smiles)
    assert molecule.bonds is not None
    parameters = Chem.SmilesParserParams()
    parameters.removeHs = False
    graph = Chem.MolFromSmiles(molecule.smiles, parameters)
    place = [atom.GetAtomMapNum() - 1 for atom in graph.GetAtoms()]
    assert sorted(place) == list(range(len(molecule.system)))
    numbers = {place[a.GetIdx()]: a.GetAtomicNum() for a in graph.GetAtoms()}
    assert [numbers[k] for k in range(len(place))] == molecule.system.numbers.tolist()
    pairs = sorted(sorted((place[b.GetBeginAtomIdx()], place[b.GetEndAtomIdx()])) for b in graph.GetBonds())
    assert pairs == molecule.bonds.tolist()
    assert pairs == bonds(molecule.system).tolist()  # as the geometry has it


def test_the_seed_chooses_the_conformer() -> None:
    first, again, other = (molecule_from_smiles("CCCCO", seed=seed).system.positions for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(pdist(first) - pdist(other)).max() > 0.1


def test_the_geometry_decides_a_stereocenter_that_the_input_left_open() -> None:
    assert "@" in molecule_from_smiles("CC(F)Cl").smiles
    assert canonical_smiles("C[C@H](F)Cl") == canonical_smiles("C[C@@H](F)Cl") == "CC(F)Cl"


def test_no_rdkit_says_what_to_install(file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("a.smi", "C")
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ValueError, match=r"pip install 'sfumato\[rdkit\]'"):
        read_molecules(path)


# --- conformers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 3])
def test_conformers_have_the_bonds_and_the_order_of_the_molecule_and_differ(seed: int) -> None:
    molecule = molecule_from_smiles("OCC(N)C=O")
    found = conformers(molecule, 4, seed=seed)
    assert found.shape == (4, len(molecule.system), 3)
    assert molecule.bonds is not None
    for positions in found:
        assert bonds(System(molecule.system.numbers, positions)).tolist() == molecule.bonds.tolist()
    assert np.abs(pdist(found[0]) - pdist(found[-1])).max() > 0.3


def test_conformers_need_a_smiles_that_maps_the_structure() -> None:
    water = molecule_from_smiles("O")
    with pytest.raises(MoleculeError, match="does not map every atom"):
        conformers(Molecule("w", water.system, "O"), 2)
    with pytest.raises(MoleculeError, match="does not map every atom"):
        conformers(Molecule("w", water.system), 2)
    with pytest.raises(MoleculeError, match="maps other elements"):
        conformers(Molecule("w", water.system, "[S:1]([H:2])[H:3]"), 2)


# --- SDF -----------------------------------------------------------------------------------------


def test_a_record_in_space_keeps_coordinates_and_order_and_a_flat_one_gets_a_conformer(file: Write) -> None:
    found = read_molecules(file("a.sdf", METHANOL_2D + WATER_3D + METHYL_RADICAL))
    assert [m.name for m in found] == ["flat", "water", "methyl"]
    flat, water, methyl = found
    assert flat.system.numbers.tolist() == [6, 8, 1, 1, 1, 1]
    assert np.ptp(flat.system.positions[:, 2]) > 0.5
    np.testing.assert_allclose(water.system.positions, [[0, 0.76, 0.59], [0, 0, 0], [0, -0.76, 0.59]])
    assert water.bonds is not None
    assert water.bonds.tolist() == [[0, 1], [1, 2]]
    assert canonical_smiles(water.smiles) == "O"
    assert methyl.system.multiplicity == 2


def test_version_3000_charges_and_missing_hydrogens(file: Write) -> None:
    (acetate,) = read_molecules(file("a.sdf", ACETATE_V3000))
    assert acetate.name == "0"
    assert acetate.system.charge == -1
    assert acetate.system.numbers.tolist() == [6, 6, 8, 8, 1, 1, 1]
    np.testing.assert_allclose(acetate.system.positions[1], [1.5, 0, 0])
    assert canonical_smiles(acetate.smiles) == "CC(=O)[O-]"
    assert bonds(acetate.system).tolist() == np.asarray(acetate.bonds).tolist()


def test_a_bad_record_is_listed_and_the_rest_is_kept(file: Write) -> None:
    broken = METHANOL_2D.replace("flat", "broken").replace("1.4000", "?.4000")
    found = read_molecules(file("a.sdf", WATER_3D + broken + METHANOL_2D))
    assert [m.name for m in found] == ["water", "flat"]
    assert found.rejected == (Exclusion("broken", "record 1: not a record that RDKit can read"),)


@pytest.mark.parametrize("text", ["", "no molecule here\n", "\n\n\n\n$$$$\n"])
def test_an_sdf_without_molecules_is_an_error(file: Write, text: str) -> None:
    with pytest.raises(ValueError, match="no molecule could be read"):
        read_molecules(file("a.sdf", text))


# --- structures ----------------------------------------------------------------------------------


def test_named_structures_are_read_as_they_are(file: Write) -> None:
    text = (
        '1\nProperties=species:S:1:pos:R:3 name=ion charge=-1 smiles="[Cl-]"\nCl 0 0 0.5\n'
        "1\nProperties=species:S:1:pos:R:3 charge=0.5\nH 0 0 0\n"
        "1\nProperties=species:S:1:pos:R:3 multiplicity=2\nH 0 0 0\n"
    )
    found = read_molecules(file("a.xyz", text))
    assert [(m.name, m.smiles, m.bonds) for m in found] == [("ion", "[Cl-]", None), ("2", "", None)]
    assert found[0].system.charge == -1
    assert found[1].system.multiplicity == 2
    (rejected,) = found.rejected
    assert rejected.name == "1"
    assert rejected.reason.startswith("structure 1: charge: expected a whole number")


def test_the_result_travels_whole(file: Write) -> None:
    found = read_molecules(file("a.smi", "O water\nCC(\n"))
    back = pickle.loads(pickle.dumps(found))
    assert [m.smiles for m in back] == [m.smiles for m in found]
    assert back.rejected == found.rejected
