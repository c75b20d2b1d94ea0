"""Energies and forces while one atom comes ever closer to another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.jobs.surface import Surface
from sfumato.jobs.tracks import Approach, TrackJob
from sfumato.potentials.potential import Potential


@dataclass(frozen=True)
class Approached(TrackJob):
    """Energies (eV) and the forces (eV/Å) on two atoms at each distance between them.

    The payload of an item is an `Approach`. Distances at which the potential fails are NaN; the record says
    how many and why. It fails only where all do.
    """

    name: ClassVar[str] = "approach"
    version: ClassVar[int] = 1

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """See `Job`."""

        def one(item: Item) -> Record:
            start, track = time.perf_counter(), item.payload
            assert isinstance(track, Approach)
            energy, forces, failures = Surface(potential).ask(track.systems())
            seconds = time.perf_counter() - start
            reason = next(iter(failures.values())).reason if failures else ""
            if len(failures) == len(energy):
                return failed(item.key, reason, seconds=seconds)
            pair = np.array([f[[track.mover, track.other]] for f in forces])
            lost = {"lost": len(failures), "reason": reason} if failures else {}
            return ok(item.key, seconds=seconds, energy=encode(energy), forces=encode(pair), **lost)

        return each(chunk, one)
