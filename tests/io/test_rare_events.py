"""Testing sets of rare events: the published layout, flagged XYZ, packed files, and what is refused."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from sfumato.datasets import named
from sfumato.datasets.published import read_published_set
from sfumato.io.mlearn import read_mlearn
from sfumato.io.rare_events import FORMAT, RareEvents, read_flagged, read_packed, write_packed
from sfumato.io.silicon import TESTING, read_enhanced, read_published, shared_structures
from sfumato.systems import System
from tests import SHARED
from tests.silicon_layout import REAL, crystal, lay_out, needs_real

MLEARN = SHARED / "data" / "mlearn-si"
needs_mlearn = pytest.mark.skipif(not MLEARN.is_dir(), reason=f"the mlearn set of silicon is not in {MLEARN}")


def test_the_published_layout(tmp_path):
    (one,) = read_published(lay_out(tmp_path)).sets
    assert (one.name, len(one), list(one.others)) == ("vacancy", 2, ["DFT_K1", "DFT_K2"])
    assert np.flatnonzero(one.migrating).tolist() == [0]
    assert one.r[:3].tolist() == [0.0, 2.3, 5.5]  # farther than 5 Å is stated as 5.5
    assert np.isnan(one.r[7:]).all()  # nothing migrates in the second structure
    assert one.r_v[0] == 1.1
    assert np.isnan(one.r_v[7:]).all()
    assert one.energy.tolist() == [-30.0, -31.0]
    assert np.isnan(one.others["DFT_K1"][0]).all()  # the Γ point has forces only
    assert np.allclose(one.batch.positions[0], crystal(0).positions[0])


def change(key, value):
    def apply(data):
        place = data
        for part in key[:-1]:
            place = place[part]
        if value is None:
            del place[key[-1]]
        else:
            place[key[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"change": change(["r"], None)}, "'r' is missing, which marks the migrating atoms"),
        ({"change": change(["Forces", "DFT_K4"], None)}, "expected Forces → DFT_K4"),
        (
            {"change": change(["Forces", "DFT_K4", 1], [[0, 0, 0]])},
            r"\(1, 3\) in structure 1 of 7 atoms",
        ),
        ({"change": change(["Forces", "DFT_K1"], [])}, "forces of DFT_K1 for 0 of 2 structures"),
        ({"change": change(["r", 0], [0.0])}, r"r has shape \(1,\) in structure 0 of 7 atoms"),
        ({"change": change(["r_v", 0], ["x"] * 7)}, "r_v, structure 0: not an array of numbers"),
        ({"change": change(["Energies", "DFT_K4"], [1.0])}, "1 energies of DFT_K4 for 2 structures"),
        ({"structures": 1}, "1 structures and labels of 2; first without its counterpart: 1.POSCAR"),
        ({"structures": 3}, "3 structures and labels of 2; first without its counterpart: 2.POSCAR"),
    ],
)
def test_published_sets_that_contradict_themselves(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        read_published(lay_out(tmp_path, **changed))


def test_parts_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="expected a folder Interstitial-RE_Testing_Set or Vacancy-RE"):
        read_published(tmp_path)
    folder = lay_out(tmp_path) / TESTING["vacancy"]
    (folder / "structure_poscars.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="cannot be read as a zip of structures"):
        read_published(tmp_path)
    (folder / "structure_poscars.zip").unlink()
    for k in (0, 1):
        (folder / f"{k}.POSCAR.vasp").write_text("Si\n1.0\n")
    with pytest.raises(ValueError, match=r"0\.POSCAR\.vasp: cannot be read as POSCAR"):
        read_published(tmp_path)
    (folder / "DATA.json").write_text("{")
    with pytest.raises(ValueError, match=r"DATA\.json: cannot be read as JSON"):
        read_published(tmp_path)


def test_a_packed_file_is_the_same(tmp_path):
    found = read_published(lay_out(tmp_path / "sets"))
    write_packed(tmp_path / "x.h5", found)
    again = read_packed(tmp_path / "x.h5")
    assert again.identity == found.identity
    assert named.holds(tmp_path / "x.h5") == "rare events"
    assert named.load_rare_events(tmp_path / "x.h5").identity == found.identity
    with pytest.raises(ValueError, match=r"holds testing sets of rare events .* not scans"):
        named.load(tmp_path / "x.h5")
    with pytest.raises(ValueError, match="bsct-mini: holds scans, not testing sets of rare events"):
        named.load_rare_events("bsct-mini")
    with pytest.raises(ValueError, match=r"does not hold testing sets of rare events"):
        read_packed(named.location("bsct-mini"))
    assert FORMAT.startswith("sfumato-")


def test_some_of_the_structures(tmp_path):
    (one,) = read_published(lay_out(tmp_path)).sets
    last = one.take(np.array([1]))
    assert last.forces.tolist() == one.forces[7:].tolist()
    assert last.others["DFT_K2"][0].tolist() == [-31.1]
    assert (len(last), last.migrating.any()) == (1, False)


def flagged(path, **kinds):
    frames = []
    for defect, flags in kinds.items():
        atoms = Atoms("Si3", [[0, 0, 0], [9.0, 0, 0], [4, 0, 0]], cell=[10, 10, 10], pbc=True)
        atoms.info["defect"] = defect
        if flags is not None:
            atoms.arrays["migrating"] = np.array(flags)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.eye(3))
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


def test_flagged_structures_of_ones_own(tmp_path):
    found = read_flagged(flagged(tmp_path / "mine.extxyz", hop=[True, False, False], still=[False] * 3))
    assert [one.name for one in found.sets] == ["hop", "still"]
    assert found.sets[0].r == pytest.approx([0.0, 1.0, 4.0])  # through the wall of the cell
    assert np.isnan(found.sets[1].r).all()
    with pytest.raises(ValueError, match="structure 0: no column 'migrating'; mark the atoms"):
        read_flagged(flagged(tmp_path / "no.extxyz", hop=None))
    atoms = Atoms("Si", [[0, 0, 0]])
    atoms.arrays["migrating"] = np.array([True])
    ase.io.write(tmp_path / "bare.extxyz", atoms)
    with pytest.raises(ValueError, match="structure 0: no forces; label the structures first"):
        read_flagged(tmp_path / "bare.extxyz")


def test_two_sets_of_one_name_are_refused(tmp_path):
    (one,) = read_published(lay_out(tmp_path)).sets
    with pytest.raises(ValueError, match="needs sets of different defects, got vacancy, vacancy"):
        RareEvents("x", "l", "l", "s", (one, one))


@needs_real
def test_the_named_set_is_imported_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="sfumato data import silicon-rare-events PATH"):
        named.load_rare_events("silicon-rare-events")
    path = named.import_("silicon-rare-events", REAL)
    found = named.load_rare_events("silicon-rare-events")
    assert path.parent == tmp_path
    assert {one.name: int(one.migrating.sum()) for one in found.sets} == {"interstitial": 177, "vacancy": 146}
    assert {one.name: len(one.batch.numbers) for one in found.sets} == {"interstitial": 6500, "vacancy": 6300}
    assert named.get("silicon-rare-events") == path  # here already: no connection
    with pytest.raises(ValueError, match=r"not the contents of|expected a folder"):
        named.import_("silicon-rare-events", lay_out(tmp_path / "other"))
    assert named.load_rare_events("silicon-rare-events").identity == found.identity


@needs_real
def test_the_enhanced_training_sets():
    found = read_enhanced(REAL, "interstitial")
    # Of 200 testing snapshots 36 are published for training, too, and 12 for validation.
    assert found.split.counts() == {"train": 219, "val": 50, "test": 152}
    train = found.take(found.split.where("train"))
    assert train.subset.counts()["interstitial"] == 120
    assert len(train.batch.numbers) == 13693


def test_shared_structures_by_hand():
    one, other = System([14], [[0.0, 0, 0]]), System([14], [[0.0, 0, 0.1]])
    rounded, larger = System([14], [[0.0, 0, 1e-5]]), System([14, 14], [[0.0, 0, 0], [2.0, 0, 0]])
    assert shared_structures([one, other, larger], [rounded]).tolist() == [True, False, False]
    assert shared_structures([one], []).tolist() == [False]


@needs_mlearn
def test_the_mlearn_set():
    found = read_published_set("mlearn-si", MLEARN)
    assert found.split.counts() == {"train": 193, "val": 21, "test": 25}
    assert found.labels.energy[0] == -295.49753016
    assert found.labels.stress[0][0, 0] > 0  # −6.6 kbar of pressure is tension
    assert found.labels.stress[0][0, 1] == pytest.approx(-9.08682588 / 1602.176634)


def test_mlearn_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"training\.json: cannot be read as JSON"):
        read_mlearn(tmp_path)
    (tmp_path / "training.json").write_text('[{"structure": {"sites": []}}]')
    with pytest.raises(ValueError, match=r"training\.json, structure 0: cannot be read: KeyError"):
        read_mlearn(tmp_path)
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a list of structures"):
        read_mlearn(tmp_path)
