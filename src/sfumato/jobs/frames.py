"""Structures as items of work: what a worker gets, and the key its record is kept under."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sfumato.execution.records import Record, array, number
from sfumato.execution.runner import Item
from sfumato.systems import Bools, Floats, Ints, Scan, System


@dataclass(frozen=True, eq=False)
class Frame:
    """A structure on its way to a worker (unchecked until it is a System, which keeps planning fast).

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å.
        charge: in e.
        multiplicity: 2S+1.
        cell: (3, 3) Å; zeros where there is none.
        pbc: (3,) periodic directions.
    """

    numbers: Ints
    positions: Floats
    charge: int
    multiplicity: int
    cell: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: Bools = field(default_factory=lambda: np.zeros(3, dtype=bool))

    @classmethod
    def of(cls, system: System) -> Frame:
        """Take over a structure."""
        return cls(
            system.numbers, system.positions, system.charge, system.multiplicity, system.cell, system.pbc
        )

    def system(self) -> System:
        """The checked structure."""
        return System(self.numbers, self.positions, self.cell, self.pbc, self.charge, self.multiplicity)


def frames_of(scan: Scan, positions: Floats | None = None) -> list[Frame]:
    """Return the structures on a path (P, N, 3) of a scan's atoms; by default the scan's own frames."""
    return [
        Frame(scan.numbers, frame, scan.charge, scan.multiplicity, scan.cell, scan.pbc)
        for frame in (scan.positions if positions is None else positions)
    ]


@dataclass(frozen=True)
class Subject:
    """Whose results these are: the job, its version, and the hash of the potential."""

    job: str
    version: int
    identity: str

    def key(self, frame: Frame | Scan) -> str:
        """Return the record key of a structure, or of a scan as a whole: a hash of subject and geometry.

        Cell and periodic directions count only where there are any, so that a molecule is the same molecule
        in whatever box it was read from.
        """
        sha = self._head(frame)
        sha.update(_bytes(frame.positions, "<f8"))
        return str(sha.hexdigest())

    def keys_of(self, frames: Iterable[Frame]) -> list[str]:
        """Return `key` of many structures; frames of one scan share what is hashed first."""
        keys, last = [], None
        for frame in frames:
            if last is None or not _alike(frame, last):
                head = self._head(frame)
            last = frame
            sha = head.copy()
            sha.update(_bytes(frame.positions, "<f8"))
            keys.append(str(sha.hexdigest()))
        return keys

    def keys(self, scan: Scan, positions: Floats) -> list[str]:
        """Return the record key of every structure on a path (P, N, 3)."""
        head = self._head(scan)
        keys = []
        for frame in np.ascontiguousarray(positions, dtype="<f8"):
            sha = head.copy()
            sha.update(frame)
            keys.append(sha.hexdigest())
        return keys

    def items(self, scan: Scan, positions: Floats) -> Iterator[Item]:
        """Yield one item per structure on a path."""
        for key, frame in zip(self.keys(scan, positions), frames_of(scan, positions), strict=True):
            yield Item(key, frame)

    def _head(self, frame: Frame | Scan) -> Any:
        words = (self.job, self.version, self.identity, frame.charge, frame.multiplicity)
        head = hashlib.sha256("/".join(map(str, words)).encode())
        head.update(_bytes(frame.numbers, "<i8"))
        if frame.pbc.any():
            head.update(_bytes(frame.cell, "<f8") + _bytes(frame.pbc, "?"))
        return head


def _alike(one: Frame, other: Frame) -> bool:
    """Whether two frames are known at a glance to differ in nothing but positions."""
    return (
        one.numbers is other.numbers
        and one.cell is other.cell
        and one.pbc is other.pbc
        and (one.charge, one.multiplicity) == (other.charge, other.multiplicity)
    )


def _bytes(array: Ints | Floats | Bools, dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def energies_and_forces(records: Sequence[Record], atoms: int | None = None) -> tuple[Floats, Floats]:
    """Return (P,) eV and (P, N, 3) eV/Å of finished records of one molecule, bit by bit as predicted.

    Args:
        records: of the same atoms.
        atoms: how many; None: as many as in the first record.

    Raises:
        RecordError: a record holds no number, or no forces on as many atoms.
    """
    if (joined := _joined(records, atoms)) is not None:
        return np.array([number(record, "energy") for record in records]), joined
    energies, forces = [], []
    for record in records:
        energies.append(number(record, "energy"))
        forces.append(array(record, "forces", (atoms, 3)))
        atoms = len(forces[-1])
    return np.array(energies), np.stack(forces)


def _joined(records: Sequence[Record], atoms: int | None) -> Floats | None:
    """Return the forces of many records, decoded at once; None where one is not as the others are.

    Base64 of whole triples of bytes can be joined, and three coordinates are 24.
    """
    stored: list[Any] = [record.get("forces") for record in records]
    if not stored or not all(type(one) is dict for one in stored):
        return None
    shape = stored[0].get("shape") if atoms is None else [atoms, 3]
    if type(shape) is not list or [type(length) for length in shape] != [int, int] or shape[1] != 3:
        return None
    texts = [one.get("f8") for one in stored if one.get("shape") == shape]
    if len(texts) < len(stored) or any(type(t) is not str or len(t) != 32 * shape[0] for t in texts):
        return None
    try:
        content = base64.b64decode("".join(texts), validate=True)
    except ValueError:
        return None
    return np.frombuffer(content, dtype="<f8").reshape(len(texts), *shape)
