"""Frozen array containers, checked when made: System, Batch, Prediction, Scan, ScanSet.

Units throughout: Å, eV, eV/Å, eV/Å³. Charges in e; multiplicity is 2S+1. Arrays are read-only:
a container that passed its checks stays true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_ATOMIC_NUMBER = 118

COORDINATES = {1: "site", 2: "bond", 3: "angle", 4: "torsion"}
"""Kinds of scans, by the number of atoms that define the coordinate."""


def _frozen(values: ArrayLike, dtype: type, shape: tuple[int | None, ...], what: str) -> NDArray[Any]:
    """Return a read-only copy of `values` with the given dtype, or say which shape was expected."""
    try:
        array: NDArray[Any] = np.array(values, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: cannot be read as an array of {dtype.__name__}: {error}") from None
    if len(array.shape) != len(shape) or any(
        n is not None and n != m for n, m in zip(shape, array.shape, strict=True)
    ):
        expected = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{what}: expected shape {expected}, got {array.shape}")
    array.flags.writeable = False
    return array


def _check_numbers(numbers: Ints, what: str) -> None:
    bad = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)]
    if len(bad):
        raise ValueError(f"{what}: {int(bad[0])} is not an atomic number (1 to {MAX_ATOMIC_NUMBER})")


def symbols(numbers: Iterable[int]) -> str:
    """Return chemical symbols in order, "H, C, N, O", and of more than three in a row the ends, "H to Cm"."""
    from ase.data import chemical_symbols

    runs: list[list[str]] = []
    last = None
    for z in sorted(set(numbers)):
        if last is None or z > last + 1:
            runs.append([])
        # A model may be asked about numbers that are not elements.
        runs[-1].append(chemical_symbols[z] if 1 <= z <= MAX_ATOMIC_NUMBER else str(z))
        last = z
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 3 else ", ".join(run) for run in runs)


def _check_finite(array: Floats, what: str) -> None:
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{what}: value {array[first]} at index {first} is not finite")


def digest(parts: Iterable[ArrayLike | str]) -> str:
    """Return the SHA-256 of a sequence of arrays and strings, with their types and shapes.

    Arrays are hashed as little-endian bytes, so the digest is the same on every machine.
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            data, head = part.encode(), "str"
        else:
            array = np.asarray(part)
            little = array.astype(array.dtype.newbyteorder("<"))
            data, head = little.tobytes(), f"{little.dtype.str}{little.shape}"
        sha.update(f"{head}:{len(data)};".encode())
        sha.update(data)
    return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class System:
    """One structure: atomic numbers, positions, and, where periodic, a cell.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors; zeros where there is none.
        pbc: (3,) periodic directions.
        charge: total charge in e.
        multiplicity: spin multiplicity 2S+1.

    Raises:
        ValueError: a wrong shape, a non-finite position, an impossible atomic number or multiplicity,
            or a periodic direction without a lattice vector.
    """

    numbers: Ints
    positions: Floats
    cell: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: Bools = field(default_factory=lambda: np.zeros(3, dtype=bool))
    charge: int = 0
    multiplicity: int = 1

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "numbers", _frozen(self.numbers, np.int64, (None,), "numbers"))
        put(self, "positions", _frozen(self.positions, np.float64, (len(self.numbers), 3), "positions"))
        put(self, "cell", _frozen(self.cell, np.float64, (3, 3), "cell"))
        put(self, "pbc", _frozen(self.pbc, np.bool_, (3,), "pbc"))
        _check_numbers(self.numbers, "numbers")
        _check_finite(self.positions, "positions")
        _check_finite(self.cell, "cell")
        if self.multiplicity < 1:
            raise ValueError(f"multiplicity: 2S+1 is at least 1, got {self.multiplicity}")
        if (self.pbc & (np.linalg.norm(self.cell, axis=1) == 0)).any():
            raise ValueError("cell: a periodic direction has a zero lattice vector")
        if self.pbc.all() and np.linalg.det(self.cell) == 0:
            raise ValueError("cell: a fully periodic system has a cell of zero volume")

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of everything that defines the structure."""
        return digest(
            (self.numbers, self.positions, self.cell, self.pbc, np.array([self.charge, self.multiplicity]))
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Several structures as flat arrays.

    Args:
        numbers: (N,) atomic numbers of all atoms.
        positions: (N, 3) Å.
        index: (N,) the system each atom belongs to, non-decreasing.
        cell: (S, 3, 3) Å.
        pbc: (S, 3).
        charge: (S,) e.
        multiplicity: (S,) 2S+1.

    Raises:
        ValueError: a wrong shape, an impossible atomic number, or an index that is not 0…S−1 in order.
    """

    numbers: Ints
    positions: Floats
    index: Ints
    cell: Floats
    pbc: Bools
    charge: Ints
    multiplicity: Ints

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "numbers", _frozen(self.numbers, np.int64, (None,), "numbers"))
        _check_numbers(self.numbers, "numbers")
        n = len(self.numbers)
        put(self, "positions", _frozen(self.positions, np.float64, (n, 3), "positions"))
        put(self, "index", _frozen(self.index, np.int64, (n,), "index"))
        put(self, "cell", _frozen(self.cell, np.float64, (None, 3, 3), "cell"))
        s = len(self.cell)
        put(self, "pbc", _frozen(self.pbc, np.bool_, (s, 3), "pbc"))
        put(self, "charge", _frozen(self.charge, np.int64, (s,), "charge"))
        put(self, "multiplicity", _frozen(self.multiplicity, np.int64, (s,), "multiplicity"))
        if n and (self.index[0] < 0 or self.index[-1] >= s or (np.diff(self.index) < 0).any()):
            raise ValueError(f"index: expected non-decreasing system numbers in 0…{s - 1}")

    @classmethod
    def of(cls, systems: Sequence[System]) -> Batch:
        """Concatenate structures."""
        if not systems:
            raise ValueError("Batch.of: needs at least one system")
        return cls(
            numbers=np.concatenate([s.numbers for s in systems]),
            positions=np.concatenate([s.positions for s in systems]),
            index=np.repeat(np.arange(len(systems)), [len(s) for s in systems]),
            cell=np.stack([s.cell for s in systems]),
            pbc=np.stack([s.pbc for s in systems]),
            charge=np.array([s.charge for s in systems]),
            multiplicity=np.array([s.multiplicity for s in systems]),
        )

    def __len__(self) -> int:
        return len(self.cell)

    def take(self, rows: Sequence[int] | Ints) -> Batch:
        """Return some of the structures, in the order of `rows`.

        Args:
            rows: numbers of structures, at least one; a structure may come several times.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        sizes = np.diff(self.offsets)[chosen]
        starts = np.repeat(self.offsets[chosen] - np.cumsum(sizes) + sizes, sizes)
        atoms = starts + np.arange(sizes.sum())
        return Batch(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            index=np.repeat(np.arange(len(chosen)), sizes),
            cell=self.cell[chosen],
            pbc=self.pbc[chosen],
            charge=self.charge[chosen],
            multiplicity=self.multiplicity[chosen],
        )

    @cached_property
    def offsets(self) -> Ints:
        """(S + 1,) where each system's atoms start in the flat arrays."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.index, minlength=len(self)))])

    def __iter__(self) -> Iterator[System]:
        for k, (start, stop) in enumerate(zip(self.offsets, self.offsets[1:])):
            yield System(
                numbers=self.numbers[start:stop],
                positions=self.positions[start:stop],
                cell=self.cell[k],
                pbc=self.pbc[k],
                charge=int(self.charge[k]),
                multiplicity=int(self.multiplicity[k]),
            )


@dataclass(frozen=True)
class Failure:
    """Why a structure has no prediction.

    Args:
        reason: what to tell a person, for example "out of memory".
        error: the exception behind it, where there was one in this process.
    """

    reason: str
    error: Exception | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Describe an exception."""
        kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        return cls(f"{kind}: {error}" if str(error) else kind, error)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Energies and forces of a batch, and which of its structures could not be predicted.

    Args:
        energy: (S,) eV; NaN for a structure that failed.
        forces: (N, 3) eV/Å; NaN likewise.
        stress: (S, 3, 3) eV/Å³, dE/dε over the volume; None where the potential has none.
        failures: structure → why it has no prediction; all others have finite numbers.

    Raises:
        ValueError: a wrong shape.
    """

    energy: Floats
    forces: Floats
    stress: Floats | None = None
    failures: Mapping[int, Failure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "energy", _frozen(self.energy, np.float64, (None,), "energy"))
        put(self, "forces", _frozen(self.forces, np.float64, (None, 3), "forces"))
        if self.stress is not None:
            put(self, "stress", _frozen(self.stress, np.float64, (len(self.energy), 3, 3), "stress"))

    @classmethod
    def failed(cls, batch: Batch, failure: Failure) -> Prediction:
        """Return that no structure of a batch can be predicted."""
        s, n = len(batch), len(batch.numbers)
        failures = dict.fromkeys(range(s), failure)
        stress = np.full((s, 3, 3), np.nan) if batch.pbc.all() else None
        return cls(np.full(s, np.nan), np.full((n, 3), np.nan), stress, failures)

    @classmethod
    def join(cls, parts: Sequence[Prediction]) -> Prediction:
        """Return the predictions of consecutive batches as one; it has stress only if all of them have."""
        failures: dict[int, Failure] = {}
        first = 0
        for part in parts:
            failures |= {first + k: failure for k, failure in part.failures.items()}
            first += len(part.energy)
        stress = [part.stress for part in parts if part.stress is not None]
        return cls(
            np.concatenate([part.energy for part in parts]),
            np.concatenate([part.forces for part in parts]),
            np.concatenate(stress) if len(stress) == len(parts) else None,
            failures,
        )

    def checked(self, batch: Batch) -> Prediction:
        """Return the same, where a structure with a number that is not finite has failed too."""
        failures = dict(self.failures)
        for what, bad in (
            ("stress", self._not_finite(self.stress)),
            ("forces", self._not_finite(self.forces)),
            ("energy", self._not_finite(self.energy)),
        ):
            rows = batch.index[bad] if what == "forces" else np.flatnonzero(bad)
            for k in np.unique(rows).tolist():
                if k not in self.failures:
                    reason = f"the predicted {what} is not finite"
                    failures[k] = Failure(reason, ValueError(f"structure {k}: {reason}"))
        if not failures:
            return self
        lost = np.isin(np.arange(len(batch)), list(failures))
        energy, forces = self.energy.copy(), self.forces.copy()
        energy[lost], forces[lost[batch.index]] = np.nan, np.nan
        stress = None
        if self.stress is not None:
            stress = self.stress.copy()
            stress[lost] = np.nan
        return Prediction(energy, forces, stress, failures)

    @staticmethod
    def _not_finite(values: Floats | None) -> Bools:
        if values is None:
            return np.zeros(0, dtype=bool)
        axes = tuple(range(1, values.ndim))
        return np.asarray(~np.isfinite(values).all(axis=axes), dtype=bool)

    def require(self) -> Prediction:
        """Return the same if no structure failed.

        Raises:
            Exception: the first failure's own, or a RuntimeError with its reason.
        """
        for k in sorted(self.failures):
            failure = self.failures[k]
            raise failure.error or RuntimeError(f"structure {k}: {failure.reason}")
        return self


@dataclass(frozen=True, eq=False)
class Scan:
    """Reference energies and forces along one internal coordinate of one structure.

    Args:
        name: unique in its set, "type/id", for example "C-O/64".
        numbers: (N,) atomic numbers.
        positions: (F, N, 3) Å.
        coordinate: (F,) Å, strictly increasing: the bond length, or for other kinds the arc length that the
            last of `atoms` travels against the first.
        energy: (F,) eV; NaN where the reference calculation failed.
        forces: (F, N, 3) eV/Å; NaN likewise.
        atoms: (1 to 4,) the atoms whose site, bond, angle or torsion is scanned.
        fragment: (N,) ±1, the part of the structure each atom moves with (h_i of the source's Eq. 1).
        charge: total charge in e.
        multiplicity: 2S+1.
        smiles: the molecule, atom-mapped where known; may be empty.
        cell: (3, 3) Å, rows are lattice vectors; zeros where there is none.
        pbc: (3,) periodic directions.

    Raises:
        ValueError: a wrong shape, a coordinate that does not increase, or labels other than ±1.
    """

    name: str
    numbers: Ints
    positions: Floats
    coordinate: Floats
    energy: Floats
    forces: Floats
    atoms: Ints
    fragment: Ints
    charge: int
    multiplicity: int
    smiles: str = ""
    cell: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: Bools = field(default_factory=lambda: np.zeros(3, dtype=bool))

    def __post_init__(self) -> None:
        put = object.__setattr__
        what = f"scan {self.name}: "
        if self.name.count("/") != 1:
            raise ValueError(f"{what}the name must read 'type/id'")
        put(self, "numbers", _frozen(self.numbers, np.int64, (None,), what + "numbers"))
        n = len(self.numbers)
        put(self, "positions", _frozen(self.positions, np.float64, (None, n, 3), what + "positions"))
        f = len(self.positions)
        put(self, "coordinate", _frozen(self.coordinate, np.float64, (f,), what + "coordinate"))
        put(self, "energy", _frozen(self.energy, np.float64, (f,), what + "energy"))
        put(self, "forces", _frozen(self.forces, np.float64, (f, n, 3), what + "forces"))
        put(self, "atoms", _frozen(self.atoms, np.int64, (None,), what + "atoms"))
        put(self, "fragment", _frozen(self.fragment, np.int64, (n,), what + "fragment"))
        _check_numbers(self.numbers, what + "numbers")
        _check_finite(self.positions, what + "positions")
        _check_finite(self.coordinate, what + "coordinate")
        if not (np.diff(self.coordinate) > 0).all():
            raise ValueError(f"{what}the coordinate must increase from frame to frame")
        put(self, "cell", _frozen(self.cell, np.float64, (3, 3), what + "cell"))
        put(self, "pbc", _frozen(self.pbc, np.bool_, (3,), what + "pbc"))
        if len(self.atoms) not in COORDINATES:
            raise ValueError(f"{what}a coordinate is of 1 to {max(COORDINATES)} atoms, got {len(self.atoms)}")
        if len(set(self.atoms.tolist()) & set(range(n))) < len(self.atoms):
            raise ValueError(f"{what}atoms {self.atoms.tolist()} name one outside 0…{n - 1} or twice")
        if not np.isin(self.fragment, (-1, 1)).all():
            raise ValueError(f"{what}fragment labels must be −1 or +1")

    def __len__(self) -> int:
        return len(self.coordinate)

    @property
    def kind(self) -> str:
        """One of `COORDINATES`."""
        return COORDINATES[len(self.atoms)]

    @property
    def stratum(self) -> str:
        """The type of bond, angle, torsion or site, by which statistics are stratified."""
        return self.name.split("/")[0]

    @cached_property
    def labeled(self) -> Bools:
        """(F,) frames whose reference energy and forces are all finite."""
        return np.isfinite(self.energy) & np.isfinite(self.forces).all(axis=(1, 2))

    def system(self, frame: int) -> System:
        """Return one frame as a structure."""
        return System(
            self.numbers, self.positions[frame], self.cell, self.pbc, self.charge, self.multiplicity
        )

    @cached_property
    def identity(self) -> str:
        """SHA-256 of everything but the SMILES."""
        lattice = (self.cell, self.pbc) if self.pbc.any() else ()
        return digest(
            (
                self.name,
                self.numbers,
                self.positions,
                self.coordinate,
                self.energy,
                self.forces,
                self.atoms,
                self.fragment,
                np.array([self.charge, self.multiplicity]),
                *lattice,
            )
        )


@dataclass(frozen=True, eq=False)
class ScanSet:
    """A data set of scans with the facts that make it usable.

    Args:
        name: short name, for example "bsct-spice".
        level: level of theory of the labels, for example "wB97M-D3(BJ)/def2-TZVPPD".
        licence: SPDX identifier or the owner's words.
        source: who made it and where it came from.
        scans: the scans, names unique.
        provenance: everything else that made it (JSON types only).

    Raises:
        ValueError: an empty level or licence, or two scans of one name.
    """

    name: str
    level: str
    licence: str
    source: str
    scans: tuple[Scan, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scans", tuple(self.scans))
        for what in ("name", "level", "licence"):
            if not getattr(self, what):
                raise ValueError(f"scan set {self.name!r}: {what} must not be empty")
        seen: set[str] = set()
        for scan in self.scans:
            if scan.name in seen:
                raise ValueError(f"scan set {self.name!r}: two scans are called {scan.name!r}")
            seen.add(scan.name)

    def __len__(self) -> int:
        return len(self.scans)

    def __iter__(self) -> Iterator[Scan]:
        return iter(self.scans)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the level of theory and of all scans in order."""
        return digest([self.level, *(scan.identity for scan in self.scans)])
