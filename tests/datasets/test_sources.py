"""Extended XYZ as declared, and what every layout shares: units, molecules, splits, memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato.datasets.convert import Conversion, convert, hill_formula
from sfumato.datasets.sources import GPA, SourceSettings, read_frames, unit
from sfumato.frames import FrameSet
from sfumato.io import read_frame_set
from sfumato.units import BOHR, HARTREE, KCAL_PER_MOL
from tests import ROOT

WATER = np.array([[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])


def settings(**overrides: Any) -> SourceSettings:
    """Of an extended XYZ file with energy and forces in eV and Å."""
    found: dict[str, Any] = {
        "layout": "extxyz",
        "name": "made",
        "level": "PBE",
        "licence": "CC0-1.0",
        "keys": {"energy": "energy", "forces": "forces"},
        "units": {"energy": "eV", "length": "Å", "forces": "eV/Å"},
        "absent": ["stress"],
        "molecule": "frame",
        "fractions": (1.0, 0.0, 0.0),
    }
    return SourceSettings(**{**found, **overrides})


def write_xyz(path: Path, comments: list[str], columns: str = "forces:R:3") -> Path:
    """Write water with forces ±(1, 2, 3) once for each comment."""
    lines = []
    for comment in comments:
        lines += ["3", f'Properties=species:S:1:pos:R:3:{columns} {comment} pbc="F F F"']
        for symbol, x, sign in zip("OHH", WATER, (1, -1, 0)):
            lines.append(f"{symbol} {x[0]} {x[1]} {x[2]} {sign * 1.0} {sign * 2.0} {sign * 3.0}")
    path.write_text("\n".join(lines) + "\n")
    return path


def converted(path: Any, source: SourceSettings, tmp_path: Path) -> tuple[FrameSet, Conversion]:
    done = convert(path, tmp_path / "out.h5", source)
    frames = read_frame_set(tmp_path / "out.h5")
    assert done.identity == frames.identity
    assert done.frames == len(frames)
    return frames, done


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "name", "size"),
    [
        ("energy", "hartree", 27.211386),
        ("energy", "rydberg", 13.605693),
        ("forces", "hartree/bohr", 51.422067),
        ("forces", "kcal/mol/Å", 0.0433641),
        ("forces", "kJ/mol/nm", 0.001036427),
        ("stress", "GPa", 1 / 160.21766),
        ("stress", "kbar", 1 / 1602.1766),
        ("stress", "hartree/bohr³", 183.6315),
        ("virial", "hartree", 27.211386),
    ],
)
def test_units_have_their_known_sizes(quantity: Any, name: str, size: float) -> None:
    assert unit(quantity, name) == pytest.approx(size, rel=2e-6)


@pytest.mark.parametrize(
    ("quantity", "name", "message"),
    [
        ("energy", "", "declare the unit of the energy"),
        ("energy", "kcal", "'kcal' is not a unit of energy known here; did you mean 'kcal/mol'"),
        ("forces", "eV", "declare the unit of the energy"),
        ("forces", "eV/A", "'A' is not a unit of length"),
        ("stress", "kB", "did you mean 'kbar'|valid"),
    ],
)
def test_an_unknown_unit_names_what_is_known(quantity: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unit(quantity, name)


@pytest.mark.parametrize("name", ["x/../../../escaped", "..", "", "a\\b", "a\nb"])
def test_the_name_of_a_set_is_not_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="must be a name"):
        settings(name=name)
    assert settings(name="C–H bonds, 300 K").name == "C–H bonds, 300 K"


# --- extended XYZ --------------------------------------------------------------------------------


def test_declared_units_and_keys_are_used(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["E=-76.4 charge=-1 multiplicity=2"], "minus_f:R:3")
    source = settings(
        keys={"energy": "E", "forces": "minus_f"},
        units={"energy": "hartree", "length": "bohr", "forces": "kcal/mol/Å"},
        forces_are="gradient",
    )
    frames, done = converted(path, source, tmp_path)
    assert frames.labels.energy[0] == pytest.approx(-76.4 * HARTREE, rel=1e-15)
    np.testing.assert_allclose(frames.batch.positions, WATER * BOHR, atol=1e-7)
    expected = -np.array([[1, 2, 3], [-1, -2, -3], [0, 0, 0]]) * KCAL_PER_MOL
    np.testing.assert_allclose(frames.labels.forces, expected, rtol=1e-7)
    assert (frames.batch.charge[0], frames.batch.multiplicity[0]) == (-1, 2)
    assert frames.labels.stress is None
    assert frames.absent == ("stress",)
    assert not any("charge" in note for note in done.notes)
    assert frames.provenance["declared"]["units"]["forces"] == "kcal/mol/Å"
    assert frames.provenance["converted from"]["all"]["file"] == "a.xyz"


@pytest.mark.parametrize(
    ("header", "overrides", "charge", "multiplicity"),
    [
        ("total_charge=1 total_spin=2", {}, 1, 2),
        ("Q=-1 spin=0", {"multiplicity_is": "2S"}, -1, 1),
        ("charge=0 spin=0.5", {"multiplicity_is": "S"}, 0, 2),
        ("ion=2 open=3", {"keys": {"energy": "energy", "charge": "ion", "multiplicity": "open"}}, 2, 3),
        (
            "charge=7 ion=2 open=2",
            {
                "keys": {"energy": "energy", "charge": "ion", "multiplicity": "open"},
                "multiplicity_is": "2S",
            },
            2,
            3,
        ),
    ],
)
def test_charge_and_spin_under_other_names_and_in_other_senses(
    tmp_path: Path, header: str, overrides: dict[str, Any], charge: int, multiplicity: int
) -> None:
    path = write_xyz(tmp_path / "a.xyz", [f"energy=-1 {header}"])
    frames, done = converted(path, settings(**{"absent": ["forces", "stress"], **overrides}), tmp_path)
    assert (frames.batch.charge[0], frames.batch.multiplicity[0]) == (charge, multiplicity)
    assert not any("state no" in note for note in done.notes)


def test_a_spin_of_zero_says_what_to_declare(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=-1 charge=0 spin=0"])
    with pytest.raises(ValueError, match=r"spin is 0, but means 2S.1 here.*multiplicity_is: 2S or S"):
        convert(path, tmp_path / "out.h5", settings())


@pytest.mark.parametrize("bad", ["0\nenergy=0\n", "1\nProperties=species:S:1:pos:R:3 energy=0\nX 0 0 0\n"])
def test_a_frame_without_atoms_or_with_a_ghost_is_refused_or_left_out(tmp_path: Path, bad: str) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=-1", "energy=-2"])
    path.write_text(bad + path.read_text())
    with pytest.raises(ValueError, match=r"structure 0: .*; leave it out with unusable: leave out"):
        convert(path, tmp_path / "out.h5", settings())
    frames, done = converted(path, settings(unusable="leave out"), tmp_path)
    assert len(frames) == 2
    assert [where for where, _ in done.left_out] == ["structure 0"]


def test_several_energies_under_one_key_are_refused(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ['energy="-1 -2"'])
    with pytest.raises(ValueError, match="expected one number under 'energy'"):
        convert(path, tmp_path / "out.h5", settings())


@pytest.mark.parametrize("order", ["ase", "vasp"])
def test_nine_numbers_of_a_stress_are_not_reordered(tmp_path: Path, order: str) -> None:
    path = write_xyz(tmp_path / "a.xyz", ['energy=-1 Lattice="9 0 0 0 9 0 0 0 9" stress="1 6 5 6 2 4 5 4 3"'])
    source = settings(
        keys={"energy": "energy", "forces": "forces", "stress": "stress"},
        units={"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å³"},
        stress_are="stress",
        stress_order=order,
        absent=[],
    )
    path.write_text(path.read_text().replace('pbc="F F F"', 'pbc="T T T"'))
    frames, _ = converted(path, source, tmp_path)
    assert frames.labels.stress is not None
    np.testing.assert_array_equal(frames.labels.stress[0], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"keys": {"energy": "REF_energy", "forces": "forces"}},
            "no 'REF_energy'; the keys that are there: ",
        ),
        ({"keys": {"energy": "energy", "forces": "REF_forces"}}, r"'energy', 'forces', .*set keys\.forces"),
        ({"keys": {"forces": "forces"}}, "name the key of the energy"),
        ({"keys": {"energy": "energy"}}, r"name the key of the forces, or declare it: absent: \[forces\]"),
        ({"absent": []}, r"name the key of the stress, or declare it: absent: \[stress\]"),
        ({"units": {"energy": "eV", "length": "Å"}}, "declare the unit of the forces"),
        ({"keys": {"energy": "energy", "forces": "forces", "stress": "s"}}, "stress_are: declare"),
        ({"keys": {"energy": "energy", "forces": "forces", "split": "part"}}, "'part'.*set keys.split"),
        ({"keys": {"energy": "energy", "forces": "forces", "level": "tag"}}, "level: 'a' in a set at 'PBE'"),
        ({"keys": {"energy": "energy", "forces": "forces", "split": "tag"}}, "'a' is not a split"),
        ({"keys": {"energy": "energy", "forces": "pos3"}}, r"forces: there is no 'pos3'"),
        ({"layout": "pymatgen"}, "cannot be read"),
        ({"level": ""}, "level must not be empty"),
    ],
)
def test_what_is_missing_or_not_declared_is_refused(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=-1.0 tag=a"])
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "out.h5", settings(**overrides))
    assert [p.name for p in tmp_path.iterdir()] == ["a.xyz"]


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="forces_unit"):
        settings(forces_unit="eV/Å")


def test_mixed_levels_of_theory_are_refused(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=-1.0 functional=PBE", "energy=-2.0 functional=r2SCAN"])
    with pytest.raises(ValueError, match=r"structure 1: mixed levels .* 'r2SCAN', but 'PBE' in structure 0"):
        convert(path, tmp_path / "out.h5", settings())


def test_a_label_that_is_not_finite_stops_or_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=-1.0", "energy=nan", "energy=-3.0"])
    with pytest.raises(
        ValueError, match=r"structure 1: the energy is not finite; leave it out with unusable"
    ):
        convert(path, tmp_path / "out.h5", settings())
    frames, done = converted(path, settings(unusable="leave out"), tmp_path)
    assert frames.labels.energy.tolist() == [-1.0, -3.0]
    assert done.left_out == (("structure 1", "the energy is not finite"),)
    assert frames.provenance["left out"]["frames"] == 1
    assert "1 frames were left out" in done.notes
    nothing = write_xyz(tmp_path / "b.xyz", ["energy=nan"])
    with pytest.raises(ValueError, match="no frame that could be used"):
        convert(nothing, tmp_path / "b.h5", settings(unusable="leave out"))


def test_labels_declared_absent_may_lack_in_some_frames_only(tmp_path: Path) -> None:
    path = write_xyz(
        tmp_path / "a.xyz",
        ['energy=1 strain="1 0 0 0 2 0 0 0 3" Lattice="9 0 0 0 9 0 0 0 9"', "energy=2"],
    )
    source = settings(
        keys={"energy": "energy", "forces": "forces", "stress": "strain"},
        units={"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "GPa"},
        stress_are="stress",
    )
    frames, done = converted(path, source, tmp_path)
    assert frames.has("stress").tolist() == [True, False]
    assert "1 frames have no stress" in done.notes
    assert frames.labels.stress is not None
    np.testing.assert_allclose(frames.labels.stress[0], np.diag([1, 2, 3]) * GPA)


def test_a_stress_without_a_volume_is_refused(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ['energy=1 strain="1 0 0 0 2 0 0 0 3"'])
    source = settings(
        keys={"energy": "energy", "forces": "forces", "stress": "strain"},
        units={"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "GPa"},
        stress_are="stress",
    )
    with pytest.raises(ValueError, match=r"structure 0: stress: .*no cell with a volume"):
        convert(path, tmp_path / "out.h5", source)


def test_a_broken_file_names_the_place(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=1", "energy=2"])
    path.write_text(path.read_text().replace("H 0.0 -0.76", "H 0.0 x-0.76", 1))
    with pytest.raises(ValueError, match=r"a\.xyz, structure 0: it cannot be read"):
        convert(path, tmp_path / "out.h5", settings())
    with pytest.raises(ValueError, match="no such file"):
        list(read_frames(tmp_path / "no.xyz", settings()))


def test_far_away_atoms_that_float32_would_move_are_refused(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=1"])
    path.write_text(path.read_text().replace("O 0.0 0.0", "O 5000.0001 0.0"))
    with pytest.raises(ValueError, match=r"positions reach 5e.*center the structure"):
        convert(path, tmp_path / "out.h5", settings())


# --- molecules and splits ------------------------------------------------------------------------


def test_the_rule_that_names_molecules_is_stated(tmp_path: Path) -> None:
    path = write_xyz(tmp_path / "a.xyz", ["energy=1 name=x smiles=O", "energy=2 name=y smiles=O"])
    for overrides, names, words in [
        ({"molecule": "composition"}, ("H2O",), "the composition"),
        ({"molecule": ""}, ("O",), "what it has under 'smiles'"),
        ({"molecule": "frame"}, ("structure 0", "structure 1"), "itself"),
        (
            {"molecule": "", "keys": {"energy": "energy", "forces": "forces", "molecule": "name"}},
            ("x", "y"),
            "what it has under 'name'",
        ),
    ]:
        frames, done = converted(path, settings(**overrides), tmp_path)
        assert frames.molecule.names == names
        assert words in done.notes[0]
    plain = write_xyz(tmp_path / "b.xyz", ["energy=1"])
    assert converted(plain, settings(molecule=""), tmp_path)[0].molecule.names == ("H2O",)


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        ([8, 1, 1], "H2O"),
        ([6, 1, 8, 1, 1, 1], "CH4O"),
        ([14, 7, 35], "BrNSi"),
        ([11, 17], "ClNa"),
        ([1], "H"),
    ],
)
def test_hill_formulas(numbers: list[int], formula: str) -> None:
    assert hill_formula(np.array(numbers)) == formula


def test_splits_come_from_a_key_from_files_or_from_a_seed(tmp_path: Path) -> None:
    comments = [f"energy={k} split={'train' if k % 3 else 'test'}" for k in range(9)]
    path = write_xyz(tmp_path / "a.xyz", comments)
    keys = {"energy": "energy", "forces": "forces", "split": "split"}
    frames, _ = converted(path, settings(keys=keys), tmp_path)
    assert list(frames.split) == ["test" if k % 3 == 0 else "train" for k in range(9)]
    frames, done = converted({"train": path, "val": path}, settings(), tmp_path)
    assert done.splits == {"train": 9, "val": 9}
    assert frames.molecule.names[9] == "val structure 0"
    frames, done = converted(path, settings(fractions=(2 / 3, 1 / 3, 0)), tmp_path)
    assert done.splits == {"train": 6, "val": 3}
    with pytest.raises(ValueError, match="'H2O' is in two splits; put it in one, or name"):
        convert({"train": path, "val": path}, tmp_path / "b.h5", settings(molecule="composition"))
    with pytest.raises(ValueError, match=r"'dev' is not a split"):
        convert({"dev": path}, tmp_path / "b.h5", settings())


# --- memory --------------------------------------------------------------------------------------

PEAK = """
import resource, sys
from pathlib import Path
from sfumato.datasets.convert import convert
from tests.datasets.test_sources import settings
convert(sys.argv[1], sys.argv[2], settings())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for frames in (2000, 12000):
        path = tmp_path / f"{frames}.xyz"
        write_xyz(path, ["energy=1"] * frames)
        run = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), str(tmp_path / "out.h5")],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        peaks.append(int(run.stdout))
    assert peaks[1] - peaks[0] < 40, f"MiB at 2,000 and 12,000 frames: {peaks}"
