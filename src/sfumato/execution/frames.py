"""Structures on a scan as items of work: what a worker gets, and the key its record is kept under."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.execution.records import Record, decode
from sfumato.execution.runner import Item
from sfumato.systems import Floats, Ints, Scan, System


@dataclass(frozen=True, eq=False)
class Frame:
    """A structure on its way to a worker (unchecked until it is a System, which keeps planning fast)."""

    numbers: Ints
    positions: Floats
    charge: int
    multiplicity: int

    def system(self) -> System:
        """The checked structure."""
        return System(self.numbers, self.positions, charge=self.charge, multiplicity=self.multiplicity)


@dataclass(frozen=True)
class Subject:
    """Whose results these are: protocol, its version, and the hash of the model or engine."""

    protocol: str
    version: int
    identity: str

    def keys(self, scan: Scan, positions: Floats) -> list[str]:
        """Return the record key of every structure on a path (P, N, 3): a hash of subject and geometry."""
        words = (self.protocol, self.version, self.identity, scan.charge, scan.multiplicity)
        head = hashlib.sha256("/".join(map(str, words)).encode())
        head.update(np.ascontiguousarray(scan.numbers, dtype="<i8").tobytes())
        keys = []
        for frame in np.ascontiguousarray(positions, dtype="<f8"):
            sha = head.copy()
            sha.update(frame.tobytes())
            keys.append(sha.hexdigest())
        return keys

    def items(self, scan: Scan, positions: Floats) -> Iterator[Item]:
        """Yield one item per structure on a path."""
        for key, frame in zip(self.keys(scan, positions), positions, strict=True):
            yield Item(key, Frame(scan.numbers, frame, scan.charge, scan.multiplicity))


def energies_and_forces(records: Sequence[Record]) -> tuple[Floats, Floats]:
    """Return (P,) eV and (P, N, 3) eV/Å of finished records of one molecule, bit by bit as predicted."""
    energies = np.array([record["energy"] for record in records], dtype=float)
    return energies, np.stack([decode(record["forces"]) for record in records])
