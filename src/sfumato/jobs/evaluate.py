"""The job behind every protocol that only needs energies and forces."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk
from sfumato.jobs.job import Job
from sfumato.potentials.potential import Potential
from sfumato.systems import Batch, Failure, Prediction, System


@dataclass(frozen=True)
class Evaluate(Job):
    """Energies (eV) and forces (eV/Å) of structures."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 1

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """Predict a chunk at once; a structure that fails is a record with its reason."""
        systems: list[System] = []
        refused: dict[str, Failure] = {}
        for item in chunk:
            try:
                systems.append(item.payload.system())
            except ValueError as error:
                refused[item.key] = Failure.of(error)
        start = time.perf_counter()
        sound = [item for item in chunk if item.key not in refused]
        found = potential.predict(Batch.of(systems)) if systems else Prediction(np.zeros(0), np.zeros((0, 3)))
        seconds = (time.perf_counter() - start) / len(chunk)
        forces = np.split(found.forces, np.cumsum([len(system) for system in systems])[:-1])
        records = {
            item.key: _failed(item.key, found.failures[k], seconds)
            if k in found.failures
            else ok(item.key, seconds=seconds, energy=float(found.energy[k]), forces=encode(forces[k]))
            for k, item in enumerate(sound)
        }
        return [records.get(item.key) or _failed(item.key, refused[item.key], 0.0) for item in chunk]


def _failed(key: str, failure: Failure, seconds: float) -> Record:
    trace = "".join(traceback.format_exception(failure.error, limit=-4)) if failure.error else ""
    return failed(key, failure.reason, seconds=seconds, traceback=trace)
