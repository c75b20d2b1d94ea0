"""Relaxation of many structures at once, each at its own pace."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sfumato.dynamics.state import atoms_of, by_structure
from sfumato.potentials.potential import Potential, Session
from sfumato.systems import Batch, Bools, Failure, Floats, Ints

START, LONGEST = 0.1, 1.0
"""First and longest step of time, in units in which every atom weighs 1 (as ASE's FIRE)."""

FARTHEST = 0.2
"""Å, how far an atom may go in a step."""

PATIENCE, GROW, SHRINK, STEER, STEER_LESS = 5, 1.1, 0.5, 0.1, 0.99


@dataclass(frozen=True, eq=False)
class Relaxed:
    """What became of some structures.

    Args:
        batch: where the atoms came to rest, or to where they came.
        energy: (S,) eV there; NaN where the potential had no answer.
        force: (S,) eV/Å, the largest force on an atom there; NaN likewise.
        steps: (S,) that were made.
        failures: structure → why it stopped early.
    """

    batch: Batch
    energy: Floats
    force: Floats
    steps: Ints
    failures: dict[int, Failure]


@dataclass
class _Pace:
    """Where the structures still on their way are, and how fast each goes."""

    session: Session
    rows: Ints
    velocities: Floats
    step: Floats
    steer: Floats
    downhill: Ints

    @classmethod
    def of(cls, session: Session) -> _Pace:
        s = len(session.batch)
        ones = np.ones(s)
        zeros = np.zeros(s, dtype=np.int64)
        return cls(
            session, np.arange(s), np.zeros_like(session.batch.positions), START * ones, STEER * ones, zeros
        )

    def keep(self, stay: Ints) -> None:
        """Go on with some of them."""
        self.velocities = self.velocities[atoms_of(self.session.batch, stay)]
        self.session = self.session.take(stay)
        for name in ("rows", "step", "steer", "downhill"):
            setattr(self, name, getattr(self, name)[stay])

    def positions(self, forces: Floats) -> Floats:
        """Return where the atoms go next (FIRE): downhill with growing speed, a halt where it goes up."""
        batch = self.session.batch
        power = by_structure(batch, (forces * self.velocities).sum(axis=1))
        self._adapt(power > 0)
        norms = [np.sqrt(by_structure(batch, (part**2).sum(axis=1))) for part in (self.velocities, forces)]
        along = np.divide(norms[0], norms[1], out=np.zeros(len(batch)), where=norms[1] > 0)

        def of(values: Floats) -> Floats:
            return np.asarray(values[batch.index][:, None])

        steered = (1 - of(self.steer)) * self.velocities + of(self.steer * along) * forces
        going = of((power > 0).astype(float))
        self.velocities = going * steered + of(self.step) * forces
        move = of(self.step) * self.velocities
        length = np.sqrt((move**2).sum(axis=1))
        longest = np.zeros(len(batch))
        np.maximum.at(longest, batch.index, length)
        return np.asarray(batch.positions + of(FARTHEST / np.maximum(longest, FARTHEST)) * move)

    def _adapt(self, down: Bools) -> None:
        ready = down & (self.downhill >= PATIENCE)
        self.step = np.where(ready, np.minimum(self.step * GROW, LONGEST), self.step)
        self.steer = np.where(ready, self.steer * STEER_LESS, self.steer)
        self.downhill = np.where(down, self.downhill + 1, 0)
        self.step = np.where(down, self.step, self.step * SHRINK)
        self.steer = np.where(down, self.steer, STEER)


def relax(potential: Potential, batch: Batch, force: float, steps: int) -> Relaxed:
    """Let structures go downhill until the largest force on an atom is small; cells stay as they are.

    What becomes of a structure does not depend on the others.

    Args:
        potential: any.
        batch: structures.
        force: eV/Å, small enough.
        steps: made at most.

    Returns:
        Each structure at its last step, or at the last one with an answer.

    Source: Bitzek et al. 2006, Phys. Rev. Lett. 97, 170201 (FIRE).
    """
    s = len(batch)
    positions = batch.positions.copy()
    energy, largest = np.full(s, np.nan), np.full(s, np.nan)
    made = np.zeros(s, dtype=np.int64)
    failures: dict[int, Failure] = {}
    pace = _Pace.of(potential.session(batch, 0.3))
    here = batch.positions
    for step in range(steps + 1):
        found = pace.session.predict(here)
        now = pace.session.batch
        for k, why in found.failures.items():
            failures[int(pace.rows[k])] = why
        sound = np.setdiff1d(np.arange(len(now)), list(found.failures))
        rows = pace.rows[sound]
        size = np.zeros(len(now))
        np.maximum.at(size, now.index, np.sqrt((np.nan_to_num(found.forces) ** 2).sum(axis=1)))
        positions[atoms_of(batch, rows)] = here[atoms_of(now, sound)]
        energy[rows], largest[rows], made[rows] = found.energy[sound], size[sound], step
        stay = sound[~(size[sound] <= force)]
        if not len(stay) or step == steps:
            break
        forces = found.forces[atoms_of(now, stay)]
        if len(stay) < len(now):
            pace.keep(stay)
        here = pace.positions(forces)
    return Relaxed(replace(batch, positions=positions), energy, largest, made, failures)
