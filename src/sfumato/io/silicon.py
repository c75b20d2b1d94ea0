"""The silicon sets of Liu, He and Mo as they are published: POSCAR files, or a zip of them, beside DATA.json.

Source: github.com/mogroupumd/Silicon_MLIP_datasets; npj Comput. Mater. 9, 174 (2023).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.files import read_json
from sfumato.frames import Category, FrameSet
from sfumato.io.ase_objects import from_ase
from sfumato.io.rare_events import NOT_STATED, RareEvents, RareEventSet
from sfumato.systems import Batch, Bools, Floats, Prediction, System

TESTING = {
    "interstitial": "Interstitial-RE_Testing_Set",
    "vacancy": "Vacancy-RE_Testing_Set",
}
"""Folders of the published testing sets, by defect."""

REFERENCE = "DFT_K4"
"""The published labels that count as the truth; all others are compared with them."""

FAR, NONE = 5.5, 10.0
"""Å that the published sets state of atoms beyond 5 Å from a migrating one, and where there is no vacancy."""

MOST_MEMBERS, LARGEST_MEMBER = 100_000, 1 << 24
"""Files in an archive of structures, and bytes of one, beyond which it is refused."""


def read_published(folder: Path) -> RareEvents:
    """Read the published testing sets that a folder holds.

    Raises:
        ValueError: there is none in it, or one that is damaged or contradicts itself.
    """
    sets = [
        read_published_set(folder / place, name)
        for name, place in TESTING.items()
        if (folder / place).is_dir()
    ]
    if not sets:
        raise ValueError(f"{folder}: expected a folder {' or '.join(TESTING.values())} in it")
    return RareEvents(folder.resolve().name, NOT_STATED, NOT_STATED, folder.resolve().name, tuple(sets))


def read_published_set(folder: Path, name: str) -> RareEventSet:
    """Read one published testing set.

    Args:
        folder: with DATA.json and the structures, as files or in structure_poscars.zip.
        name: of the defect.

    Raises:
        ValueError: a part is missing, or structures, labels and flags do not have the same atoms.
    """
    data = published_labels(folder)
    if "r" not in data:
        raise ValueError(f"{folder}/DATA.json: 'r' is missing, which marks the migrating atoms (0 Å)")
    systems = published_structures(folder, len(data["r"]))
    counts = [len(system) for system in systems]
    energy, forces = _labels(data, REFERENCE, counts, folder)
    others = {
        label: _labels(data, label, counts, folder) for label in sorted(data["Forces"]) if label != REFERENCE
    }
    r = _per_atom(data["r"], counts, f"{folder}/DATA.json: r")
    vacancies = data.get("r_v") or [[None] * n for n in counts]
    r_v = _per_atom(vacancies, counts, f"{folder}/DATA.json: r_v")
    migrating = r == 0
    near = np.where((r >= FAR) & ~_has(migrating, counts), np.nan, r)
    return RareEventSet(
        name,
        Batch.of(systems),
        energy,
        forces,
        migrating,
        near,
        np.where(r_v >= NONE, np.nan, r_v),
        others,
    )


def published_labels(folder: Path) -> dict[str, Any]:
    """Return the contents of a published DATA.json.

    Raises:
        ValueError: it is missing, is not JSON, or has no forces of `REFERENCE`.
    """
    path = folder / "DATA.json"
    data = read_json(path)
    for part in ("Forces", "Energies"):
        if not isinstance(data, dict) or REFERENCE not in (data.get(part) or {}):
            raise ValueError(f"{path}: expected {part} → {REFERENCE}")
    return dict(data)


def published_structures(folder: Path, count: int) -> list[System]:
    """Return the structures of a published set in the order of its labels.

    Args:
        folder: with i.POSCAR.vasp, or structure_poscars.zip of them.
        count: of structures that have labels.

    Raises:
        ValueError: a structure is missing, one too many, or one cannot be read; names it.
    """
    archive = folder / "structure_poscars.zip"
    texts = (
        _zipped(archive)
        if archive.is_file()
        else {p.name: p.read_text() for p in folder.glob("*.POSCAR.vasp")}
    )
    numbered = {
        int(m[1]): text for name, text in texts.items() if (m := re.fullmatch(r"(\d+)\.POSCAR\.vasp", name))
    }
    if set(numbered) != set(range(count)):
        odd = sorted(set(numbered) ^ set(range(count)))[:3]
        raise ValueError(
            f"{folder}: {len(numbered)} structures and labels of {count}; first without its counterpart: "
            + ", ".join(f"{k}.POSCAR.vasp" for k in odd)
        )
    return [_poscar(numbered[k], f"{folder}: {k}.POSCAR.vasp") for k in range(count)]


def _zipped(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".POSCAR.vasp")]
            if len(members) > MOST_MEMBERS or any(m.file_size > LARGEST_MEMBER for m in members):
                raise ValueError("it unpacks to more than any set does")
            return {Path(m.filename).name: archive.read(m).decode() for m in members}
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as a zip of structures: {error}") from None


def _poscar(text: str, where: str) -> System:
    from ase.io.vasp import read_vasp

    try:
        return from_ase(read_vasp(io.StringIO(text)))
    except Exception as error:  # noqa: BLE001 (the parser raises whatever the line made it raise)
        raise ValueError(f"{where}: cannot be read as POSCAR: {error}") from None


def _labels(data: Mapping[str, Any], label: str, counts: list[int], folder: Path) -> tuple[Floats, Floats]:
    """Return energies (S,) and forces (N, 3) of a level of theory; energies are NaN where there are none."""
    where = f"{folder}/DATA.json: "
    energies = data["Energies"].get(label)
    energy = (
        np.full(len(counts), np.nan) if energies is None else _floats(energies, f"{where}energies of {label}")
    )
    if energy.shape != (len(counts),):
        raise ValueError(f"{where}{len(energy)} energies of {label} for {len(counts)} structures")
    forces = data["Forces"][label]
    if len(forces) != len(counts):
        raise ValueError(f"{where}forces of {label} for {len(forces)} of {len(counts)} structures")
    parts = []
    for k, (rows, n) in enumerate(zip(forces, counts, strict=True)):
        part = _floats(rows, f"{where}forces of {label}, structure {k}")
        if part.shape != (n, 3):
            raise ValueError(
                f"{where}forces of {label} have shape {part.shape} in structure {k} of {n} atoms"
            )
        parts.append(part)
    return energy, np.concatenate(parts)


def _per_atom(rows: list[Any], counts: list[int], where: str) -> Floats:
    """Return one number for each atom; null is NaN."""
    if len(rows) != len(counts):
        raise ValueError(f"{where} is there for {len(rows)} of {len(counts)} structures")
    parts = []
    for k, (row, n) in enumerate(zip(rows, counts, strict=True)):
        part = _floats(row, f"{where}, structure {k}")
        if part.shape != (n,):
            raise ValueError(f"{where} has shape {part.shape} in structure {k} of {n} atoms")
        parts.append(part)
    return np.concatenate(parts)


def _floats(values: Any, where: str) -> Floats:
    try:
        return np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: not an array of numbers") from None


def _has(migrating: Bools, counts: list[int]) -> Bools:
    """Return (N,) whether an atom's structure has a migrating atom."""
    index = np.repeat(np.arange(len(counts)), counts)
    return np.asarray(np.bincount(index, migrating, len(counts))[index] > 0)


ENHANCED = {
    "interstitial": "Interstitial-enhanced_Training_Set",
    "vacancy": "Vacancy-enhanced_Training_Set",
}
"""Folders of the published training sets, half of whose frames are snapshots of one migrating defect."""

VALIDATION = "Enhanced_Validation_Set"

KINDS = {63: "vacancy", 64: "bulk", 65: "interstitial"}
"""Of structures, by their number of atoms: 64 sites, one too many or too few."""


def read_enhanced(folder: Path, defect: str) -> FrameSet:
    """Read a published training set with its validation set; the testing sets are its test split.

    Args:
        folder: that holds the folders of the sets.
        defect: "interstitial" or "vacancy", with which the training set is enhanced.

    Returns:
        Positions and forces rounded to single precision. Each structure is its own molecule, its subset the
        defect by the number of atoms. Testing snapshots that the published training or validation set also
        holds are left out.

    Raises:
        ValueError: a part is missing, or structures and labels do not have the same atoms.
    """
    parts = [
        ("train", ENHANCED[defect]),
        ("val", VALIDATION),
        *(("test", place) for place in TESTING.values()),
    ]
    systems: list[System] = []
    energies, forces, names, splits = [], [], [], []
    for split, place in parts:
        if not (folder / place).is_dir():
            raise ValueError(f"{folder}: the folder {place} is missing")
        data = published_labels(folder / place)
        some = published_structures(folder / place, len(data["Energies"][REFERENCE]))
        energy, force = _labels(data, REFERENCE, [len(system) for system in some], folder / place)
        systems += some
        energies.append(energy)
        forces.append(force)
        names += [f"{place} {k}" for k in range(len(some))]
        splits += [split] * len(some)
    batch = Batch.of(systems)
    found = FrameSet(
        folder.resolve().name,
        NOT_STATED,
        NOT_STATED,
        folder.resolve().name,
        replace(batch, positions=batch.positions.astype(np.float32)),
        Prediction(np.concatenate(energies), np.concatenate(forces)),
        Category.of(names),
        Category.of(KINDS.get(len(system), "other cells") for system in systems),
        Category.of(splits),
    )
    tested = np.array([split == "test" for split in splits])
    twice = shared_structures(systems, [s for s, test in zip(systems, tested, strict=True) if not test])
    return found.take(np.flatnonzero(~(tested & twice)))


SAME = 1e-3
"""Å by which an atom may be off in the same structure, which files round."""


def shared_structures(systems: Sequence[System], others: Sequence[System]) -> Bools:
    """Return (S,) which structures are also among others, atom by atom in the same order."""
    by_size: dict[int, list[Floats]] = {}
    for other in others:
        by_size.setdefault(len(other), []).append(other.positions)
    stacks = {size: np.stack(some) for size, some in by_size.items()}
    return np.array(
        [
            len(system) in stacks
            and bool((np.abs(stacks[len(system)] - system.positions).max(axis=(1, 2)) < SAME).any())
            for system in systems
        ]
    )
