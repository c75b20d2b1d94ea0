"""Duplicates, leaks between splits, and what makes two structures the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfumato.datasets.check import check_frames
from sfumato.datasets.duplicates import bond_graphs, same
from sfumato.datasets.energies import AtomEnergies
from sfumato.datasets.loader import rows_of
from sfumato.datasets.summary import summarize
from sfumato.frames import FrameSet
from sfumato.io import from_ase
from sfumato.systems import Batch, Prediction, System
from tests.datasets.made_frames import (
    ARGON,
    ATOMS,
    MOLECULES,
    crystal,
    crystals,
    failed,
    of,
    rounded,
)


def with_one_more(
    frames: FrameSet, system: System, word: str, split: str, energy: float | None = None
) -> FrameSet:
    one = Batch.of([system])
    labels = MOLECULES.predict(one)
    value = labels.energy + AtomEnergies(ATOMS, "").total(one) if energy is None else [energy]
    return of(
        Batch.of([*frames.batch, system]),
        Prediction(
            np.append(frames.labels.energy, value), np.concatenate([frames.labels.forces, labels.forces])
        ),
        [*frames.molecule, word],
        [*frames.split, split],
    )


def test_a_turned_copy_is_found_and_a_mirrored_one_is_not(molecules: FrameSet) -> None:
    first = list(molecules.batch)[16]  # rattled methanol, which has no mirror plane
    turn = Rotation.random(random_state=1).as_matrix()
    copy = rounded(first, first.positions @ turn.T + [1, 2, 3])
    report = check_frames(with_one_more(molecules, copy, "again", "train"))
    assert report.repeated == ((16, 96),)
    assert "1 frames repeat" in failed(report)["duplicates"]
    mirrored = rounded(first, first.positions * [1, 1, -1])
    assert check_frames(with_one_more(molecules, mirrored, "again", "train")).repeated == ()


def test_the_two_splits_of_a_run_are_compared_whatever_they_are_called(molecules: FrameSet) -> None:
    copied = with_one_more(molecules, next(iter(molecules.batch)), "CH4 again", "val")  # of train
    shared = {"shared structures", "shared molecules"}
    assert shared <= failed(check_frames(copied)).keys()
    assert not shared & failed(check_frames(copied, train="val", validation="test")).keys()
    report = check_frames(copied, train="val", validation="train")
    assert "1 structures are in two splits" in failed(report)["shared structures"]
    hint = failed(report)["shared molecules"]
    assert hint == "16 of 80 frames of train and test are of molecules that val has too"
    assert "shared molecules" not in failed(check_frames(copied, validation=None))


def test_the_same_structure_with_another_energy_or_in_another_split_is_named(molecules: FrameSet) -> None:
    first = list(molecules.batch)[16]
    found = failed(check_frames(with_one_more(molecules, first, "again", "test", energy=-1.0)))
    assert "are levels of theory mixed?" in found["duplicates"]
    assert "1 structures are in two splits" in found["shared structures"]
    assert "1 of 33 frames of val and test are of molecules that train has" in found["shared molecules"]


def test_a_crystal_is_the_same_after_turning_shifting_and_wrapping() -> None:
    rng = np.random.default_rng(3)
    a = crystal(rng, 0.02, 0.1)
    turn = Rotation.random(random_state=1).as_matrix()
    shift = rng.normal(size=3)
    wrapped = a.positions + shift + rng.integers(-2, 3, (4, 3)) @ a.cell
    b = rounded(a, wrapped @ turn.T, cell=a.cell @ turn.T)
    assert same(a, b)
    moved = b.positions.copy()
    moved[2, 0] += 1e-3
    assert not same(a, replace(b, positions=moved))
    assert not same(a, replace(b, cell=b.cell * 1.001))
    frames = crystals(strain=0.02, rattle=0.1)
    first = list(frames.batch)[7]
    copy = rounded(first, (first.positions + shift) @ turn.T, cell=first.cell @ turn.T)
    batch = Batch.of([*frames.batch, copy])
    both = of(batch, ARGON.predict(batch), [str(k) for k in range(61)], ["train"] * 61)
    assert check_frames(both).repeated == ((7, 60),)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3e-4), st.booleans())
def test_no_duplicate_is_missed_by_its_invariants(seed: int, size: float, periodic: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    cell = (np.eye(3) * 6 + rng.normal(0, 0.5, (3, 3))) * periodic
    a = System([6] * n, np.float32(rng.uniform(0, 6, (n, 3))), cell, [periodic] * 3)
    turn = Rotation.random(random_state=seed).as_matrix()
    noise = rng.normal(size=(n, 3))
    noise *= size / np.linalg.norm(noise, axis=1, keepdims=True)
    b = rounded(a, (a.positions + noise) @ turn.T + rng.normal(size=3), cell=a.cell @ turn.T)
    batch = Batch.of([a, b])
    labels = Prediction(np.zeros(2), np.zeros((2 * n, 3)))
    s = summarize(rows_of(of(batch, labels, ["a", "b"], ["train"] * 2)), AtomEnergies({6: 0.0}, ""))
    alike = np.abs(s.invariants[0] - s.invariants[1]) <= s.reach[0]
    if same(a, b):
        assert alike.all()


def test_bonds_tell_isomers_apart_and_conformers_together() -> None:
    batch = Batch.of(
        [from_ase(molecule(name)) for name in ("CH3CH2OH", "CH3OCH3", "trans-butane", "isobutane")]
    )
    assert len(set(bond_graphs(batch))) == 4
    rng = np.random.default_rng(0)
    first = next(iter(batch))
    rattled = replace(first, positions=first.positions + rng.normal(0, 0.05, first.positions.shape))
    order = rng.permutation(len(first))
    shuffled = System(first.numbers[order], first.positions[order])
    assert len(set(bond_graphs(Batch.of([first, rattled, shuffled])))) == 1


def test_the_same_molecule_under_two_names_is_a_leak_and_an_isomer_is_none(molecules: FrameSet) -> None:
    ether, alcohol = (from_ase(molecule(name)) for name in ("CH3OCH3", "CH3CH2OH"))
    ether, alcohol = rounded(ether, ether.positions), rounded(alcohol, alcohol.positions)
    isomers = with_one_more(with_one_more(molecules, ether, "a", "train"), alcohol, "b", "val")
    assert "shared molecules" not in failed(check_frames(isomers))
    moved = rounded(ether, ether.positions + np.random.default_rng(0).normal(0, 0.05, ether.positions.shape))
    report = check_frames(with_one_more(isomers, moved, "c", "val"))
    assert "1 of 34 frames" in failed(report)["shared molecules"]
    with pytest.raises(
        ValueError, match=r"of 34 frames.*\(0\.0294, limit 0\); .*set data\.allow to \[shared molecules\]"
    ):
        report.require()
    report.require(allow=["shared molecules"])
