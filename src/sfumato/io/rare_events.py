"""Testing sets of rare events: structures in which some atoms are migrating, with labels.

Two layouts are read here: a packed HDF5 file, and extended XYZ whose column `migrating` marks the atoms.
Positions and forces stay in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.files import write_atomically
from sfumato.frames import Category, FrameSet
from sfumato.io.ase_objects import from_ase, read_atoms
from sfumato.io.hdf5 import open_packed
from sfumato.systems import Batch, Bools, Floats, Ints, Prediction, System, digest

FORMAT = "sfumato-rare-events 1"

NOT_STATED = "not stated"


@dataclass(frozen=True, eq=False)
class RareEventSet:
    """Structures with one kind of defect, and which of their atoms are migrating.

    Args:
        name: of the defect, for example "vacancy".
        batch: S structures of N atoms together.
        energy: (S,) eV; NaN where unknown.
        forces: (N, 3) eV/Å, the truth.
        migrating: (N,) atoms in the middle of a hop.
        r: (N,) Å to the nearest migrating atom of the structure; NaN where it is unknown or there is none.
        r_v: (N,) Å to the nearest vacancy; NaN likewise.
        others: labels of other levels of theory by name: energies (S,), NaN where unknown, forces (N, 3).
        snapshots: (S,) what each structure was taken from, for resampling; by default each its own.

    Raises:
        ValueError: arrays of another length than the structures need, or forces that are not finite.
    """

    name: str
    batch: Batch
    energy: Floats
    forces: Floats
    migrating: Bools
    r: Floats
    r_v: Floats
    others: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    snapshots: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        s, n = len(self.batch), len(self.batch.numbers)
        if not len(self.snapshots):
            object.__setattr__(self, "snapshots", np.arange(s))
        shapes: list[tuple[str, NDArray[Any], tuple[int, ...]]] = [
            ("energies", self.energy, (s,)),
            ("forces", self.forces, (n, 3)),
            ("flags of migrating atoms", self.migrating, (n,)),
            ("distances to migrating atoms", self.r, (n,)),
            ("distances to vacancies", self.r_v, (n,)),
            ("numbers of snapshots", self.snapshots, (s,)),
        ]
        for name, (energy, forces) in self.others.items():
            shapes += [(f"energies of {name}", energy, (s,)), (f"forces of {name}", forces, (n, 3))]
        for what, array, shape in shapes:
            if array.shape != shape:
                raise ValueError(f"{self.name}: {what} of shape {array.shape}, the structures need {shape}")
            if "forces" in what and not np.isfinite(array).all():
                raise ValueError(f"{self.name}: {what} are not finite")

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, rows: Ints) -> RareEventSet:
        """Return some of the structures."""
        counts = np.diff(self.batch.offsets)[rows]
        starts = np.repeat(self.batch.offsets[rows] - np.cumsum(counts) + counts, counts)
        atoms = starts + np.arange(counts.sum())
        others = {name: (energy[rows], forces[atoms]) for name, (energy, forces) in self.others.items()}
        return RareEventSet(
            self.name,
            self.batch.take(rows),
            self.energy[rows],
            self.forces[atoms],
            self.migrating[atoms],
            self.r[atoms],
            self.r_v[atoms],
            others,
            self.snapshots[rows],
        )

    @cached_property
    def identity(self) -> str:
        """SHA-256 of structures, flags and labels."""
        b = self.batch
        parts: list[Any] = [self.name, b.numbers, b.positions, b.index, b.cell, b.pbc]
        parts += [self.energy, self.forces, self.migrating, self.r, self.r_v, self.snapshots]
        for name in sorted(self.others):
            parts += [name, *self.others[name]]
        return digest(parts)


@dataclass(frozen=True, eq=False)
class RareEvents:
    """Testing sets of rare events, one for each kind of defect.

    Args:
        name: short name.
        level: level of theory of the labels.
        licence: SPDX identifier or the owner's words.
        source: who made it.
        sets: of each defect.

    Raises:
        ValueError: no set, or two of one name.
    """

    name: str
    level: str
    licence: str
    source: str
    sets: tuple[RareEventSet, ...]

    def __post_init__(self) -> None:
        names = [one.name for one in self.sets]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"{self.name}: needs sets of different defects, got {', '.join(names) or 'none'}"
            )

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the level of theory and of all sets."""
        return digest([self.level, *(one.identity for one in self.sets)])

    def as_frames(self) -> FrameSet:
        """Return all structures with a known energy as labeled frames, in single precision.

        Each structure is its own molecule, its subset the defect, its split "test".

        Raises:
            ValueError: no energy is known.
        """
        rows = [np.flatnonzero(np.isfinite(one.energy)) for one in self.sets]
        parts = [one.take(some) for one, some in zip(self.sets, rows, strict=True) if len(some)]
        if not parts:
            raise ValueError(f"{self.name}: no structure has an energy")
        batch = Batch.of([system for one in parts for system in one.batch])
        return FrameSet(
            self.name,
            self.level,
            self.licence,
            self.source,
            replace(batch, positions=batch.positions.astype(np.float32)),
            Prediction(
                np.concatenate([one.energy for one in parts]), np.concatenate([one.forces for one in parts])
            ),
            Category.of(f"{one.name} {k}" for one in parts for k in range(len(one))),
            Category.of(one.name for one in parts for _ in range(len(one))),
            Category.of("test" for _ in range(len(batch))),
        )


def read_flagged(path: Path) -> RareEvents:
    """Read extended XYZ whose column `migrating` marks the atoms, with the labels energy and forces.

    Args:
        path: the file; `defect` in the comment line names the set of a structure (without it: the name of the
            file), `level` the level of theory.

    Raises:
        ValueError: a structure without flags or labels, or several levels of theory; says which.
    """
    groups: dict[str, list[tuple[System, float, Floats, Bools]]] = {}
    levels = set()
    for k, atoms in enumerate(read_atoms(path)):
        where = f"{path}, structure {k}: "
        if "migrating" not in atoms.arrays:
            raise ValueError(
                f"{where}no column 'migrating'; mark the atoms with it (T or F), or find them with "
                "`sfumato data rare-events`"
            )
        results = {} if atoms.calc is None else atoms.calc.results
        if "forces" not in results:
            raise ValueError(
                f"{where}no forces; label the structures first, for example with `sfumato label`"
            )
        flags = np.asarray(atoms.arrays["migrating"]).astype(bool)
        row = (
            from_ase(atoms),
            float(results.get("energy", np.nan)),
            np.array(results["forces"], float),
            flags,
        )
        groups.setdefault(str(atoms.info.get("defect", path.stem)), []).append(row)
        levels.add(str(atoms.info.get("level", NOT_STATED)))
    if not groups:
        raise ValueError(f"{path}: holds no structure")
    if len(levels) > 1:
        raise ValueError(
            f"{path}: mixed levels of theory: {', '.join(sorted(levels))}; keep each in its own file"
        )
    sets = tuple(flagged_set(name, *zip(*rows, strict=True)) for name, rows in groups.items())
    return RareEvents(path.stem, levels.pop(), NOT_STATED, path.name, sets)


def flagged_set(name: str, systems: Any, energies: Any, forces: Any, flags: Any) -> RareEventSet:
    """Return a set of structures whose migrating atoms are known; distances to them follow the nearest image.

    Args:
        name: of the defect.
        systems: S structures.
        energies: S energies in eV.
        forces: of each structure (n, 3) eV/Å.
        flags: of each structure (n,).
    """
    batch = Batch.of(list(systems))
    r = [_nearest(system, flag) for system, flag in zip(systems, flags, strict=True)]
    return RareEventSet(
        name,
        batch,
        np.array(energies, dtype=float),
        np.concatenate(list(forces)),
        np.concatenate(list(flags)).astype(bool),
        np.concatenate(r),
        np.full(len(batch.numbers), np.nan),
    )


def _nearest(system: System, flags: Bools) -> Floats:
    """Return (N,) Å to the nearest flagged atom; NaN where none is flagged."""
    from ase.geometry import get_distances

    if not flags.any():
        return np.full(len(system), np.nan)
    x = system.positions
    _, distance = get_distances(x, x[flags], cell=system.cell, pbc=system.pbc)
    nearest = np.asarray(distance).min(axis=1)
    return np.where(flags, 0.0, nearest)


_COLUMNS = ("numbers", "positions", "index", "cell", "pbc", "charge", "multiplicity")
_ARRAYS = ("energy", "forces", "migrating", "r", "r_v", "snapshots")


def write_packed(path: str | Path, found: RareEvents) -> None:
    """Write testing sets of rare events to one HDF5 file, whole or not at all."""
    import h5py

    with write_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        for fact in ("name", "level", "licence", "source", "identity"):
            file.attrs[fact] = getattr(found, fact)
        file.attrs["sets"] = [one.name for one in found.sets]
        for k, one in enumerate(found.sets):
            group = file.create_group(f"set{k}")
            for name in _COLUMNS:
                group[name] = getattr(one.batch, name)
            for name in _ARRAYS:
                group[name] = getattr(one, name)
            group.attrs["others"] = list(one.others)
            for j, (energy, forces) in enumerate(one.others.values()):
                group[f"other{j}/energy"], group[f"other{j}/forces"] = energy, forces


def read_packed(path: str | Path) -> RareEvents:
    """Read what `write_packed` wrote.

    Raises:
        ValueError: no such file, another kind of file, or contents that are damaged; names it.
    """
    path = Path(path)
    with open_packed(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise ValueError("does not hold testing sets of rare events")
        sets = tuple(_unpacked(file[f"set{k}"], str(name)) for k, name in enumerate(file.attrs["sets"]))
        facts = {fact: str(file.attrs[fact]) for fact in ("name", "level", "licence", "source")}
        found = RareEvents(**facts, sets=sets)
        if found.identity != file.attrs["identity"]:
            raise ValueError("damaged: its contents are not those that were written")
    return found


def _unpacked(group: Any, name: str) -> RareEventSet:
    batch = Batch(**{column: group[column][()] for column in _COLUMNS})
    others = {
        str(label): (group[f"other{j}/energy"][()], group[f"other{j}/forces"][()])
        for j, label in enumerate(group.attrs["others"])
    }
    arrays = {key: group[key][()] for key in _ARRAYS}
    return RareEventSet(name=name, batch=batch, others=others, **arrays)
