"""The mlearn sets of elements: training.json and test.json, lists of pymatgen structures with VASP labels.

Source: Zuo et al. 2020, J. Phys. Chem. A 124, 731; github.com/materialsvirtuallab/mlearn.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from sfumato.files import read_json
from sfumato.frames import Category, FrameSet, split_by_molecule
from sfumato.systems import Batch, Floats, Prediction, System
from sfumato.units import GPA

FILES = {"train": "training.json", "test": "test.json"}

ORDER = (0, 1, 2, 4, 5, 3)
"""Where VASP's xx yy zz xy yz zx has xx yy zz yz xz xy."""

VALIDATION = 0.1
"""Of the training structures, which the published set does not divide."""


def read_mlearn(folder: Path) -> FrameSet:
    """Read the set of an element.

    Args:
        folder: with training.json and test.json.

    Returns:
        Energies (eV), forces (eV/Å) and stress (eV/Å³, positive in tension; the files have VASP's in kbar,
        positive in compression), positions and forces rounded to single precision. A tenth of the training
        structures, drawn once, is for validation. Each structure is its own molecule, its subset the
        published group.

    Raises:
        ValueError: a file is missing or a structure cannot be read; says which.
    """
    rows: list[tuple[System, float, Floats, Floats]] = []
    names, groups, splits = [], [], []
    for split, file in FILES.items():
        for k, record in enumerate(_records(folder / file)):
            try:
                rows.append(_frame(record))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ValueError(f"{folder / file}, structure {k}: cannot be read: {error!r}") from None
            names.append(f"{split} {k}")
            groups.append(re.sub(r"\W+", "-", str(record.get("group", "all")).lower()).strip("-"))
            splits.append(split)
    systems, energy, forces, stress = zip(*rows, strict=True)
    return FrameSet(
        folder.resolve().name,
        "not stated",
        "not stated",
        folder.resolve().name,
        Batch.of(systems),
        Prediction(np.array(energy), np.concatenate(forces), np.stack(stress)),
        Category.of(names),
        Category.of(groups),
        Category.of(_with_validation(names, splits)),
    )


def _with_validation(names: list[str], splits: list[str]) -> list[str]:
    """Return the splits where a part of the training structures is for validation."""
    train = [name for name, split in zip(names, splits, strict=True) if split == "train"]
    drawn = dict(zip(train, split_by_molecule(Category.of(train), (1 - VALIDATION, VALIDATION, 0.0))))
    return [drawn.get(name, split) for name, split in zip(names, splits, strict=True)]


def _records(path: Path) -> list[dict[str, Any]]:
    records = read_json(path)
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path}: expected a list of structures")
    return records


def _frame(record: dict[str, Any]) -> tuple[System, float, Floats, Floats]:
    sites, outputs = record["structure"]["sites"], record["outputs"]
    system = System(
        np.array([atomic_numbers[site["species"][0]["element"]] for site in sites]),
        np.array([site["xyz"] for site in sites], dtype=np.float32).astype(float),
        np.array(record["structure"]["lattice"]["matrix"], dtype=float),
        np.ones(3, dtype=bool),
    )
    forces = np.array(outputs["forces"], dtype=float)
    if forces.shape != (len(system), 3):
        raise ValueError(f"forces of shape {forces.shape} for {len(system)} atoms")
    xx, yy, zz, yz, xz, xy = -GPA / 10 * np.array(outputs["virial_stress"], dtype=float)[list(ORDER)]
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return system, float(outputs["energy"]), forces, stress
