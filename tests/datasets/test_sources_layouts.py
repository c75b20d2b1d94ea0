"""Layouts of others are read as their makers wrote them: units, signs, orders."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.db
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from sfumato.datasets.convert import convert
from sfumato.datasets.sources import GPA, SourceSettings, read_frames
from sfumato.units import BOHR, HARTREE, HARTREE_PER_BOHR
from tests.datasets.test_sources import WATER, converted, settings

# --- stress --------------------------------------------------------------------------------------


def full() -> np.ndarray:
    return np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])


@pytest.mark.parametrize(
    ("order", "six"),
    [("ase", [1, 2, 3, 4, 5, 6]), ("vasp", [1, 2, 3, 6, 4, 5])],
)
def test_six_numbers_are_put_in_their_places(tmp_path: Path, order: str, six: list[float]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record(six)]))
    frames, _ = converted(path, crystal_source(stress_order=order), tmp_path)
    assert frames.labels.stress is not None
    np.testing.assert_allclose(frames.labels.stress[0], -full() * GPA / 10)


def test_a_virial_is_divided_by_the_volume_and_changes_sign(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record(full().tolist())]))
    source = crystal_source(
        stress_are="virial", units={"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "hartree"}
    )
    frames, _ = converted(path, source, tmp_path)
    assert frames.labels.stress is not None
    np.testing.assert_allclose(frames.labels.stress[0], -full() * HARTREE / 64.0)


@pytest.mark.parametrize(
    ("stress", "overrides", "message"),
    [
        ([1, 2, 3, 4, 5, 6], {"stress_order": ""}, "declare stress_order"),
        ([1, 2, 3], {}, "expected 6 or 9 numbers"),
        ([1, 2, 3, 4, 5, float("nan")], {}, "cannot be read"),
    ],
)
def test_a_stress_that_cannot_be_understood_is_refused(
    tmp_path: Path, stress: list[float], overrides: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record(stress)]))
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "out.h5", crystal_source(**overrides))


# --- pymatgen JSON, MPtrj ------------------------------------------------------------------------


def structure(**overrides: Any) -> dict[str, Any]:
    """A cubic cell of 4 Å with Na and Cl, as pymatgen writes it."""
    sites = [
        {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0], "xyz": [0, 0, 0], "label": "Na"},
        {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5], "label": "Cl"},
    ]
    lattice = {"matrix": (4.0 * np.eye(3)).tolist(), "volume": 64.0}
    return {"@class": "Structure", "charge": None, "lattice": lattice, "sites": sites, **overrides}


def record(stress: Any, **overrides: Any) -> dict[str, Any]:
    outputs = {"energy": -7.5, "forces": [[0.1, 0, 0], [-0.1, 0, 0]], "virial_stress": stress}
    return {"structure": structure(**overrides), "group": "Elastic", "outputs": outputs}


def crystal_source(**overrides: Any) -> SourceSettings:
    found: dict[str, Any] = {
        "layout": "pymatgen",
        "keys": {
            "energy": "outputs.energy",
            "forces": "outputs.forces",
            "stress": "outputs.virial_stress",
            "subset": "group",
        },
        "units": {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "kbar"},
        "stress_are": "pressure",
        "stress_order": "vasp",
        "absent": [],
    }
    return settings(**{**found, **overrides})


def test_pymatgen_structures(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record(full().tolist()), record(full().tolist(), charge=1)]))
    frames, done = converted(path, crystal_source(), tmp_path)
    first = next(iter(frames.batch))
    assert first.numbers.tolist() == [11, 17]
    np.testing.assert_array_equal(first.positions, [[0, 0, 0], [2, 2, 2]])
    np.testing.assert_array_equal(first.cell, 4 * np.eye(3))
    assert first.pbc.all()
    assert frames.batch.charge.tolist() == [0, 1]
    assert "1 frames state no charge: taken as 0" in done.notes
    assert list(frames.subset) == ["Elastic", "Elastic"]
    np.testing.assert_allclose(frames.labels.forces[:2], [[0.1, 0, 0], [-0.1, 0, 0]], rtol=1e-7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"structure": structure()}), "expected a list of objects"),
        (json.dumps([{"atoms": 1}]), "expected a list of objects"),
        (json.dumps([record(full().tolist())])[:-20], "cannot be read"),
        (json.dumps([record(full().tolist(), charge=0.5)]), "expected a whole number, got 0.5"),
        (json.dumps([record([1] * 9)]).replace('"occu": 1', '"occu": 0.5'), "disordered"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.json", tmp_path / "out.h5", crystal_source())


def nodes(tree: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree of JSON; of a list, the whole and its first element."""
    yield where
    for key, value in (
        tree.items() if isinstance(tree, dict) else enumerate(tree if type(tree) is list else ())
    ):
        yield from nodes(value, (*where, key))


def other(tree: Any, where: tuple[Any, ...], value: Any) -> Any:
    """The same tree with another value at one place."""
    if not where:
        return value
    copy = tree.copy()
    copy[where[0]] = other(tree[where[0]], where[1:], value)
    return copy


@pytest.mark.parametrize("value", [{"shape": [-1]}, "x", None, [[1, 2], [3]]])
def test_json_of_other_kinds_anywhere_is_refused_or_harmless(tmp_path: Path, value: Any) -> None:
    whole = [record(full().tolist())]
    refused = []
    for where in nodes(whole):
        (tmp_path / "a.json").write_text(json.dumps(other(whole, where, value)))
        try:
            convert(tmp_path / "a.json", tmp_path / "out.h5", crystal_source())
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert max(map(len, refused)) < 1000


def test_mptrj(tmp_path: Path) -> None:
    """The layout of its data card: VASP's stress in kbar, so that compression is positive."""
    frame = {
        "structure": structure(),
        "uncorrected_total_energy": -7.5,
        "corrected_total_energy": -8.0,
        "energy_per_atom": -4.0,
        "force": [[0.1, 0, 0], [-0.1, 0, 0]],
        "stress": (10 * np.eye(3)).tolist(),
        "magmom": None,
        "bandgap": 5.0,
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"mp-1": {"mp-1-0-0": frame, "mp-1-0-1": frame}, "mp-2": {"mp-2-0-0": frame}}))
    found = {"layout": "mptrj", "name": "mptrj", "level": "PBE", "licence": "MIT", "fractions": (0.6, 0.4, 0)}
    frames, done = converted(path, SourceSettings(**found), tmp_path)
    assert frames.labels.energy.tolist() == [-7.5] * 3
    assert frames.molecule.names == ("mp-1", "mp-2")
    assert sorted(done.splits.values()) == [1, 2]
    assert frames.labels.stress is not None
    np.testing.assert_allclose(frames.labels.stress[0], -np.eye(3) / 160.2176634)  # 10 kbar are 1 GPa
    frames, _ = converted(path, SourceSettings(**found, keys={"energy": "corrected_total_energy"}), tmp_path)
    assert frames.labels.energy.tolist() == [-8.0] * 3


def test_spin_and_isotopes_of_pymatgen_molecules(tmp_path: Path) -> None:
    sites = [{"species": [{"element": "D", "occu": 1}], "xyz": [0, 0, z]} for z in (0.0, 0.74)]
    record = {"structure": {"sites": sites, "charge": 1, "spin_multiplicity": 2}, "energy": -1.0}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    source = settings(layout="pymatgen", keys={"energy": "energy"}, absent=["forces", "stress"])
    frames, _ = converted(tmp_path / "a.json", source, tmp_path)
    assert frames.batch.numbers.tolist() == [1, 1]
    assert (frames.batch.charge[0], frames.batch.multiplicity[0]) == (1, 2)
    sites[0]["species"] = [{"element": "Qq", "occu": 1}]
    (tmp_path / "a.json").write_text(json.dumps([record]))
    with pytest.raises(ValueError, match="site 0: 'Qq' is not a chemical element"):
        convert(tmp_path / "a.json", tmp_path / "b.h5", source)


# --- SPICE ---------------------------------------------------------------------------------------


def write_spice(path: Path) -> None:
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        for name, smiles, count in (("water", "[H:2][O:1][H:3]", 3), ("ion", "[H:2][O-:1]", 1)):
            group = file.create_group(name)
            n = 3 if name == "water" else 2
            group["atomic_numbers"] = np.array([8, 1, 1][:n], dtype=np.int16)
            x = np.float32(np.tile(WATER[:n] / BOHR, (count, 1, 1)))
            group.create_dataset("conformations", data=x).attrs["units"] = "bohr"
            group.create_dataset("dft_total_energy", data=-76.0 - np.arange(count)).attrs["units"] = "hartree"
            group.create_dataset("dft_total_gradient", data=np.full((count, n, 3), 0.01, dtype=np.float32))
            group.create_dataset("mbis_charges", data=np.zeros((count, n, 1)))
            group.create_dataset("smiles", data=[smiles], dtype=text)
            group.create_dataset("subset", data=["made"], dtype=text)
    assert path.exists()


def test_spice(tmp_path: Path) -> None:
    write_spice(tmp_path / "a.hdf5")
    source = SourceSettings(layout="spice", name="spice", level="x", licence="MIT", fractions=(0.5, 0.5, 0))
    frames, done = converted(tmp_path / "a.hdf5", source, tmp_path)
    assert frames.molecule.names == ("[H:2][O-:1]", "[H:2][O:1][H:3]")
    assert frames.batch.charge.tolist() == [-1, 0, 0, 0]
    np.testing.assert_allclose(frames.labels.energy, np.array([-76, -76, -77, -78]) * HARTREE, rtol=1e-15)
    np.testing.assert_allclose(frames.labels.forces, -0.01 * HARTREE_PER_BOHR, rtol=1e-6)
    np.testing.assert_allclose(frames.batch.positions[:2], WATER[:2], atol=1e-6)
    assert frames.labels.stress is None
    assert list(frames.subset) == ["made"] * 4
    assert "4 frames state no multiplicity: taken as 1" in done.notes
    wrong = source.model_copy(update={"keys": source.keys.model_copy(update={"energy": "energy"})})
    with pytest.raises(ValueError, match=r"group ion, conformation 0: .*'dft_total_energy'.*'mbis_charges'"):
        convert(tmp_path / "a.hdf5", tmp_path / "b.h5", wrong)


def test_a_spice_group_without_conformations_is_passed_over(tmp_path: Path) -> None:
    write_spice(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        group = file.create_group("a group whose conformations were all left out")
        group["atomic_numbers"] = np.array([8, 1, 1], dtype=np.int16)
        group["conformations"] = np.zeros((0, 3, 3), dtype=np.float32)
        group["dft_total_energy"] = np.zeros(0)
        group.create_dataset("smiles", data=["[H:2][O:1][H:3]"], dtype=h5py.string_dtype())
    source = SourceSettings(layout="spice", name="spice", level="x", licence="MIT", fractions=(1, 0, 0))
    frames, _ = converted(tmp_path / "a.hdf5", source, tmp_path)
    assert len(frames) == 4


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[CH3:1][N+:2]([H:3])([H:4])[H:5]", 1),
        ("[O-:1][S:2](=[O:3])(=[O:4])[O-:5]", -2),
        ("[Ca+2:1]", 2),
        ("[Fe+++]", 3),
        ("[C@@H:1]([H:2])([F:3])[Cl-:4].[Na+:5]", 0),
        ("C#C-C", 0),
    ],
)
def test_the_charge_is_read_from_the_smiles(tmp_path: Path, smiles: str, charge: int) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        group = file.create_group("m")
        group["atomic_numbers"] = [1]
        group["conformations"] = np.zeros((1, 1, 3))
        group.create_dataset("smiles", data=[smiles], dtype=h5py.string_dtype())
    source = SourceSettings(layout="spice", name="spice", level="x", licence="MIT")
    (frame,) = read_frames(tmp_path / "a.hdf5", source)
    assert frame.system.charge == charge
    assert frame.states == {"charge"}


# --- ASE databases -------------------------------------------------------------------------------


def labeled(energy: float) -> Atoms:
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [2, 2, 2]], cell=4 * np.eye(3), pbc=True)
    stress = np.array([1, 2, 3, 4, 5, 6]) * GPA
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.ones((2, 3)), stress=stress)
    return atoms


def database_source() -> SourceSettings:
    return settings(
        layout="ase-db",
        keys={"energy": "energy", "forces": "forces", "stress": "stress", "subset": "kind"},
        units={"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å³"},
        stress_are="stress",
        absent=[],
    )


@pytest.mark.parametrize("suffix", ["db", "json", "aselmdb"])
def test_ase_databases(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if suffix == "aselmdb":
        pytest.importorskip("ase_db_backends")
    monkeypatch.setattr("sfumato.datasets.sources.PAGE", 2)
    path = tmp_path / f"a.{suffix}"
    database = ase.db.connect(path)
    for k in range(5):
        database.write(labeled(-float(k)), kind="rattled", data={"charge": k % 2, "spin": 1 + k % 2})
    if suffix == "aselmdb":
        database.close()
    frames, done = converted(path, database_source(), tmp_path)
    assert frames.labels.energy.tolist() == [0.0, -1.0, -2.0, -3.0, -4.0]
    assert frames.labels.stress is not None
    np.testing.assert_allclose(frames.labels.stress[0], full() * GPA)
    assert frames.batch.charge.tolist() == [0, 1, 0, 1, 0]
    assert frames.batch.multiplicity.tolist() == [1, 2, 1, 2, 1]
    assert frames.batch.pbc.all()
    assert list(frames.subset) == ["rattled"] * 5
    assert not any("state no" in note for note in done.notes)


def test_a_folder_of_databases_is_one_set(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(2):
        ase.db.connect(folder / f"{k}.db").write(labeled(float(k)), kind="x")
    (folder / "readme.txt").write_text("not a database")
    frames, _ = converted(folder, database_source(), tmp_path)
    assert frames.labels.energy.tolist() == [0.0, 1.0]
    assert frames.molecule.names == ("0.db, row 1", "1.db, row 1")


def test_a_missing_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ijson", None)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"needs a package .*pip install 'sfumato\[train\]'"):
        convert(tmp_path / "a.json", tmp_path / "out.h5", crystal_source())
