"""Small labeled sets that tests spoil, each in its own way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sfumato.datasets.check import FrameReport
from sfumato.frames import Category, FrameSet
from sfumato.models.pair import LennardJones, Morse, PairPotential
from sfumato.systems import Batch, Floats, Prediction, System

ATOMS = {1: -13.6, 6: -1029.5, 7: -1485.0, 8: -2042.0}
"""eV, about the total energies of the atoms."""

NAMES = ("CH4", "CH3OH", "H3CNH2", "C2H6", "NH3", "H2O")
SPLITS = ("train", "train", "train", "train", "val", "test")
MOLECULES = PairPotential("morse", Morse(4.0, 1.8), cutoff=8.0)
ARGON = PairPotential("lj", LennardJones(0.1), cutoff=5.0, switch_from=4.0)


def of(batch: Batch, labels: Prediction, words: list[str], split: list[str], **facts: Any) -> FrameSet:
    found: dict[str, Any] = {"name": "made", "level": "none", "licence": "none", "source": ""}
    return FrameSet(
        batch=batch,
        labels=labels,
        molecule=Category.of(words),
        subset=Category.of(["all"] * len(batch)),
        split=Category.of(split),
        **{**found, **facts},
    )


def rounded(system: System, positions: Floats, **changes: Any) -> System:
    return replace(system, positions=np.float32(positions), **changes)


def crystal(rng: np.random.Generator, strain: float, rattle: float) -> System:
    """Eight argon-like atoms near fcc, strained at random."""
    a = 2 * 2.12  # radii touch at 1.06 Å, in the package's pair potentials
    grid = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 0.71 * a
    epsilon = rng.normal(0, strain, (3, 3))
    deform = np.eye(3) + 0.5 * (epsilon + epsilon.T)
    cell = 0.71 * a * np.eye(3) @ deform
    x = grid @ deform + rng.normal(0, rattle, grid.shape)
    return System([18] * 4, np.float32(x), cell, [True] * 3)


def crystals(strain: float = 0.01, rattle: float = 0.01, frames: int = 60) -> FrameSet:
    rng = np.random.default_rng(1)
    batch = Batch.of([crystal(rng, strain, rattle) for _ in range(frames)])
    labels = ARGON.predict(batch)
    words = [f"frame {k}" for k in range(frames)]
    return of(batch, labels, words, ["train"] * (frames - 8) + ["val"] * 8)


def relabeled(frames: FrameSet, energy: float = 1.0, forces: float = 1.0, stress: float = 1.0) -> FrameSet:
    labels = frames.labels
    stresses = None if labels.stress is None else labels.stress * stress
    return replace(frames, labels=Prediction(labels.energy * energy, labels.forces * forces, stresses))


def failed(report: FrameReport) -> dict[str, str]:
    return {s.name: s.hint for s in report.statements if not s.passed}
