"""The job behind every protocol that only needs energies and forces: structures in, one record each out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.potentials.potential import Potential
from sfumato.potentials.specs import resolve
from sfumato.systems import Batch, Floats


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
    """Predict a chunk at once; where that fails, one by one, so that a failure costs only its own item."""
    note = ""
    if potential.chunk > 1 and len(chunk) > 1:
        start = time.perf_counter()
        try:
            systems = [item.payload.system() for item in chunk]
            prediction = potential.predict(Batch.of(systems))
        except Exception as error:  # noqa: BLE001 (each item is tried alone and carries the reason)
            note = f"predicted alone: a batch of {len(chunk)} raised {type(error).__name__}: {error}"
        else:
            seconds = (time.perf_counter() - start) / len(chunk)
            stops = np.cumsum([len(system) for system in systems])[:-1]
            forces = np.split(prediction.forces, stops)
            return [
                _record(item, energy, force, seconds)
                for item, energy, force in zip(chunk, prediction.energy, forces, strict=True)
            ]

    def work(item: Item) -> Record:
        start = time.perf_counter()
        prediction = potential.predict(Batch.of([item.payload.system()]))
        record = _record(item, prediction.energy[0], prediction.forces, time.perf_counter() - start)
        return record | ({"note": note} if note else {})

    return each(chunk, work)


def _record(item: Item, energy: float, forces: Floats, seconds: float) -> Record:
    if len(forces) != len(item.payload.numbers):
        reason = f"forces for {len(forces)} atoms were returned, expected {len(item.payload.numbers)}"
        return failed(item.key, reason, seconds=seconds)
    for what, value in (("energy", np.asarray(energy)), ("forces", forces)):
        if not np.isfinite(value).all():
            bad = value[~np.isfinite(value)].flat[0]
            return failed(item.key, f"the predicted {what} is not finite ({bad})", seconds=seconds)
    return ok(item.key, seconds=seconds, energy=float(energy), forces=encode(forces))
