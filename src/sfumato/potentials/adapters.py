"""Bridges to potentials that live in other packages, each imported only when asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.potentials.potential import Potential
from sfumato.reference.engines import Engine
from sfumato.systems import Batch, Prediction


@dataclass(frozen=True)
class FromEngine:
    """A reference engine as a potential; an unconverged point raises."""

    engine: Engine
    name: str
    chunk: int = 1

    @property
    def identity(self) -> str:
        """The engine's."""
        return self.engine.identity

    def predict(self, batch: Batch) -> Prediction:
        """Label structure by structure."""
        labels = [self.engine.label(system) for system in batch]
        for label in labels:
            if not label.converged:
                raise RuntimeError(f"not converged: {label.message}")
        return Prediction(
            np.array([label.energy for label in labels]), np.concatenate([label.forces for label in labels])
        )


def from_engine(engine: Engine, name: str) -> Potential:
    """Return a reference engine as a potential."""
    return FromEngine(engine, name)
