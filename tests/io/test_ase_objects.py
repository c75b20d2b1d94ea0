"""Structures and packed scans: what is written reads back, what is damaged is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato import io as sio
from sfumato.io import scans_hdf5
from sfumato.systems import Prediction, Scan, System
from tests.released_layout import (
    make_scan,
    make_set,
)

finite = st.floats(-1e3, 1e3, allow_subnormal=False)


@st.composite
def systems(draw: st.DrawFn) -> System:
    n = draw(st.integers(1, 4))
    pbc = draw(hnp.arrays(bool, 3))
    cell = np.diag(draw(hnp.arrays(float, 3, elements=st.floats(1.0, 50.0))))
    cell[1, 0] = draw(finite)
    return System(
        numbers=draw(hnp.arrays(np.int64, n, elements=st.integers(1, 118))),
        positions=draw(hnp.arrays(float, (n, 3), elements=finite)),
        cell=cell if pbc.any() else np.zeros((3, 3)),
        pbc=pbc,
        charge=draw(st.integers(-3, 3)),
        multiplicity=draw(st.integers(1, 5)),
    )


def test_charge_and_spin_default_to_neutral_singlet() -> None:
    system = sio.from_ase(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]]))
    assert (system.charge, system.multiplicity) == (0, 1)


@pytest.mark.parametrize("key", ["multiplicity", "spin"])
def test_charge_and_either_name_of_the_multiplicity_are_read(key: str) -> None:
    atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.97]], info={"charge": -1.0, key: np.int64(3)})
    system = sio.from_ase(atoms)
    assert (system.charge, system.multiplicity) == (-1, 3)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": 0.5}, r"charge: expected a whole number, got 0\.5"),
        ({"charge": "one"}, "charge: expected a whole number, got 'one'"),
        ({"spin": None}, "spin: expected a whole number"),
        ({"charge": float("nan")}, "charge: expected a whole number"),
        ({"spin": 2, "multiplicity": 3}, "spin is 2, multiplicity is 3; all mean 2S"),
        ({"spin": 0}, "spin is 0, but means 2S.1 here"),
        ({"charge": 1, "total_charge": 0}, "charge is 1, total_charge is 0; all mean the total charge in e"),
    ],
)
def test_info_that_says_nonsense_is_refused(info: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sio.from_ase(Atoms("H", positions=[[0, 0, 0]], info=info))


@given(systems())
def test_a_structure_survives_ase(system: System) -> None:
    assert sio.from_ase(sio.to_ase(system)).identity == system.identity


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_structures_and_predictions_survive_extended_xyz_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    found = data.draw(st.lists(systems(), min_size=1, max_size=3))
    value = finite | st.just(float("nan"))
    prediction = Prediction(
        energy=data.draw(hnp.arrays(float, len(found), elements=value)),
        forces=data.draw(hnp.arrays(float, (sum(map(len, found)), 3), elements=value)),
    )
    path = tmp_path_factory.mktemp("xyz") / "some.xyz"
    sio.write_systems(path, found, prediction)
    assert [s.identity for s in sio.read_systems(path)] == [s.identity for s in found]
    back = sio.read_predictions(path)
    np.testing.assert_array_equal(back.energy, prediction.energy)
    np.testing.assert_array_equal(back.forces, prediction.forces)
    assert back.stress is None


def test_what_is_written_means_the_same_to_ase(tmp_path: Path) -> None:
    cell = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0.5, 0.25, 6.0]])
    system = System(np.array([11, 17]), np.array([[0, 0, 0], [1, 2, 3.0]]), cell, [True, True, False], 1, 2)
    stress = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])
    forces = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    sio.write_systems(tmp_path / "a.xyz", [system], Prediction(np.array([-1.5]), forces, stress[None]))
    atoms = ase.io.read(tmp_path / "a.xyz")
    np.testing.assert_array_equal(atoms.cell, cell)
    assert atoms.pbc.tolist() == [True, True, False]
    assert atoms.get_potential_energy() == -1.5
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    np.testing.assert_array_equal(atoms.get_stress(voigt=False), stress)
    back = sio.read_predictions(tmp_path / "a.xyz").stress
    assert back is not None
    np.testing.assert_array_equal(back[0], stress)


def test_structures_without_results_have_nan_predictions(tmp_path: Path) -> None:
    sio.write_systems(tmp_path / "a.xyz", [System([1, 1], [[0, 0, 0], [0, 0, 0.74]])])
    back = sio.read_predictions(tmp_path / "a.xyz")
    assert np.isnan(back.energy).all()
    assert back.forces.shape == (2, 3)
    assert np.isnan(back.forces).all()


def test_predictions_for_other_structures_are_refused(tmp_path: Path) -> None:
    system = System([1], [[0, 0, 0]])
    with pytest.raises(ValueError, match="1 energies and 2 force vectors were given for 1 structures with 1"):
        sio.write_systems(tmp_path / "a.xyz", [system], Prediction(np.zeros(1), np.zeros((2, 3))))
    assert not (tmp_path / "a.xyz").exists()


def test_files_of_structures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.xyz: no such file"):
        sio.read_systems(tmp_path / "none.xyz")
    (tmp_path / "bad.xyz").write_text("two\n\nH 0 0 0\n")
    with pytest.raises(ValueError, match=r"bad\.xyz: cannot be read"):
        sio.read_systems(tmp_path / "bad.xyz")
    (tmp_path / "half.xyz").write_text(
        "1\n\nH 0 0 0\n1\nProperties=species:S:1:pos:R:3 charge=0.5\nH 0 0 0\n"
    )
    with pytest.raises(ValueError, match=r"half\.xyz, structure 1: charge"):
        sio.read_systems(tmp_path / "half.xyz")


# --- packed scans --------------------------------------------------------------------------------


def with_gap(scan: Scan) -> Scan:
    energy, forces = scan.energy.copy(), scan.forces.copy()
    energy[1], forces[1] = np.nan, np.nan
    return replace(scan, energy=energy, forces=forces)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    charged = replace(make_scan("N-N/x.1", 7, 1), charge=-1, multiplicity=2, smiles="")
    sio.write_scan_set(tmp_path / "set.h5", make_set(with_gap(make_scan()), charged))
    return tmp_path / "set.h5"


def test_a_packed_set_reads_back_whole(packed: Path) -> None:
    first, second = with_gap(make_scan()), make_scan("N-N/x.1", 7, 1)
    back = sio.read_scan_set(packed)
    assert (back.name, back.level, back.licence, back.source) == ("mini", "made/up", "MIT", "the tests")
    assert back.provenance == {"seed": 0, "steps": ["a", "b"]}
    assert [scan.name for scan in back] == ["C-O/7", "N-N/x.1"]
    assert [scan.smiles for scan in back] == [first.smiles, ""]
    assert [(scan.charge, scan.multiplicity) for scan in back] == [(0, 1), (-1, 2)]
    assert back.scans[0].identity == first.identity
    np.testing.assert_array_equal(back.scans[0].forces, first.forces)
    np.testing.assert_array_equal(back.scans[1].positions, second.positions)
    assert back.scans[0].labeled.tolist() == [True, False, True, True, True]


def test_a_long_list_of_exclusions_is_kept(packed: Path) -> None:
    facts = {"excluded": [[f"m{k}", "clash: too close"] for k in range(5000)]}
    sio.write_scan_set(packed, replace(sio.read_scan_set(packed), provenance=facts))
    assert sio.read_scan_set(packed).provenance == facts


def test_a_damaged_provenance_is_refused(packed: Path) -> None:
    with h5py.File(packed, "r+") as file:
        del file["provenance"]
        file["provenance"] = "{"
    with pytest.raises(ValueError, match=r"set\.h5: "):
        sio.read_scan_set(packed)


def test_angles_sites_and_cells_read_back(packed: Path) -> None:
    before = sio.read_scan_set(packed)
    scan = before.scans[0]
    angle = replace(scan, name="C-C-O/1", atoms=[0, 1, 2])
    site = replace(scan, name="C/1", atoms=[1], cell=7 * np.eye(3), pbc=[True, True, False])
    sio.write_scan_set(packed, replace(before, scans=(scan, angle, site)))
    after = sio.read_scan_set(packed)
    assert [s.kind for s in after] == ["bond", "angle", "site"]
    assert after.scans[2].cell.tolist() == (7 * np.eye(3)).tolist()
    assert after.scans[2].pbc.tolist() == [True, True, False]
    assert not after.scans[0].pbc.any()


def test_an_empty_set_reads_back(tmp_path: Path) -> None:
    sio.write_scan_set(tmp_path / "none.h5", make_set())
    assert len(sio.read_scan_set(tmp_path / "none.h5")) == 0


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        sio.write_scan_set(tmp_path / name, make_set(make_scan()))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    "dataset",
    [
        "frame/energy",
        "frame/coordinate",
        "coordinates/positions",
        "coordinates/forces",
        "atom/numbers",
        "atom/fragment",
        "scan/charge",
        "scan/multiplicity",
    ],
)
def test_one_changed_number_is_found(packed: Path, dataset: str) -> None:
    with h5py.File(packed, "r+") as file:
        values = file[dataset][...]
        flat = values.reshape(-1)
        flat[0] = -flat[0] if dataset == "atom/fragment" else flat[0] + 1
        if dataset == "frame/coordinate":
            flat[0] -= 1 + 1e-9
        file[dataset][...] = values
    with pytest.raises(ValueError, match=r"set\.h5: the contents are not those that were written"):
        sio.read_scan_set(packed)


@pytest.mark.parametrize("key", ["name", "level", "licence", "source", "identity", "schema"])
def test_a_missing_attribute_is_named(packed: Path, key: str) -> None:
    with h5py.File(packed, "r+") as file:
        del file.attrs[key]
    with pytest.raises(ValueError, match=rf"set\.h5: a part is missing: .*{key}"):
        sio.read_scan_set(packed)


def test_a_missing_array_is_named(packed: Path) -> None:
    with h5py.File(packed, "r+") as file:
        del file["frame/energy"]
    with pytest.raises(ValueError, match=r"set\.h5: a part is missing: .*energy"):
        sio.read_scan_set(packed)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", 3, "schema 3 cannot be read, only schema 2; it was written by a newer sfumato: upgrade"),
        ("schema", 0, "schema 0 cannot be read, only schema 2$"),
        ("schema", "x", "set.h5: "),
        ("format", "other", "not a packed set of scans: format is 'other'"),
        ("level", "", "level must not be empty"),
    ],
)
def test_another_format_or_schema_is_refused(packed: Path, key: str, value: object, message: str) -> None:
    with h5py.File(packed, "r+") as file:
        file.attrs[key] = value
    with pytest.raises(ValueError, match=message):
        sio.read_scan_set(packed)


@pytest.mark.parametrize(
    ("name", "values"), [("offset/atom", [0, 11, 10]), ("offset/frame", [1, 5, 12]), ("offset/frame", [0, 5])]
)
def test_offsets_that_do_not_divide_are_refused(packed: Path, name: str, values: list[int]) -> None:
    with h5py.File(packed, "r+") as file:
        del file[name]
        file[name] = values
    with pytest.raises(ValueError, match=f"{name}(:| does not divide)"):
        sio.read_scan_set(packed)


def test_coordinates_that_end_early_are_refused(packed: Path) -> None:
    with h5py.File(packed, "r+") as file:
        rows = file["coordinates/positions"][:-1]
        del file["coordinates/positions"]
        file["coordinates/positions"] = rows
    with pytest.raises(ValueError, match=r"coordinates/forces: expected 59 rows, got shape \(60, 3\)"):
        sio.read_scan_set(packed)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_packed_file_is_refused(packed: Path, kept: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"set\.h5: damaged, truncated or not an HDF5 file"):
        sio.read_scan_set(packed)


def test_a_packed_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.h5: no such file"):
        sio.read_scan_set(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("energies\n")
    with pytest.raises(ValueError, match=r"text\.h5: damaged, truncated or not an HDF5 file"):
        sio.read_scan_set(tmp_path / "text.h5")


def test_a_write_that_fails_leaves_what_was_there(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = packed.read_bytes()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scans_hdf5, "_write_arrays", fail)
    with pytest.raises(KeyboardInterrupt):
        sio.write_scan_set(packed, make_set(make_scan()))
    assert packed.read_bytes() == before
    assert list(packed.parent.iterdir()) == [packed]


def test_a_packed_file_has_the_permissions_of_any_other(packed: Path) -> None:
    (packed.parent / "other").touch()
    assert packed.stat().st_mode == (packed.parent / "other").stat().st_mode


def test_a_set_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="provenance is not JSON"):
        sio.write_scan_set(tmp_path / "a.h5", replace(make_set(), provenance={"x": float("nan")}))
    with pytest.raises(ValueError, match=r"the folder .*nowhere does not exist"):
        sio.write_scan_set(tmp_path / "nowhere" / "a.h5", make_set())
