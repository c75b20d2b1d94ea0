"""Whether neighbors that are kept from step to step give what fresh ones give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sfumato.dynamics.observe import Observer
from sfumato.dynamics.state import State
from sfumato.potentials.potential import Potential, Session
from sfumato.systems import Batch, Floats, Ints


class Kept(Observer):
    """Follows a simulation with a session of its own, which keeps neighbors, and compares.

    The simulation itself must use fresh neighbors.

    Args:
        potential: of the simulation.
        batch: at the start.
        skin: Å, of the session.

    Samples:
        kept_energy: eV, the largest |ΔE| since the last sample.
        kept_force: eV/Å, the largest |ΔF| of a component. Both are infinite where the session has no answer.
    """

    def __init__(self, potential: Potential, batch: Batch, skin: float) -> None:
        self.potential, self.skin = potential, skin
        self._session: Session | None = None
        self._rows: Ints = np.zeros(0, dtype=np.int64)
        self.memory = {name: np.full(len(batch), np.nan) for name in ("kept_energy", "kept_force")}

    def see(self, state: State, rows: Ints, atoms: Ints) -> None:
        """See Observer."""
        if self._session is None:
            self._session = self.potential.session(state.batch, self.skin)
        elif len(rows) < len(self._rows):
            self._session = self._session.take(np.flatnonzero(np.isin(self._rows, rows)))
        self._rows = rows
        found = self._session.predict(state.batch.positions)
        energy = np.abs(found.energy - state.energy)
        force = np.zeros(len(state))
        off = np.nan_to_num(np.abs(found.forces - state.forces).max(axis=1), nan=np.inf)
        np.maximum.at(force, state.batch.index, off)
        for name, values in (("kept_energy", energy), ("kept_force", force)):
            worst = np.nan_to_num(values, nan=np.inf, posinf=np.inf)
            self.memory[name][rows] = np.fmax(self.memory[name][rows], worst)

    def recall(self, memory: Mapping[str, Floats | None]) -> None:
        """Begin a new segment, with new neighbors as every segment."""
        super().recall(memory)
        self._session = None

    def sample(self) -> dict[str, Floats]:
        """See Observer."""
        found = {name: values.copy() for name, values in self.memory.items()}
        for values in self.memory.values():
            values[:] = np.nan
        return found
