"""The job behind every campaign of reference calculations: structures in, one labelled record each out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.reference.engines import Engine


@dataclass(frozen=True)
class LabelWith:
    """Energies and forces of frames by one reference engine, each from scratch.

    A label depends on its structure alone: the order of work and kills leave no trace in the records.
    """

    engine: Engine

    def build(self) -> Callable[[Chunk], list[Record]]:
        """Return the function that labels a chunk."""
        return lambda chunk: each(chunk, self._label)

    def _label(self, item: Item) -> Record:
        label = self.engine.label(item.payload.system())
        if not label.converged:
            return failed(item.key, f"not converged: {label.message}", seconds=label.seconds)
        facts = {"spin_squared": label.spin_squared, "message": label.message}
        return ok(
            item.key,
            seconds=label.seconds,
            energy=label.energy,
            forces=encode(label.forces),
            engine=label.engine,
            **{name: value for name, value in facts.items() if value not in (None, "")},
        )
