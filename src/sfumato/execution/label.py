"""The job behind every campaign of reference calculations: structures in, one labelled record each out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.reference.engines import Engine


@dataclass(frozen=True)
class LabelWith:
    """Energies and forces of frames by one reference engine.

    Within a chunk each frame starts from the density of the one before it, where the engine has one and
    the molecule is the same: chunks are neighbouring frames of a scan.
    """

    engine: Engine

    def build(self) -> Callable[[Chunk], list[Record]]:
        """Return the function that labels a chunk."""

        def work(chunk: Chunk) -> list[Record]:
            before: tuple[np.ndarray, object] | None = None

            def one(item: Item) -> Record:
                nonlocal before
                system = item.payload.system()
                guess = before[1] if before and np.array_equal(before[0], system.numbers) else None
                label = self.engine.label(system, guess)
                if not label.converged:
                    return failed(item.key, f"not converged: {label.message}", seconds=label.seconds)
                before = (system.numbers, label.density)
                facts = {} if label.spin_squared is None else {"spin_squared": label.spin_squared}
                notes = {"message": label.message} if label.message else {}
                return ok(
                    item.key,
                    seconds=label.seconds,
                    energy=label.energy,
                    forces=encode(label.forces),
                    engine=label.engine,
                    **facts,
                    **notes,
                )

            return each(chunk, one)

        return work
