"""The job behind every protocol that only needs energies and forces: structures in, one record each out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk
from sfumato.potentials.potential import Potential
from sfumato.potentials.specs import resolve
from sfumato.systems import Batch, Failure, Prediction, System


@dataclass(frozen=True)
class Evaluate:
    """Energies and forces of frames by one potential.

    Args:
        subject: a potential's spec, resolved anew in each worker, or a Potential for use in this process.
        identity: what the potential must be; a file that changed since the run began is an error.
    """

    subject: str | Potential
    identity: str

    def build(self) -> Callable[[Chunk], list[Record]]:
        """Load the potential."""
        potential = resolve(self.subject) if isinstance(self.subject, str) else self.subject
        if potential.identity != self.identity:
            raise ValueError(f"{potential.name}: the model changed while the run was going; start it again")

        def work(chunk: Chunk) -> list[Record]:
            return evaluate(potential, chunk)

        return work


def evaluate(potential: Potential, chunk: Chunk) -> list[Record]:
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
