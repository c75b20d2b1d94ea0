"""The structures of the probes: of any data set, or of a file of the user's; and the curves of diatomics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from sfumato.datasets import named
from sfumato.systems import Floats, Ints, System, digest, symbols

PACKED = (".h5", ".hdf5", ".tar", ".gz", ".zst")
"""Endings of files that hold a packed or released data set; all others are structures in ASE's formats."""

CURVES = Path(__file__).parents[2] / "data" / "diatomics-pbe.npz"


@dataclass(frozen=True, eq=False)
class Structures:
    """Structures around which a potential is probed.

    Args:
        name: of the data set or file.
        systems: the structures.
        names: of each, unique.
        groups: of each, the molecule that it is a configuration of.
        level: of theory of the geometries, or "not stated".
        licence: likewise.
        source: likewise.
    """

    name: str
    systems: tuple[System, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    level: str = "not stated"
    licence: str = "not stated"
    source: str = ""

    def __len__(self) -> int:
        return len(self.systems)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all structures in order."""
        return digest([system.identity for system in self.systems])

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers, those of the most structures first."""
        present = [z for system in self.systems for z in set(system.numbers.tolist())]
        numbers, counts = np.unique(np.array(present, dtype=np.int64), return_counts=True)
        return tuple(numbers[np.lexsort((numbers, -counts))].tolist())

    def of_elements(self, known: Sequence[int]) -> list[int]:
        """Return the rows of the structures that have no other elements."""
        some = set(known)
        return [k for k, system in enumerate(self.systems) if some.issuperset(system.numbers.tolist())]

    def excluded(self, known: Sequence[int]) -> dict[str, str]:
        """Return the names of all other structures, each with the reason."""
        return {
            name: f"{symbols(set(system.numbers.tolist()) - set(known))} unknown"
            for name, system in zip(self.names, self.systems, strict=True)
            if not set(known).issuperset(system.numbers.tolist())
        }


def read_structures(data: str | Path) -> Structures:
    """Return the structures of any data set.

    Args:
        data: a named set of frames or scans, of which one structure of each molecule is taken (the first
            frame, of a scan that of the lowest energy); a packed file of one; or a file of structures in a
            format that ASE reads, all of which are taken.

    Raises:
        ValueError: an unknown name or path, or contents that cannot be read.
    """
    path = Path(data).expanduser()
    if data not in named.DATASETS and path.is_file() and not path.suffix.lower().endswith(PACKED):
        return _of_file(path)
    if named.holds(data) == "frames":
        return _of_frames(data)
    return _of_scans(data)


def _of_file(path: Path) -> Structures:
    from sfumato.io import read_systems

    systems = [system for system in read_systems(path) if len(system)]
    if not systems:
        raise ValueError(f"{path}: holds no structure")
    names = tuple(f"structure {k + 1}" for k in range(len(systems)))
    return Structures(path.stem, tuple(systems), names, names, source=path.name)


def _of_frames(data: str | Path) -> Structures:
    frames = named.load_frames(data)
    _, rows = np.unique(frames.molecule.codes, return_index=True)
    rows = np.sort(rows)
    names = tuple(frames.molecule.names[code] for code in frames.molecule.codes[rows].tolist())
    systems = tuple(frames.take(rows).batch)
    return Structures(frames.name, systems, names, names, frames.level, frames.licence, frames.source)


def _of_scans(data: str | Path) -> Structures:
    scans = named.load(data)
    systems = tuple(
        scan.system(int(np.nanargmin(scan.energy)) if scan.labeled.any() else len(scan) // 2)
        for scan in scans
    )
    names = tuple(scan.name for scan in scans)
    return Structures(scans.name, systems, names, names, scans.level, scans.licence, scans.source)


@dataclass(frozen=True, eq=False)
class Curve:
    """The reference curve of two like atoms: distances (P,) Å, energies (P,) eV, forces apart (P,) eV/Å."""

    distances: Floats
    energy: Floats
    force: Floats


@cache
def reference_curves() -> dict[int, Curve]:
    """Return the PBE curves of two like atoms, by atomic number.

    Source: Matbench-Discovery, MIT licence: the lowest of several spin states at each distance.
    """
    with np.load(CURVES, allow_pickle=False) as packed:
        numbers: Ints = packed["numbers"].astype(np.int64)
        columns = [packed[name].astype(np.float64) for name in ("distances", "energies", "forces")]
    return {z: Curve(*(column[numbers == z] for column in columns)) for z in np.unique(numbers).tolist()}
