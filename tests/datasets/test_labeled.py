"""What `sfumato label` writes is used as it is; for other files there is a declaration to complete."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import molecule

from sfumato.campaigns.label import label_structures
from sfumato.cli import main
from sfumato.datasets.convert import read_source
from sfumato.datasets.labeled import declaration, read_labeled, require_format, template
from sfumato.datasets.scans_xyz import read_scans_xyz, scanned_bond, write_scans_xyz
from sfumato.io import Molecule, read_frame_set, read_scan_set, write_scan_set, write_systems
from sfumato.potentials.engines.ase import ASE
from sfumato.systems import Batch, Prediction, System
from tests import made_runs
from tests.protocols.bsct.test_kinds import scans

EMT = ASE("ase.calculators.emt:EMT")


def sfumato(*words):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, words)))
    return ended.value.code


def rattled(name, count=4):
    atoms = molecule(name)
    rng = np.random.default_rng(3)
    return [
        System(atoms.numbers, np.float32(atoms.positions + 0.05 * rng.standard_normal(atoms.positions.shape)))
        for _ in range(count)
    ]


def stretched(name="CH3OH", steps=9):
    """Frames of a molecule whose C–O bond is pulled, and its two atoms."""
    atoms = molecule(name)
    c, o = (int(np.flatnonzero(atoms.numbers == z)[0]) for z in (6, 8))
    axis = atoms.positions[o] - atoms.positions[c]
    axis /= np.linalg.norm(axis)
    near = np.linalg.norm(atoms.positions - atoms.positions[o], axis=1)
    side = near < np.linalg.norm(atoms.positions - atoms.positions[c], axis=1)
    return [System(atoms.numbers, atoms.positions + 0.1 * k * side[:, None] * axis) for k in range(steps)], (
        c,
        o,
    )


@pytest.fixture
def labeled(tmp_path, monkeypatch):
    """A file of two molecules that `sfumato label` has written."""
    monkeypatch.chdir(tmp_path)
    systems = [*rattled("CH3OH"), *rattled("CH3CHO")]
    names = [{"name": f"m{k}"} for k in range(len(systems))]
    write_systems("in.xyz", systems, info=names)
    assert sfumato("label", "in.xyz", "--engine", "ase", "--level", EMT.spec, "-o", "out.xyz") == 0
    return systems


def test_labels_are_checked_measured_and_converted_without_a_declaration(labeled, capsys):
    capsys.readouterr()
    assert sfumato("data", "check", "out.xyz") in (0, 1)
    assert "8 frames of 2 molecules" in " ".join(capsys.readouterr().out.split())
    words = ("--model", "lj", "--data", "out.xyz", "--turned", "0")
    assert sfumato("run", "errors", *words, "--out", "r") == 0
    said = capsys.readouterr().out
    assert f"out · split test · {EMT.spec} · 8 frames" in " ".join(said.split())
    assert sfumato("report", "r") == 0  # reads the file again
    assert sfumato("data", "convert", "out.xyz", "-o", "set.h5") == 0
    found = read_frame_set("set.h5")
    assert (len(found), found.level) == (8, EMT.spec)
    expected = EMT._made[0].predict(Batch.of(labeled)).require()
    np.testing.assert_allclose(found.labels.energy, expected.energy, atol=1e-6)
    np.testing.assert_allclose(found.labels.forces, expected.forces, atol=1e-5)


def test_the_ending_says_the_format(labeled, capsys):
    words = ("label", "in.xyz", "--engine", "ase", "--level", EMT.spec, "--store", "out.xyz.campaign")
    assert sfumato(*words, "-o", "out.h5") == 0
    packed, plain = read_frame_set("out.h5"), read_labeled("out.xyz", declaration("out.xyz"))
    assert packed.labels.energy.tolist() == plain.labels.energy.tolist()
    capsys.readouterr()
    assert sfumato(*words, "-o", "out.sdf") == 2
    assert "the ending says how to write: .xyz, .extxyz, .h5, .hdf5" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"did you mean '\.xyz'"):
        require_format(Path("a.xzy"))


def test_files_of_others_declare_nothing_however_alike(labeled, tmp_path):
    text = (tmp_path / "out.xyz").read_text()
    assert declaration("out.xyz").level == EMT.spec
    for k, (old, new) in enumerate(
        [
            (" charge=0", ""),
            (f' level="{EMT.spec}"', ""),
            ("energy=", "REF_energy="),
            (" pbc=", " dipole=1 pbc="),
            (f' level="{EMT.spec}"', f' level="{EMT.spec}" units="hartree"'),
        ]
    ):
        other = tmp_path / f"other{k}.xyz"
        other.write_text(text.replace(old, new))
        assert declaration(other) is None
    assert declaration("absent.xyz") is None
    assert declaration(tmp_path) is None


def test_several_levels_of_theory_are_no_set(labeled, tmp_path):
    text = (tmp_path / "out.xyz").read_text()
    head, _, tail = text.rpartition(EMT.spec)
    (tmp_path / "mixed.xyz").write_text(head + "PBE" + tail)
    with pytest.raises(ValueError, match="mixed levels do not make one surface"):
        read_labeled("mixed.xyz", declaration("mixed.xyz"))


# --- scans


def test_labeled_frames_of_a_stretched_bond_are_a_scan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frames, (c, o) = stretched()
    order = [4, 0, 1, 2, 3, 8, 7, 6, 5]  # as they may come
    molecules = [Molecule(str(k), frames[k]) for k in order]
    label_structures(molecules, EMT, tmp_path / "pull.extxyz", store=tmp_path / "store")
    found = read_scans_xyz("pull.extxyz")
    (scan,) = found
    assert scan.name == "C-O/pull-0"
    assert set(scan.atoms.tolist()) == {c, o}
    assert np.diff(scan.coordinate) == pytest.approx(0.1)
    assert scan.fragment[c] != scan.fragment[o]
    expected = EMT._made[0].predict(Batch.of(frames)).require()
    np.testing.assert_allclose(scan.energy, expected.energy, atol=1e-8)
    assert sfumato("run", "bsct", "--model", EMT.spec, "--data", "pull.extxyz", "--out", "r") == 0
    assert "1/1" in capsys.readouterr().out
    assert sfumato("report", "r") == 0


def test_structures_that_are_not_scans_say_what_else_there_is(labeled, capsys):
    assert sfumato("run", "bsct", "--model", "lj", "--data", "out.xyz") == 2
    said = capsys.readouterr().err
    assert "structures 0 to 3 are not a bond scan: 4 structures of the same atoms" in said
    assert "sfumato run errors --data out.xyz" in said


def test_parts_that_turn_are_not_a_bond_scan():
    frames, (c, o) = stretched()
    positions = np.array([system.positions for system in frames])
    assert set(scanned_bond(positions)[:2]) == {c, o}
    bent = positions.copy()
    bent[:, o, 2] += 0.02 * np.arange(len(frames))
    with pytest.raises(ValueError, match=r"not two parts|no pair of atoms"):
        scanned_bond(bent)
    with pytest.raises(ValueError, match="not two parts"):
        scanned_bond(np.array([positions[0]] * 5))


@pytest.mark.parametrize("kind", ["bond", "angle", "torsion"])
def test_scans_written_as_xyz_come_back_whatever_is_scanned(tmp_path, kind):
    data = made_runs.make_run().data if kind == "bond" else scans(kind)
    write_scans_xyz(tmp_path / "scans.xyz", data)
    found = read_scans_xyz(tmp_path / "scans.xyz")
    assert (len(found), found.level) == (len(data), data.level)
    for one, other in zip(found, data, strict=True):
        assert (one.name, one.kind) == (other.name, other.kind)
        for part in ("positions", "coordinate", "energy", "forces", "atoms", "fragment"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_frames_without_a_label_are_not_written(tmp_path):
    scan = made_runs.diatomic("C-C/a")
    energy = np.array(scan.energy)
    energy[[3, 7]] = np.nan
    data = made_runs.ScanSet("one", "Morse", "CC0-1.0", "made by hand", [replace(scan, energy=energy)])
    write_scans_xyz(tmp_path / "one.xyz", data)
    (found,) = read_scans_xyz(tmp_path / "one.xyz")
    assert len(found) == len(scan) - 2


def test_scans_are_built_in_the_format_of_the_ending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_systems("m.xyz", [stretched()[0][0]], info=[{"name": "methanol"}])
    words = (
        "scan",
        "build",
        "m.xyz",
        "--engine",
        "ase",
        "--level",
        EMT.spec,
        "--frames",
        "6",
        "--store",
        "s",
    )
    assert sfumato(*words, "-o", "a.h5") == 0
    assert sfumato(*words, "-o", "a.xyz") == 0
    packed, plain = read_scan_set(tmp_path / "a.h5"), read_scans_xyz("a.xyz")
    assert [scan.name for scan in plain] == [scan.name for scan in packed]
    np.testing.assert_array_equal(plain.scans[0].energy, packed.scans[0].energy)
    assert sfumato(*words, "-o", "a.sdf") == 2


def test_label_and_scan_build_end_alike_where_a_molecule_cannot_be_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    systems = [stretched()[0][0]] * 2
    write_systems("m.xyz", systems, info=[{"name": "same"}, {"name": "same"}])  # the second is rejected
    words = ("m.xyz", "--engine", "ase", "--level", EMT.spec, "--store", "s")
    assert sfumato("label", *words, "-o", "l.xyz") == 1
    assert sfumato("scan", "build", *words, "--frames", "6", "-o", "s.h5") == 1


# --- a declaration to complete


def test_a_template_names_what_is_there_and_is_refused_until_it_is_complete(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    system = rattled("H2O", 1)[0]
    text = write_and_read(tmp_path / "theirs.xyz", system)
    (tmp_path / "theirs.xyz").write_text(
        text.replace("energy=", "REF_energy=").replace("forces:R", "REF_forces:R")
    )
    assert sfumato("data", "convert", "theirs.xyz", "--template", "t.yaml") == 0
    written = (tmp_path / "t.yaml").read_text()
    assert "energy: REF_energy" in written
    assert "forces: REF_forces" in written
    assert "# in the first frame: " in written
    assert yaml.safe_load(written)["absent"] == ["stress"]
    capsys.readouterr()
    assert sfumato("data", "convert", "theirs.xyz", "--source", "t.yaml", "-o", "x.h5") == 2
    assert "still to be filled in (???): level, licence, units" in capsys.readouterr().err
    assert sfumato("data", "convert", "theirs.xyz", "--template", "t.yaml") == 2  # is there already
    done = written.replace("level: ???", "level: PBE").replace("licence: ???", "licence: MIT")
    done = done.replace("energy: ???", "energy: eV").replace("length: ???", "length: Å")
    done = done.replace("forces: ???", "forces: eV/Å").replace("[0.8, 0.1, 0.1]", "[1, 0, 0]")
    (tmp_path / "t.yaml").write_text(done)
    assert read_source("t.yaml").keys.energy == "REF_energy"
    assert sfumato("data", "convert", "theirs.xyz", "--source", "t.yaml", "-o", "x.h5") == 0
    assert read_frame_set("x.h5").level == "PBE"


def write_and_read(path, system):
    labels = Prediction(np.array([-1.0]), np.zeros((len(system), 3)))
    write_systems(path, [system], labels)
    return path.read_text()


def test_every_setting_of_a_template_is_one_that_exists(tmp_path):
    path = tmp_path / "a.xyz"
    write_and_read(path, rattled("H2O", 1)[0])
    text = template(path).replace("length: ???", "length: Å").replace("forces: ???", "forces: eV/Å")
    (tmp_path / "t.yaml").write_text(text.replace("???", "eV"))
    assert read_source(tmp_path / "t.yaml").units.length == "Å"
    with pytest.raises(ValueError, match="no such file"):
        template(tmp_path / "b.xyz")


@pytest.mark.parametrize(
    "command", [("data", "check", "a.xyz"), ("run", "errors", "--model", "lj", "--data", "a.xyz")]
)
def test_whoever_needs_a_declaration_is_told_how_to_begin_one(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    write_and_read(tmp_path / "a.xyz", rattled("H2O", 1)[0])
    assert sfumato(*command) == 2
    assert "sfumato data convert a.xyz --template" in capsys.readouterr().err


def test_a_packed_file_of_scans_is_still_one(tmp_path):
    write_scan_set(tmp_path / "a.h5", made_runs.make_run().data)
    assert declaration(tmp_path / "a.h5") is None
