"""Scans as extended XYZ: those of `sfumato scan build -o FILE.xyz`, and those in a file of `sfumato label`.

A file of scans says of each frame which scan it is of and what is scanned. Labeled structures that say
nothing of the kind are taken for bond scans where they are: frames in a row of the same atoms, of which two
rigid parts move along the line through a pair of atoms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from sfumato.datasets.labeled import NOT_STATED, declaration, write_labeled
from sfumato.io.ase_objects import from_ase, read_atoms
from sfumato.systems import Floats, Ints, Prediction, Scan, ScanSet

if TYPE_CHECKING:
    from ase import Atoms

RIGID = 1e-4
"""Å by which distances within a part that moves as a whole may change."""

FEWEST = 5
"""Frames of a scan that nobody calls one."""


def write_scans_xyz(path: Path, scan_set: ScanSet) -> None:
    """Write the labeled frames of scans as extended XYZ; frames that could not be labeled are left out.

    Args:
        path: the file, replaced if it exists.
        scan_set: the scans; provenance and licence are not part of the file.
    """
    rows = [(scan, k) for scan in scan_set for k in np.flatnonzero(scan.labeled).tolist()]
    labels = Prediction(
        np.array([scan.energy[k] for scan, k in rows]), np.concatenate([scan.forces[k] for scan, k in rows])
    )
    words = [
        {
            "name": scan.name,
            "smiles": scan.smiles,
            "level": scan_set.level,
            "coordinate": repr(float(scan.coordinate[k])),
            "scanned": " ".join(map(str, scan.atoms.tolist())),
            "fragment": " ".join(map(str, scan.fragment.tolist())),
        }
        for scan, k in rows
    ]
    write_labeled(path, [scan.system(k) for scan, k in rows], labels, words)


def read_scans_xyz(path: str | Path) -> ScanSet:
    """Read the scans of a file that `sfumato scan build` or `sfumato label` wrote.

    Raises:
        ValueError: another file, several levels of theory, or structures that are not scans.
    """
    declared = declaration(path)
    if declared is None:
        raise ValueError(f"{path}: was not written by sfumato label or sfumato scan build")
    frames = read_atoms(path)
    levels = {str(atoms.info.get("level")) for atoms in frames}
    if len(levels) > 1:
        raise ValueError(f"{path}: mixed levels of theory: {', '.join(sorted(levels))}")
    scans = tuple(_scans(frames, Path(path)))
    return ScanSet(Path(path).stem, declared.level, NOT_STATED, declared.source, scans)


def _scans(frames: Sequence[Atoms], path: Path) -> Iterator[Scan]:
    if all("scanned" in atoms.info for atoms in frames):
        for name, some in groupby(frames, key=lambda atoms: str(atoms.info["name"])):
            yield _stated(name, list(some))
        return
    start = 0
    for number, (_, some) in enumerate(groupby(frames, key=lambda a: (a.numbers.tobytes(), str(a.pbc)))):
        members = list(some)
        stop = start + len(members)
        try:
            yield _found(members, f"{path.stem}-{number}")
        except ValueError as error:
            raise ValueError(
                f"{path}: structures {start} to {stop - 1} are not a bond scan: {error}. Scans are made by "
                f"`sfumato scan build`; on structures measure errors: sfumato run errors --data {path}"
            ) from None
        start = stop


def _labels(frames: Sequence[Atoms]) -> tuple[Floats, Floats]:
    results = [atoms.calc.results for atoms in frames]
    return np.array([r["energy"] for r in results], dtype=float), np.array([r["forces"] for r in results])


def _integers(value: object) -> Ints:
    """Return the whole numbers of a word, which ASE may have taken for an array."""
    words = value.split() if isinstance(value, str) else np.ravel(np.asarray(value)).tolist()
    return np.array([int(word) for word in words], dtype=np.int64)


def _stated(name: str, frames: Sequence[Atoms]) -> Scan:
    """Return the scan whose frames say what is scanned."""
    energy, forces = _labels(frames)
    first = from_ase(frames[0])
    return Scan(
        name=name,
        numbers=first.numbers,
        positions=np.array([atoms.positions for atoms in frames]),
        coordinate=np.array([float(atoms.info["coordinate"]) for atoms in frames]),
        energy=energy,
        forces=forces,
        atoms=_integers(frames[0].info["scanned"]),
        fragment=_integers(frames[0].info["fragment"]),
        charge=first.charge,
        multiplicity=first.multiplicity,
        smiles=str(frames[0].info.get("smiles", "")),
        cell=first.cell,
        pbc=first.pbc,
    )


def _found(frames: Sequence[Atoms], label: str) -> Scan:
    """Return the bond scan that frames of the same atoms are."""
    if len(frames) < FEWEST:
        raise ValueError(f"{len(frames)} structures of the same atoms in a row, and a scan needs {FEWEST}")
    first = from_ase(frames[0])
    if first.pbc.any():
        raise ValueError("they are periodic")
    states = {(system.charge, system.multiplicity) for system in map(from_ase, frames)}
    if len(states) > 1:
        raise ValueError("they differ in charge or multiplicity")
    positions = np.array([atoms.positions for atoms in frames])
    i, j, fragment = scanned_bond(positions)
    length = np.linalg.norm(positions[:, j] - positions[:, i], axis=1)
    order = np.argsort(length)
    energy, forces = _labels(frames)
    pair = "-".join(sorted(chemical_symbols[first.numbers[k]] for k in (i, j)))
    return Scan(
        name=f"{pair}/{label}",
        numbers=first.numbers,
        positions=positions[order],
        coordinate=length[order],
        energy=energy[order],
        forces=forces[order],
        atoms=np.array([i, j]),
        fragment=fragment,
        charge=first.charge,
        multiplicity=first.multiplicity,
        smiles=str(frames[0].info.get("smiles", "")),
    )


def scanned_bond(positions: Floats) -> tuple[int, int, Ints]:
    """Return the bond along which two rigid parts of a molecule move.

    Args:
        positions: (F, N, 3) Å, not turned from frame to frame.

    Returns:
        The two atoms, and (N,) −1 on the side of the first, +1 on that of the second.

    Raises:
        ValueError: other than two rigid parts, or parts that do not move along a line through two atoms.
    """
    n = positions.shape[1]
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    rigid = np.ptp(distances, axis=0) < RIGID
    own = rigid[0]
    if own.all() or not rigid[np.ix_(~own, ~own)].all() or not rigid[np.ix_(own, own)].all():
        raise ValueError("their atoms are not two parts that each move as a whole")
    near, far = np.flatnonzero(own), np.flatnonzero(~own)
    vectors = positions[:, far][:, None] - positions[:, near][:, :, None]  # (F, near, far, 3)
    lengths = np.linalg.norm(vectors, axis=-1)
    straight = np.linalg.norm(vectors / lengths[..., None] - (vectors / lengths[..., None])[:1], axis=-1)
    along = (straight * lengths).max(axis=0) < RIGID
    if not along.any():
        raise ValueError("no pair of atoms moves along the line between them")
    a, b = np.unravel_index(np.where(along, lengths.min(axis=0), np.inf).argmin(), along.shape)
    fragment = np.full(n, 1, dtype=np.int64)
    fragment[near] = -1
    return int(near[a]), int(far[b]), fragment
