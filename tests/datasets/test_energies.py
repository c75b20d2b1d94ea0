"""Energies of atoms: exact where the compositions determine them, honest where they do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfumato.datasets import energies
from sfumato.datasets.energies import (
    AtomEnergies,
    compositions,
    fit_atom_energies,
    isolated_atoms,
    lone_energies,
)
from sfumato.datasets.loader import rows_of
from sfumato.datasets.sources import SourceSettings
from sfumato.frames import Category, FrameSet
from sfumato.systems import Batch, Prediction, System
from sfumato.units import HARTREE

TABLE = {1: -13.6, 6: -1029.5, 8: -2042.0}


def frames_of(
    contents: list[list[int]], energy: list[float], forces: float = 1.0, split: str = "train"
) -> FrameSet:
    systems = [System(z, np.float32(np.arange(3 * len(z)).reshape(-1, 3))) for z in contents]
    batch = Batch.of(systems)
    return FrameSet(
        name="made",
        level="none",
        licence="none",
        source="",
        batch=batch,
        labels=Prediction(np.array(energy), np.full((len(batch.numbers), 3), forces)),
        molecule=Category.of(map(str, range(len(batch)))),
        subset=Category.of(["all"] * len(batch)),
        split=Category.of([split] * (len(batch) - 1) + ["test"]),
    )


def total(numbers: list[int]) -> float:
    return sum(TABLE[z] for z in numbers)


def test_independent_compositions_give_the_atoms_exactly() -> None:
    contents = [[6, 1, 1, 1, 1], [8, 1, 1], [6, 8], [6, 8, 8], [8, 1]]
    found = compositions(rows_of(frames_of(contents, [total(z) for z in contents])))
    assert found.elements == (1, 6, 8)
    fit = fit_atom_energies(found)
    assert fit.energy == pytest.approx(TABLE, rel=1e-12)
    assert fit.undetermined == ()
    assert fit.origin == "least squares over 4 frames of 4 compositions"


def test_the_fit_is_that_of_all_frames_not_of_all_compositions() -> None:
    contents = [[1], [1], [1], [1, 1], [1]]  # the last one is in the test split
    energy = [-1.0, -1.0, -4.0, -2.0, 99.0]
    fit = fit_atom_energies(compositions(rows_of(frames_of(contents, energy))))
    assert fit.energy[1] == pytest.approx((-1 - 1 - 4 - 2 * 2) / (1 + 1 + 1 + 4))
    everything = fit_atom_energies(compositions(rows_of(frames_of(contents, energy)), None))
    assert everything.energy[1] == pytest.approx((-1 - 1 - 4 + 99 - 2 * 2) / 8)


def test_what_compositions_do_not_determine_is_of_least_norm_and_named() -> None:
    """Ethene and propene fix 'CH2' only: the least norm puts E·n/Σn² on each, for C 1 and H 2 of 5."""
    contents = [[6, 1, 1] * 2, [6, 1, 1] * 3, [8, 8], [8]]
    unit = total([6, 1, 1])
    fit = fit_atom_energies(compositions(rows_of(frames_of(contents, [2 * unit, 3 * unit, -4084.0, 0.0]))))
    assert fit.undetermined == (1, 6)
    assert fit.energy == pytest.approx({1: 2 * unit / 5, 6: unit / 5, 8: -2042.0})
    batch = frames_of(contents, [0.0] * 4).batch
    assert fit.total(batch)[:3] == pytest.approx([2 * unit, 3 * unit, -4084.0])


def test_pieces_give_the_same_sums_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [[6, 1], [8, 1, 1], [6, 8], [1], [6, 1, 8]]
    frames = frames_of(contents, [total(z) + 0.1 for z in contents], forces=2.0)
    whole = compositions(rows_of(frames))
    monkeypatch.setattr(energies, "READ", 2)
    pieces = compositions(rows_of(frames))
    np.testing.assert_array_equal(whole.counts, pieces.counts)
    np.testing.assert_array_equal(whole.energy, pieces.energy)
    assert whole.force_scale == pieces.force_scale == 2.0


def test_the_force_scale_is_the_root_mean_square_of_components() -> None:
    frames = frames_of([[1], [1], [1]], [0.0] * 3)
    labels = Prediction(np.zeros(3), np.array([[3.0, 0, 0], [0, 4.0, 0], [100.0, 0, 0]]))
    found = compositions(rows_of(FrameSet(**{**vars(frames), "labels": labels})))
    assert found.force_scale == pytest.approx(np.sqrt(25 / 6))
    labels = Prediction(np.zeros(3), np.array([[3.0, 0, 0], [np.nan] * 3, [100.0, 0, 0]]))
    lacking = FrameSet(**{**vars(frames), "labels": labels, "absent": ("forces",)})
    assert compositions(rows_of(lacking)).force_scale == pytest.approx(np.sqrt(9 / 3))


def test_totals_and_elements_that_are_missing() -> None:
    atoms = AtomEnergies(TABLE, "a table")
    batch = Batch.of([System([8, 1, 1], np.zeros((3, 3))), System([6], np.zeros((1, 3)))])
    np.testing.assert_allclose(atoms.total(batch), [-2069.2, -1029.5])
    with pytest.raises(ValueError, match="none for N, Cl; they were found by a table, for H, C, O only"):
        atoms.total(Batch.of([System([7, 17, 1], np.zeros((3, 3)))]))
    assert AtomEnergies.from_json(json.loads(json.dumps(atoms.as_json()))) == atoms


def test_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no frame is 'val'"):
        compositions(rows_of(frames_of([[1], [1]], [0.0, 0.0])), "val")
    with pytest.raises(ValueError, match="no frame to take energies from"):
        compositions(rows_of(frames_of([[1], [1]], [0.0, 0.0]).take([])), None)


def source() -> SourceSettings:
    return SourceSettings(
        layout="extxyz",
        name="atoms",
        level="x",
        licence="y",
        keys={"energy": "E"},  # type: ignore[arg-type]
        units={"energy": "hartree"},  # type: ignore[arg-type]
    )


def write_atoms(path: Path, frames: list[tuple[str, str]]) -> None:
    """Write one structure of some atoms in a row for each comment."""
    text = ""
    for comment, symbols in frames:
        text += f'{len(symbols)}\nProperties=species:S:1:pos:R:3 {comment} pbc="F F F"\n'
        text += "".join(f"{symbol} {k} 0 0\n" for k, symbol in enumerate(symbols))
    path.write_text(text)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([("E=-0.5", "H"), ("E=-0.5", "H")], "structure 1: a second atom of atomic number 1"),
        ([("E=-0.5", "HH")], "2 atoms; expected one"),
        ([("energy=-0.5", "H")], "no 'E'; the keys there: 'energy'"),
    ],
)
def test_isolated_atoms_that_are_none_are_refused(
    tmp_path: Path, frames: list[tuple[str, str]], message: str
) -> None:
    write_atoms(tmp_path / "a.xyz", frames)
    with pytest.raises(ValueError, match=message):
        isolated_atoms(tmp_path / "a.xyz", source())


def test_isolated_atoms(tmp_path: Path) -> None:
    write_atoms(tmp_path / "a.xyz", [("E=-75", "O"), ("E=-0.5", "H")])
    atoms = isolated_atoms(tmp_path / "a.xyz", source())
    assert atoms.energy == pytest.approx({1: -0.5 * HARTREE, 8: -75 * HARTREE})
    assert atoms.origin == "isolated atoms of a.xyz"


def test_lone_energies_of_many_frames_of_one_molecule() -> None:
    # A tenth of the frames may be lone: 60,000 places, which are not all looked at.
    energy = np.random.default_rng(0).normal(size=300_000)
    groups, largest = np.zeros(300_000, dtype=np.int64), np.ones(300_000)
    assert lone_energies(groups, energy, largest)[0].tolist() == []
    energy[77] = -300.0
    frames, gap = lone_energies(groups, energy, largest)
    assert (frames.tolist(), gap) == ([77], pytest.approx(296, abs=2))
    largest[77] = 10.0  # a force explains it
    assert lone_energies(groups, energy, largest)[0].tolist() == []
