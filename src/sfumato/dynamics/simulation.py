"""Replicas that move together: steps, observers and stop conditions, and who left when and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sfumato.dynamics.conditions import Condition, Left, NoAnswer
from sfumato.dynamics.integrators import Integrator
from sfumato.dynamics.observe import Observer
from sfumato.dynamics.state import State, atoms_of
from sfumato.potentials.potential import Session
from sfumato.systems import Batch, Floats, Ints

NO_ANSWER = NoAnswer()
"""Always the first condition: without energies and forces there is no next step."""


@dataclass
class Seen:
    """What a stretch of a simulation left behind.

    Args:
        steps: of each sample.
        series: name → (R,) of each sample, over all replicas of the start; NaN for one that had left.
        frames: (step, replicas, positions of their atoms) now and then.
    """

    steps: list[int] = field(default_factory=list)
    series: dict[str, list[Floats]] = field(default_factory=dict)
    frames: list[tuple[int, Ints, Floats]] = field(default_factory=list)


@dataclass
class Simulation:
    """A batch of replicas on their way.

    A replica that meets a fatal condition leaves; the others go on, and what happens to them does not depend
    on it. Their numbers are the same to the last bit where the potential's are the same in any batch.

    Args:
        session: the living replicas at the potential.
        state: theirs.
        integrator: how they go on.
        start: the batch with all replicas.
        rows: (S,) numbers of the living in it.
        observers: see every step.
        conditions: that are looked at after `NO_ANSWER`, in this order.
        every: steps from sample to sample.
        save: steps from frame to frame; 0 for no frames.
        left: replica → why it left.
        noted: replica → kind → the first time a condition that is not fatal came true.
    """

    session: Session
    state: State
    integrator: Integrator
    start: Batch
    rows: Ints
    observers: Sequence[Observer]
    conditions: Sequence[Condition]
    every: int = 1
    save: int = 0
    left: dict[int, Left] = field(default_factory=dict)
    noted: dict[int, dict[str, Left]] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    def __post_init__(self) -> None:
        self.atoms = atoms_of(self.start, self.rows)

    @property
    def over(self) -> bool:
        """Whether nobody is left."""
        return not len(self.rows)

    def advance(self, steps: int, watch: Callable[[State], None] = lambda state: None) -> None:
        """Make steps, fewer where nobody is left.

        Args:
            steps: how many.
            watch: called after each.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows has exploded
            if self.state.step == 0 and not self.seen.steps:
                self._look()
            for _ in range(steps):
                if self.over:
                    return
                self.state = self.integrator.step(self.session, self.state)
                self._look()
                watch(self.state)

    def _look(self) -> None:
        """Let everyone see the state: observers, conditions, samples, frames."""
        self._dismiss(NO_ANSWER, NO_ANSWER.look(self.state, self.rows))
        step = self.state.step
        if not self.over:
            for observer in self.observers:
                observer.see(self.state, self.rows, self.atoms)
            for condition in self.conditions:
                if step % condition.every == 0 and not self.over:
                    self._dismiss(condition, condition.look(self.state, self.rows))
        if step % self.every == 0 or self.over:
            self._sample()
        if self.save and step % self.save == 0 and not self.over:
            self.seen.frames.append((step, self.rows, self.state.batch.positions))

    def _sample(self) -> None:
        self.seen.steps.append(self.state.step)
        for observer in self.observers:
            for name, values in observer.sample().items():
                self.seen.series.setdefault(name, []).append(values)

    def _dismiss(self, condition: Condition, found: dict[int, str]) -> None:
        """Take note of what a condition says; let those leave that have to."""
        if not found:
            return
        for k, reason in found.items():
            row = int(self.rows[k])
            why = Left(condition.kind, reason, self.state.step)
            if condition.fatal:
                self.left[row] = why
            else:
                self.noted.setdefault(row, {}).setdefault(condition.kind, why)
        if condition.fatal:
            stay = np.setdiff1d(np.arange(len(self.rows)), list(found))
            self.rows = self.rows[stay]
            self.atoms = atoms_of(self.start, self.rows)
            if len(stay):
                self.state = self.state.take(stay)
                self.session = self.session.take(stay)
