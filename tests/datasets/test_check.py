"""A good set passes; every way to spoil it is found and named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfumato.datasets.check import check_frames
from sfumato.datasets.consistency import near_pairs, superposed, work_ratios
from sfumato.datasets.energies import AtomEnergies
from sfumato.datasets.loader import rows_of
from sfumato.datasets.sources import GPA
from sfumato.frames import FrameSet
from sfumato.io import write_frame_set
from sfumato.systems import Batch, Floats, Prediction, System
from sfumato.units import BOHR, HARTREE, HARTREE_PER_BOHR, KCAL_PER_MOL
from tests.datasets.made_frames import (
    ARGON,
    ATOMS,
    crystal,
    crystals,
    failed,
    of,
    relabeled,
    rounded,
)

# --- a good set ----------------------------------------------------------------------------------


def test_atoms_on_top_of_each_other_are_named_and_the_rest_is_checked(molecules: FrameSet) -> None:
    batch = replace(molecules.batch, positions=np.zeros_like(molecules.batch.positions))
    report = check_frames(replace(molecules, batch=batch))
    assert failed(report)["lengths"] == "atoms lie on top of each other"
    assert {"clashes", "shared molecules"} <= {s.name for s in report.statements}
    assert report.as_json()["passed"] is False


def test_a_good_set_of_molecules_passes(molecules: FrameSet, tmp_path: Path) -> None:
    report = check_frames(molecules)
    assert failed(report) == {}
    assert {s.name for s in report.statements} >= {"energy unit", "forces and energies", "shared molecules"}
    assert report.passed
    report.require()
    assert report.forces.value == pytest.approx(1.0, abs=0.05)
    assert report.forces.pairs > 20
    assert report.labels == {"energy": 96, "forces": 96, "stress": 0}
    assert report.splits == {"train": 64, "val": 16, "test": 16}
    assert report.elements == ("H", "C", "N", "O")
    assert (report.atoms[0], report.atoms[2], report.molecules, report.compositions) == (3, 8, 6, 6)
    # Fitted to the same molecules, the atoms' energies differ from the table by bond energies alone.
    assert report.atom_energies.energy[8] == pytest.approx(ATOMS[8], abs=60)
    json.dumps(report.as_json(), allow_nan=False)
    write_frame_set(tmp_path / "f.h5", molecules)
    assert check_frames(tmp_path / "f.h5").as_json() == report.as_json()


def test_a_good_set_of_crystals_passes() -> None:
    report = check_frames(crystals())
    assert failed(report) == {}
    assert report.forces.value == pytest.approx(1.0, abs=0.05)
    assert report.stress.value == pytest.approx(1.0, abs=0.05)
    assert any("8 of 8 crystals of val and test" in note for note in report.notes)


# --- units and signs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("energy", "forces", "declared", "expected"),
    [
        # The factor turns right labels into what lies in the file; the declaration is what was said of it.
        (1, 1 / HARTREE_PER_BOHR, {}, {"forces and energies": "declared as eV/Å look like hartree/bohr"}),
        (1, 1 / KCAL_PER_MOL, {}, {"forces and energies": "look like kcal/mol/Å"}),
        (1, BOHR, {}, {"forces and energies": "look like eV/bohr"}),
        (1, -1, {}, {"forces and energies": "sign of a gradient"}),
        (1 / HARTREE, 1, {}, {"energy unit": "declared as eV have the size of all-electron ones in hartree"}),
        (
            1 / KCAL_PER_MOL,
            1 / KCAL_PER_MOL,
            {},
            {"energy unit": "in kcal/mol", "forces and energies": "look like kcal/mol/Å"},
        ),
        (
            KCAL_PER_MOL,
            HARTREE_PER_BOHR / HARTREE_PER_BOHR,
            {"energy": "kcal/mol", "length": "Å", "forces": "eV/Å"},
            {"energy unit": "declared as kcal/mol have the size of all-electron ones in eV"},
        ),
    ],
)
def test_a_wrong_unit_or_sign_is_named(
    molecules: FrameSet, energy: float, forces: float, declared: dict[str, str], expected: dict[str, str]
) -> None:
    spoilt = relabeled(molecules, energy, forces)
    if declared:
        spoilt = replace(spoilt, provenance={"declared": {"units": declared}})
    report = check_frames(spoilt)
    found = failed(report)
    found = {name: hint for name, hint in found.items() if name in ("energy unit", "forces and energies")}
    assert found.keys() == expected.keys()
    for name, words in expected.items():
        assert words in found[name]
    with pytest.raises(ValueError, match="not fit to train on"):
        report.require()


@pytest.mark.parametrize(("factor", "likely"), [(1 / BOHR, "bohr"), (0.1, "nm")])
def test_lengths_in_another_unit_are_named(molecules: FrameSet, factor: float, likely: str) -> None:
    x = np.float32(molecules.batch.positions * factor)
    report = check_frames(replace(molecules, batch=replace(molecules.batch, positions=x)))
    assert f"lengths declared as Å look like {likely}" in failed(report)["lengths"]


def test_energies_that_are_no_all_electron_ones_are_not_judged_by_size(molecules: FrameSet) -> None:
    atoms = AtomEnergies(ATOMS, "a table").total(molecules.batch)
    labels = Prediction(molecules.labels.energy - atoms, molecules.labels.forces)
    report = check_frames(replace(molecules, labels=labels))
    assert report.passed
    assert "energy unit" not in {s.name for s in report.statements}
    assert any(
        "do not tell their unit" in note or "does not tell their unit" in note for note in report.notes
    )


def test_the_size_of_one_composition_is_a_hint_not_a_proof(molecules: FrameSet) -> None:
    methane = relabeled(molecules, 1 / HARTREE, 1 / HARTREE).take(np.arange(16))
    report = check_frames(methane)
    assert report.passed
    assert any("all-electron ones in hartree, or of others by chance" in note for note in report.notes)
    # Forces that contradict the energies make it one.
    found = failed(check_frames(relabeled(molecules, 1 / HARTREE).take(np.arange(16))))
    assert "all-electron ones in hartree" in found["energy unit"]


def test_units_declared_by_another_name_are_understood(molecules: FrameSet) -> None:
    spoilt = relabeled(molecules, forces=1 / HARTREE_PER_BOHR)
    declared = {"declared": {"units": {"energy": "eV", "length": "angstrom", "forces": "eV/angstrom"}}}
    found = failed(check_frames(replace(spoilt, provenance=declared)))
    assert "declared as eV/angstrom look like hartree/bohr" in found["forces and energies"]


def test_what_cannot_be_tested_is_a_note(molecules: FrameSet) -> None:
    report = check_frames(molecules.take(np.arange(0, 96, 16)))  # one frame of each
    assert report.passed
    assert "forces and energies" not in {s.name for s in report.statements}
    assert any("do not tell whether forces and energies" in note for note in report.notes)


@pytest.mark.parametrize(
    ("factor", "words"),
    [(-1.0, "opposite"), (10.0, "another unit"), (0.1, "another unit"), (1 / GPA, "another")],
)
def test_a_wrong_stress_is_named(factor: float, words: str) -> None:
    report = check_frames(relabeled(crystals(), stress=factor))
    assert words in failed(report)["stress and energies"]
    assert report.stress.value == pytest.approx(1 / factor, rel=0.1)


def test_stress_components_in_the_wrong_order_are_named() -> None:
    frames = crystals(strain=0.02, rattle=0.0)
    stress = frames.labels.stress
    assert stress is not None
    wrong = stress.copy()  # xy yz zx read as yz zx xy
    for (a, b), (c, d) in (((1, 2), (0, 1)), ((0, 2), (1, 2)), ((0, 1), (0, 2))):
        wrong[:, a, b] = wrong[:, b, a] = stress[:, c, d]
    labels = Prediction(frames.labels.energy, frames.labels.forces, wrong)
    found = failed(check_frames(replace(frames, labels=labels)))
    assert "order of the six numbers" in found["stress components"]


@pytest.mark.parametrize("sign", [1, -1])
def test_without_strained_pairs_the_sign_of_the_stress_follows_the_volume(sign: int) -> None:
    rng = np.random.default_rng(2)
    base = crystal(rng, 0.0, 0.0)
    systems = []
    for scale in np.linspace(0.9, 1.15, 14):
        x = base.positions * scale + rng.normal(0, 0.25, (4, 3))  # too far apart to be compared
        systems.append(rounded(base, x, cell=base.cell * scale))
    batch = Batch.of(systems)
    labels = ARGON.predict(batch)
    assert labels.stress is not None
    smooth = Prediction(labels.energy, labels.forces * 0, sign * labels.stress)
    words = [str(k) for k in range(14)]
    report = check_frames(of(batch, smooth, words, ["train"] * 14))
    assert any("the sign is tested, the unit is not" in note for note in report.notes)
    assert ("stress sign" in failed(report)) == (sign < 0)


# --- single frames that spoil a set --------------------------------------------------------------


def test_another_zero_of_energy_is_found(molecules: FrameSet) -> None:
    energy = molecules.labels.energy.copy()
    energy[20] += 1000.0
    report = check_frames(replace(molecules, labels=Prediction(energy, molecules.labels.forces)))
    assert "energy outliers" in failed(report)


@pytest.mark.parametrize("shift", [20.0, -20.0])
def test_one_energy_far_from_all_others_of_the_same_atoms_is_found(molecules: FrameSet, shift: float) -> None:
    energy = molecules.labels.energy.copy()
    energy[19] += shift
    report = check_frames(replace(molecules, labels=replace(molecules.labels, energy=energy)))
    assert "lone energies" in failed(report)
    (found,) = [s for s in report.statements if s.name == "lone energies"]
    assert (found.value, found.where) == (1, "frame 19 (CH3OH)")


def test_a_force_explains_a_lone_energy(molecules: FrameSet) -> None:
    energy, forces = molecules.labels.energy.copy(), molecules.labels.forces.copy()
    energy[19] += 20
    forces[molecules.batch.index == 19] *= 50
    report = check_frames(replace(molecules, labels=Prediction(energy, forces)))
    assert "lone energies" not in failed(report)


def test_frames_without_atoms_are_refused(molecules: FrameSet) -> None:
    empty = System(np.zeros(0, dtype=np.int64), np.zeros((0, 3)))
    batch = Batch.of([*molecules.take([0]).batch, empty])
    frames = of(batch, Prediction(np.zeros(2), np.zeros((5, 3))), ["a", "b"], ["train", "val"])
    with pytest.raises(ValueError, match="frame 1 has no atoms"):
        check_frames(frames)


def test_a_file_with_other_contents_than_were_written_is_refused(molecules: FrameSet, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_frame_set(path, molecules)
    with h5py.File(path, "r+") as file:
        file.attrs["level"] = "another level"
    with pytest.raises(ValueError, match="the contents are not those that were written"):
        check_frames(path)


@pytest.mark.parametrize(
    ("atom", "force", "name"),
    [(slice(0, 2), [[60, 0, 0], [-60, 0, 0]], "large forces"), (slice(0, 1), [[0, 0, 0]], "net force")],
)
def test_a_wrong_force_is_found(molecules: FrameSet, atom: slice, force: Any, name: str) -> None:
    forces = molecules.labels.forces.copy()
    forces[atom] = force
    report = check_frames(replace(molecules, labels=Prediction(molecules.labels.energy, forces)))
    (statement,) = [s for s in report.statements if s.name == name]
    assert not statement.passed
    assert statement.where == "frame 0 (CH4)"


def test_atoms_in_one_place_are_found(molecules: FrameSet) -> None:
    x = molecules.batch.positions.copy()
    x[1] = x[0] + [0.25, 0, 0]
    report = check_frames(replace(molecules, batch=replace(molecules.batch, positions=x.astype(np.float32))))
    assert "in 1 frames atoms are closer" in failed(report)["clashes"]


def test_atoms_in_one_place_across_the_boundary_of_a_cell_are_found() -> None:
    frames = crystals()
    x = frames.batch.positions.copy()
    first = next(iter(frames.batch))
    x[1] = np.float32(x[0] + first.cell[0] + [0.2, 0, 0])
    report = check_frames(replace(frames, batch=replace(frames.batch, positions=np.float32(x))))
    (clash,) = [s for s in report.statements if s.name == "clashes"]
    assert (clash.value, clash.where) == (1, "frame 0 (frame 0)")


# --- the parts -----------------------------------------------------------------------------------


def test_superposition_undoes_a_rotation() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 7, 3))
    a -= a.mean(axis=1, keepdims=True)
    turns = Rotation.random(5, random_state=0).as_matrix()
    b = a @ turns
    np.testing.assert_allclose(b @ superposed(a, b), a, atol=1e-12)
    mirrored = a * [1, 1, -1]
    assert np.linalg.det(superposed(a, mirrored)) == pytest.approx(np.ones(5))


def harmonic(batch: Batch, reference: Floats, stiffness: Floats) -> Prediction:
    """A quadratic surface around one structure."""
    n = reference.size
    x = batch.positions.reshape(-1, n) - reference.ravel()
    return Prediction(0.5 * np.einsum("si,ij,sj->s", x, stiffness, x), (-x @ stiffness).reshape(-1, 3))


@pytest.mark.parametrize("spoil", [1.0, 51.4, -1.0, 0.02])
def test_on_a_quadratic_surface_the_ratio_is_exact(spoil: float) -> None:
    rng = np.random.default_rng(0)
    reference = 3.0 * np.stack(np.meshgrid(*[[0, 1]] * 3), axis=-1).reshape(-1, 3)
    root = rng.normal(size=(24, 24))
    cell = 6.0 * np.eye(3)
    move = rng.normal(0, 0.05, (40, 8, 3))
    move -= move.mean(axis=1, keepdims=True)  # no drift, against which the pairs are freed
    batch = Batch.of([System([18] * 8, np.float32(reference + x), cell, [True] * 3) for x in move])
    labels = harmonic(batch, reference, root @ root.T)
    forces = labels.forces.reshape(40, 8, 3)
    forces = (forces - forces.mean(axis=1, keepdims=True)).reshape(-1, 3)
    frames = of(batch, Prediction(labels.energy, forces / spoil), [str(k) for k in range(40)], ["train"] * 40)
    rows = rows_of(frames)
    pairs = near_pairs(rows, np.zeros(40, dtype=np.int64), rng)
    ratio, _ = work_ratios(pairs)
    assert ratio.value == pytest.approx(spoil, rel=1e-3)
    assert ratio.known


def test_a_set_without_frames_is_refused(molecules: FrameSet) -> None:
    with pytest.raises(ValueError, match="no frames to check"):
        check_frames(molecules.take([]))


def test_frames_without_forces_are_counted_and_not_judged(molecules: FrameSet) -> None:
    labels = Prediction(molecules.labels.energy, np.full_like(molecules.labels.forces, np.nan))
    report = check_frames(replace(molecules, labels=labels, absent=("forces",)))
    assert report.labels["forces"] == 0
    assert report.passed
    assert "no frame has forces" in report.notes
    assert not {"forces and energies", "large forces", "net force"} & {s.name for s in report.statements}
    assert np.isnan(report.force_scale)
    assert report.as_json()["force_scale"] is None
