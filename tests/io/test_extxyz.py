"""Extended XYZ: what ASE would lose is kept or refused, one bad frame costs itself, counts are bounded."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from sfumato.io import read_molecules, read_predictions, read_systems
from sfumato.io.ase_objects import read_atoms
from sfumato.io.extxyz import FrameError, XYZFrame, read_extxyz

PLAIN = "2\n{}\nO 0 0 0\nH 0 0 0.97\n"
HEADER = 'Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 pbc="F F F"'
LABELED = "2\n" + HEADER + "\n{} 0 0 0 0 0 1\nH 0 0 0.97 0 0 -1\n"


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "a.xyz"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_files_of_ase_are_read_as_ase_reads_them(tmp_path: Path) -> None:
    frames = []
    for atoms in (bulk("Cu", cubic=True), molecule("H2O"), bulk("Al") * (2, 1, 1)):
        atoms.rattle(0.05)
        atoms.calc = EMT() if atoms.pbc.all() else None
        if atoms.calc:
            atoms.get_stress()
        atoms.info["name"] = "x y"
        frames.append(atoms)
    path = tmp_path / "a.xyz"
    ase.io.write(path, frames, format="extxyz")
    expected = ase.io.read(path, index=":", format="extxyz")
    found = read_atoms(path)
    assert found == expected
    for here, there in zip(found, expected):
        assert here.info == there.info
        assert (here.calc is None) == (there.calc is None)
        for key, value in ({} if there.calc is None else there.calc.results).items():
            np.testing.assert_array_equal(here.calc.results[key], value)


@pytest.mark.parametrize(
    ("word", "number"), [("O", 8), ("o", 8), ("CL", 17), ("D", 1), ("T", 1), ("8", 8), ("17", 17)]
)
def test_species_may_be_isotopes_numbers_and_in_any_case(tmp_path: Path, word: str, number: int) -> None:
    for text in (LABELED.format(word), PLAIN.format("").replace("O", word)):
        (system,) = read_systems(written(tmp_path, text))
        assert system.numbers.tolist() == [number, 1]


@pytest.mark.parametrize(("word", "hint"), [("X", "ghost"), ("Gh", "ghost"), ("@O", "ghost"), ("Q", "Q")])
def test_one_bad_frame_costs_itself(tmp_path: Path, word: str, hint: str) -> None:
    path = written(tmp_path, LABELED.format("O") + LABELED.format(word) + LABELED.format("S"))
    found = read_molecules(path)
    assert [m.system.numbers[0] for m in found] == [8, 16]
    (rejected,) = found.rejected
    assert "structure 1: cannot be read: atom 0 is" in rejected.reason
    assert hint in rejected.reason
    with pytest.raises(ValueError, match=r"a\.xyz, structure 1: cannot be read: atom 0"):
        read_systems(path)


def test_a_number_too_many_in_a_row_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, LABELED.format("O").replace("0 0 -1\n", "0 0.5 0 -1\n"))
    (frame,) = read_extxyz(path)
    assert isinstance(frame, FrameError)
    assert str(frame) == "atom 1 has 8 columns, expected 7"
    # Without a statement of columns nobody reads what follows the position.
    assert len(read_systems(written(tmp_path, PLAIN.format("").replace("0.97", "0.97 0.5")))) == 1


@pytest.mark.parametrize("key", ["Lattice", "lattice", "LATTICE"])
def test_a_cell_is_read_in_any_case(tmp_path: Path, key: str) -> None:
    (system,) = read_systems(written(tmp_path, PLAIN.format(f'{key}="4 0 0 1 5 0 0 0 6" PBC="T T F"')))
    np.testing.assert_array_equal(system.cell, [[4, 0, 0], [1, 5, 0], [0, 0, 6]])
    assert system.pbc.tolist() == [True, True, False]


def test_a_cell_stated_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN.format('lattice="4 0 0 0 4 0 0 0 4" Lattice="5 0 0 0 5 0 0 0 5"'))
    with pytest.raises(ValueError, match="Lattice is stated twice"):
        read_systems(path)


def test_a_stress_is_kept_as_it_is_stated(tmp_path: Path) -> None:
    cell = 'Lattice="4 0 0 0 4 0 0 0 4" energy=-1'
    nine = '"1 6 5 6 2 4 5 4 3"'
    (frame,) = read_extxyz(written(tmp_path, PLAIN.format(f"{cell} stress={nine}")))
    assert isinstance(frame, XYZFrame)
    np.testing.assert_array_equal(frame.stated["stress"], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    found = read_predictions(tmp_path / "a.xyz")
    assert found.stress is not None
    np.testing.assert_array_equal(found.stress[0], frame.stated["stress"])


def test_frames_behind_an_empty_line_are_not_lost(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN.format("") + "\n" + PLAIN.format("") + "\n\n")
    assert len(read_systems(path)) == 2


def test_letters_of_other_encodings_are_no_obstacle(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN.format("name=Müller charge=1").encode("latin-1"))
    assert read_systems(path)[0].charge == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000000000\n\nH 0 0 0\n", "structure 0 announces 1000000000 atoms, but only .* bytes follow"),
        ("2\n\nH 0 0 0\n", "announces 2 atoms, but"),
        ("3\n\nH 0 0 0.000000000\nH 0 0 1.00000000\n", "the file ends before the last"),
        ("water\n\nH 0 0 0\n", "expected the number of atoms, got 'water'"),
        ("-1\n\n", "expected the number of atoms"),
        ("1\n\nH 0 0\n", "atom 0 has 3 columns, expected 4"),
        ("1\n" + "a" * (1 << 20) + "\nH 0 0 0\n", "a line is longer than"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.xyz.*{message}"):
        read_systems(written(tmp_path, text))


@pytest.mark.parametrize(
    ("header", "charge", "multiplicity"),
    [
        ("charge=1 spin=2", 1, 2),
        ("total_charge=1 total_spin=2", 1, 2),
        ("Charge=-1 Multiplicity=3", -1, 3),
        ("q=2 mult=1", 2, 1),
        ("net_charge=1 spin_multiplicity=2", 1, 2),
        ("charge=1 total_charge=1", 1, 1),
        ("", 0, 1),
    ],
)
def test_charge_and_spin_have_many_names(tmp_path: Path, header: str, charge: int, multiplicity: int) -> None:
    (system,) = read_systems(written(tmp_path, PLAIN.format(header)))
    assert (system.charge, system.multiplicity) == (charge, multiplicity)


def test_the_input_of_a_program_states_charge_and_spin(tmp_path: Path) -> None:
    path = tmp_path / "a.gjf"
    path.write_text("%mem=1GB\n# b3lyp/6-31g*\n\nhydroxyl\n\n-1 3\nO 0.0 0.0 0.0\nH 0.0 0.0 0.97\n\n")
    (system,) = read_systems(path)
    assert (system.charge, system.multiplicity) == (-1, 3)


def cif(*sites: str) -> str:
    cell = "".join(f"_cell_length_{axis} 5.5\n" for axis in "abc")
    cell += "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
    names = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    loop = "".join(f"_atom_site_{name}\n" for name in names)
    return f"data_x\n{cell}_symmetry_space_group_name_H-M 'P 1'\nloop_\n{loop}" + "\n".join(sites) + "\n"


@pytest.mark.parametrize(
    ("sites", "held"),
    [
        (("Na1 Na 0 0 0 0.6", "K1 K 0 0 0 0.4", "Cl1 Cl 0.5 0.5 0.5 1.0"), "Na 0.6, K 0.4"),
        (("Na1 Na 0 0 0 1.0", "Cl1 Cl 0.5 0.5 0.5 0.5"), "Cl 0.5"),
    ],
)
def test_a_disordered_crystal_is_refused(tmp_path: Path, sites: tuple[str, ...], held: str) -> None:
    path = tmp_path / "a.cif"
    path.write_text(cif(*sites))
    for read in (read_systems, read_molecules):
        with pytest.raises(ValueError, match=f"occupied by {held}: a disordered structure has no one energy"):
            read(path)
    path.write_text(cif("D1 D 0 0 0 1.0", "Cl1 Cl 0.5 0.5 0.5 1.0"))
    assert read_systems(path)[0].numbers.tolist() == [1, 17]


@pytest.mark.parametrize("rest", [" 1.0", " x" * 100_000])
def test_a_row_of_a_crystal_that_does_not_fit_is_an_error_and_no_lost_atom(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "a.cif"
    sites = "Na1 Na 0 0 0 1.0", "Cl1 Cl 0.5 0.5 0.5 1.0"
    path.write_text(cif(*sites))
    assert len(read_systems(path)[0]) == 2
    path.write_text(cif(sites[0], sites[1] + rest))
    with pytest.raises(ValueError, match=r"a\.cif: cannot be read: a row of a table: Wrong number") as caught:
        read_systems(path)
    assert len(str(caught.value)) < 600


ATOM = "HETATM    {}  {} {}HOH A   1       0.000   0.{}00   0.590  {}  0.00           {}\n"


def test_alternate_locations_and_partial_occupancies_of_a_pdb_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pdb"
    path.write_text(ATOM.format(1, "O ", " ", 0, "1.00", "O") + ATOM.format(2, "H1", "A", 7, "1.00", "H"))
    with pytest.raises(ValueError, match="line 2 is alternate location 'A' of an atom"):
        read_systems(path)
    path.write_text(ATOM.format(1, "O ", " ", 0, "1.00", "O") + ATOM.format(2, "H1", " ", 7, "0.50", "H"))
    with pytest.raises(ValueError, match=r"atom 1 has occupancy 0\.5"):
        read_systems(path)
    for occupancy in ("1.00", "0.00"):
        path.write_text(ATOM.format(1, "O ", " ", 0, occupancy, "O"))
        assert len(read_systems(path)) == 1
