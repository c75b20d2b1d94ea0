"""The jobs behind every campaign of reference calculations: structures in, one labeled record each out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.jobs.frames import Subject
from sfumato.potentials.engines import Engine, Label

LABEL = ("label", 1)
"""Protocol and version of labeled points."""

SWEEP = ("sweep", 1)
"""Protocol and version of forward and backward sweeps."""


@dataclass(frozen=True)
class EngineJob:
    """Work by one engine, which must be the same on every machine that works.

    Args:
        engine: the level of theory; its identity is taken here and compared in each worker.
    """

    engine: Engine
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", self.engine.identity)

    def build(self, device: str) -> Callable[[Chunk], list[Record]]:
        """Return the function that works on a chunk.

        Raises:
            ValueError: the engine's package or its version differ from the driver's.
        """
        if self.engine.identity != self.identity:
            raise ValueError(
                f"{self.engine.level}: this worker has another version of the engine than the driver; "
                "install the same packages on every machine"
            )
        return lambda chunk: each(chunk, self._work)

    def _work(self, item: Item) -> Record:
        raise NotImplementedError


@dataclass(frozen=True)
class LabelWith(EngineJob):
    """Energies and forces of frames by one reference engine, each from scratch.

    A label depends on its structure alone: the order of work and kills leave no trace in the records. The
    payload of an item is a `Frame`.
    """

    def _work(self, item: Item) -> Record:
        return _record(item.key, self.engine.label(item.payload.system()))


@dataclass(frozen=True)
class LabelFromNeighbor(EngineJob):
    """Energies and forces of frames that did not converge from scratch, from a neighboring frame's orbitals.

    The payload of an item is a frame and its neighbor: the same atoms at other positions, where the engine
    does converge. The neighbor is labeled first and lends its density; the record names it and says so.
    An engine without a density (tblite) labels from scratch once more.
    """

    def _work(self, item: Item) -> Record:
        frame, neighbor = item.payload
        lender = self.engine.label(neighbor.system())
        named = {"neighbor": Subject(*LABEL, self.identity).key(neighbor)}
        if not lender.converged:
            reason = f"not converged: neither did the neighboring frame: {lender.message}"
            return failed(item.key, reason, seconds=lender.seconds) | named
        label = self.engine.label(frame.system(), guess=lender.density)
        help_ = "" if lender.density is None else "from the orbitals of a neighboring frame"
        return _record(item.key, label, help_) | named


@dataclass(frozen=True)
class Sweep(EngineJob):
    """Energies along a path, there and back, each frame from the orbitals of the one before.

    The payload of an item is a sequence of frames. Where the two directions differ, the SCF has several
    solutions and the one it finds depends on where it came from. A frame that does not converge is NaN and
    lends no orbitals; the turning point is labeled once. An engine without a density (tblite) labels from
    scratch, and shows no hysteresis.
    """

    def _work(self, item: Item) -> Record:
        start = time.perf_counter()
        frames = item.payload
        energies, density = [], None
        for frame in (*frames, *frames[-2::-1]):
            label = self.engine.label(frame.system(), guess=density)
            energies.append(label.energy)
            density = label.density if label.converged else density
        turn = len(frames) - 1
        return ok(
            item.key,
            seconds=time.perf_counter() - start,
            forward=encode(np.array(energies[: turn + 1])),
            backward=encode(np.array(energies[turn:][::-1])),
            engine=label.engine,
        )


def _record(key: str, label: Label, help_: str = "") -> Record:
    message = "; ".join(part for part in (help_, label.message) if part)
    if not label.converged:
        reason = label.reason if label.raised else f"not converged: {message}"
        return failed(key, reason, seconds=label.seconds)
    facts = {"spin_squared": label.spin_squared, "message": message}
    return ok(
        key,
        seconds=label.seconds,
        energy=label.energy,
        forces=encode(label.forces),
        engine=label.engine,
        **{name: value for name, value in facts.items() if value not in (None, "")},
    )
