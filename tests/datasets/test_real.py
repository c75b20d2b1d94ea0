"""Released sets through conversion, check, energies and batches: what their makers say of them holds."""

from __future__ import annotations

import json
import zipfile
from io import StringIO
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from sfumato.datasets.check import check_frames
from sfumato.datasets.convert import convert
from sfumato.datasets.energies import compositions, fit_atom_energies, isolated_atoms
from sfumato.datasets.loader import Loader, LoaderSettings, rows_of
from sfumato.datasets.sources import SourceSettings
from sfumato.io import read_frame_set
from tests import SHARED

DATA = SHARED / "data"
UNITS = {"energy": "eV", "length": "Å", "forces": "eV/Å"}


def found(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{parts[0]} is not beside this checkout (../shared/data)")
    return path


def three_bpa(**overrides: Any) -> SourceSettings:
    settings: dict[str, Any] = {
        "layout": "extxyz",
        "name": "3bpa-300K",
        "level": "wB97X/6-31G(d)",
        "licence": "MIT",
        "keys": {"energy": "energy", "forces": "forces"},
        "units": UNITS,
        "absent": ["stress"],
        "molecule": "frame",
        "fractions": (0.9, 0.1, 0.0),
    }
    return SourceSettings(**{**settings, **overrides})


def failed(path: Path) -> dict[str, str]:
    return {s.name: s.hint for s in check_frames(path).statements if not s.passed}


# --- 3BPA ----------------------------------------------------------------------------------------


def test_3bpa_is_divided_450_to_50_and_all_one_molecule(tmp_path: Path) -> None:
    path = found("botnet", "dataset_3BPA", "train_300K.xyz")
    done = convert(path, tmp_path / "3bpa.h5", three_bpa())
    assert done.splits == {"train": 450, "val": 50}
    report = check_frames(tmp_path / "3bpa.h5")
    (leak,) = [s for s in report.statements if not s.passed]
    assert leak.name == "shared molecules"
    assert leak.hint.startswith("50 of 50 frames")
    assert 0.8 < report.forces.value < 1.1
    assert report.forces.pairs > 50
    assert report.force_scale == pytest.approx(0.948, abs=1e-3)
    frames = read_frame_set(tmp_path / "3bpa.h5")
    (first, *_) = ase.io.iread(str(path), index=":")
    np.testing.assert_allclose(frames.batch.positions[:27], first.positions, atol=1e-6)
    assert frames.labels.energy[0] == first.get_potential_energy()


@pytest.mark.parametrize(
    ("overrides", "name", "words"),
    [
        # Numbers of eV/Å declared as hartree/bohr: the report must say what they are.
        (
            {"units": {**UNITS, "forces": "hartree/bohr"}},
            "forces and energies",
            "hartree/bohr look like eV/Å",
        ),
        pytest.param({"forces_are": "gradient"}, "forces and energies", "sign", marks=pytest.mark.slow),
        pytest.param(
            {"units": {**UNITS, "length": "bohr"}}, "lengths", "bohr look like", marks=pytest.mark.slow
        ),
    ],
)
def test_3bpa_declared_wrongly_is_found(
    tmp_path: Path, overrides: dict[str, Any], name: str, words: str
) -> None:
    path = found("botnet", "dataset_3BPA", "train_300K.xyz")
    convert(path, tmp_path / "a.h5", three_bpa(**overrides))
    assert words in failed(tmp_path / "a.h5")[name]


def test_3bpa_atoms_are_undetermined_by_one_composition_and_known_from_the_isolated_ones(
    tmp_path: Path,
) -> None:
    folder = found("botnet", "dataset_3BPA")
    convert(folder / "train_300K.xyz", tmp_path / "3bpa.h5", three_bpa())
    rows = rows_of(tmp_path / "3bpa.h5")
    assert fit_atom_energies(compositions(rows)).undetermined == (1, 6, 7, 8)
    atoms = isolated_atoms(folder / "iso_atoms.xyz", three_bpa(keys={"energy": "energy"}))
    assert atoms.energy[6] == pytest.approx(-1029.489, abs=1e-3)
    batch, labels = rows.read()
    binding = (labels.energy - atoms.total(batch)) / 27
    assert -5.5 < binding.min() < binding.max() < -4.5  # eV per atom, as of any organic molecule


def test_3bpa_in_batches(tmp_path: Path) -> None:
    path = found("botnet", "dataset_3BPA", "train_300K.xyz")
    convert(path, tmp_path / "3bpa.h5", three_bpa())
    loader = Loader(tmp_path / "3bpa.h5", "train", LoaderSettings(edges=3000, cutoff=5.0, neighbors=12))
    seen = 0
    for batch, labels in loader.batches(0):
        seen += len(batch)
        net = np.stack([np.bincount(batch.index, c) for c in labels.forces.T])
        assert np.abs(net).max() < 1e-5
    assert seen == 450


# --- silicon -------------------------------------------------------------------------------------


def mlearn(**overrides: Any) -> SourceSettings:
    settings: dict[str, Any] = {
        "layout": "pymatgen",
        "name": "mlearn-si",
        "level": "PBE",
        "licence": "BSD-3-Clause",
        "keys": {
            "energy": "outputs.energy",
            "forces": "outputs.forces",
            "stress": "outputs.virial_stress",
            "subset": "group",
        },
        "units": {**UNITS, "stress": "kbar"},
        "stress_are": "pressure",
        "stress_order": "vasp",
        "molecule": "frame",
    }
    return SourceSettings(**{**settings, **overrides})


def test_mlearn_silicon_holds_vasp_pressures_in_kbar(tmp_path: Path) -> None:
    """Its elastic series decides unit, sign and order: energies are the work of the stress within 1 %."""
    folder = found("mlearn-si")
    files = {"train": folder / "training.json", "test": folder / "test.json"}
    done = convert(files, tmp_path / "si.h5", mlearn())
    assert done.splits == {"train": 214, "test": 25}
    report = check_frames(tmp_path / "si.h5")
    assert report.passed, [s for s in report.statements if not s.passed]
    assert report.stress.value == pytest.approx(1.0, abs=0.01)
    assert report.forces.value == pytest.approx(1.0, abs=0.12)
    assert report.subsets == {"Vacancy": 64, "AIMD-NVT": 100, "Elastic": 61, "Surface": 14}


@pytest.mark.parametrize(
    ("overrides", "name", "words"),
    [
        ({"stress_are": "stress"}, "stress and energies", "opposite"),
        ({"units": {**UNITS, "stress": "GPa"}}, "stress and energies", "another unit"),
        ({"stress_order": "ase"}, "stress components", "order of the six numbers"),
    ],
)
def test_mlearn_silicon_declared_wrongly_is_found(
    tmp_path: Path, overrides: dict[str, Any], name: str, words: str
) -> None:
    path = found("mlearn-si", "training.json")
    convert(path, tmp_path / "si.h5", mlearn(fractions=(1.0, 0.0, 0.0), **overrides))
    assert words in failed(tmp_path / "si.h5")[name]


def test_silicon_rare_events(tmp_path: Path) -> None:
    """Structures and labels lie in two files, here joined into extended XYZ; one crystal is there twice."""
    folder = found("silicon-rare-events", "Interstitial-enhanced_Training_Set")
    data = json.loads((folder / "DATA.json").read_text())
    frames = []
    with zipfile.ZipFile(folder / "structure_poscars.zip") as archive:
        for k, (energy, forces) in enumerate(
            zip(data["Energies"]["DFT_K4"], data["Forces"]["DFT_K4"], strict=True)
        ):
            name = next(n for n in archive.namelist() if n.split("/")[-1] == f"{k}.POSCAR.vasp")
            atoms = ase.io.read(StringIO(archive.read(name).decode()), format="vasp")
            atoms.info["DFT_K4"] = energy
            atoms.arrays["DFT_K4_forces"] = np.array(forces)
            frames.append(atoms)
    ase.io.write(tmp_path / "si.xyz", frames, format="extxyz")
    source = SourceSettings(
        layout="extxyz",
        name="si-rare-events",
        level="PBE",
        licence="see source",
        keys={"energy": "DFT_K4", "forces": "DFT_K4_forces"},  # type: ignore[arg-type]
        units=UNITS,  # type: ignore[arg-type]
        absent=("stress",),
        molecule="frame",
    )
    done = convert(tmp_path / "si.xyz", tmp_path / "si.h5", source)
    assert done.frames == len(frames) == 219
    report = check_frames(tmp_path / "si.h5")
    assert report.forces.value == pytest.approx(1.05, abs=0.1)
    assert [s.name for s in report.statements if not s.passed] == ["duplicates"]
    ((first, second),) = report.repeated
    np.testing.assert_allclose(frames[first].positions, frames[second].positions, atol=1e-3)
    assert read_frame_set(tmp_path / "si.h5").batch.pbc.all()


def test_a_calculator_result_is_read_under_its_own_name(tmp_path: Path) -> None:
    path = found("botnet", "dataset_3BPA", "iso_atoms.xyz")
    atoms = ase.io.read(path, index=0)
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=np.zeros((1, 3)))
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    done = convert(tmp_path / "a.xyz", tmp_path / "a.h5", three_bpa(fractions=(1.0, 0.0, 0.0)))
    assert done.frames == 1
