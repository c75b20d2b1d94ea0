"""Relaxation as a job: where the atoms of a structure come to rest on a potential."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sfumato.dynamics.relax import Relaxed, relax
from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item
from sfumato.jobs.job import Job
from sfumato.potentials.potential import Potential
from sfumato.systems import Batch, System

SHORT = 16.0
"""Å; cells that are thicker in every periodic direction hold the reach of any local potential twice."""

SAME = 1e-4
"""eV per atom by which the energy of a cell may differ from that of several of them."""


@dataclass(frozen=True)
class Relax(Job):
    """Positions at rest; cells stay as they are.

    Args:
        force: eV/Å, of the most pulled atom where that counts as rest.
        steps: made at most.
        most: eV/Å that may be left after that many steps; with more the structure fails.
        surface: "" for the potential, or a name of `models.pair.PAIRS` in its place.
    """

    force: float = 0.05
    steps: int = 1000
    most: float = 1.0
    surface: str = ""
    name: ClassVar[str] = "relax"
    version: ClassVar[int] = 1

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """Relax a chunk at once; each structure goes its own way."""
        potential = surface_of(potential, self.surface)
        start = time.perf_counter()
        records: dict[str, Record] = {}
        sound: list[tuple[Item, System]] = []
        for item in chunk:
            try:
                system = item.payload.system()
            except ValueError as error:
                records[item.key] = failed(item.key, str(error))
                continue
            contradiction = cell_contradiction(potential, system)
            if contradiction:
                records[item.key] = failed(item.key, contradiction)
            else:
                sound.append((item, system))
        if sound:
            found = relax(potential, Batch.of([system for _, system in sound]), self.force, self.steps)
            seconds = (time.perf_counter() - start) / len(chunk)
            for k, (item, _) in enumerate(sound):
                records[item.key] = self._record(item.key, found, k, seconds)
        return [records[item.key] for item in chunk]

    def _record(self, key: str, found: Relaxed, k: int, seconds: float) -> Record:
        if k in found.failures:
            where = f" at step {found.steps[k]} of its relaxation" if found.steps[k] else ""
            return failed(key, f"the potential has no answer{where}: {found.failures[k].reason}")
        if not found.force[k] <= self.most:
            return failed(
                key,
                f"does not relax: after {self.steps} steps a force of {found.force[k]:.3g} eV/Å is left",
                seconds=seconds,
            )
        (system,) = found.batch.take([k])
        return ok(
            key,
            seconds=seconds,
            energy=float(found.energy[k]),
            force=float(found.force[k]),
            steps=int(found.steps[k]),
            positions=encode(system.positions),
        )


def surface_of(potential: Potential, surface: str) -> Potential:
    """Return a potential, or the analytic one that is to take its place."""
    if not surface:
        return potential
    from sfumato.models.pair import PAIRS

    return PAIRS[surface]


def cell_contradiction(potential: Potential, system: System) -> str:
    """Say if the energy of a periodic cell is not that of the same crystal in larger cells; empty if it is.

    A potential that takes only the nearest image of an atom, or one point of reciprocal space, is another
    one in another cell; its dynamics in a small cell say nothing.

    Args:
        potential: any.
        system: in its cell.

    Returns:
        Nothing too where the potential has no answer for the cell itself: that is said elsewhere.
    """
    times = [2 if p and height < SHORT else 1 for p, height in zip(system.pbc, _heights(system))]
    count = int(np.prod(times))
    if count == 1:
        return ""
    shifts = np.array(list(itertools.product(*(range(n) for n in times)))) @ system.cell
    large = System(
        np.tile(system.numbers, count),
        (system.positions[None] + shifts[:, None]).reshape(-1, 3),
        system.cell * np.array(times)[:, None],
        system.pbc,
        system.charge * count,
        1 + (system.multiplicity - 1) * count,
    )
    found = potential.predict(Batch.of([system, large]))
    words = "×".join(map(str, times))
    if 0 in found.failures:
        return ""
    if found.failures:
        return f"the potential has no answer for {words} cells: {found.failures[1].reason}"
    off = (float(found.energy[1]) / count - float(found.energy[0])) / len(system)
    if abs(off) <= SAME:
        return ""
    return (
        f"the cell is smaller than twice the reach of this potential: in {words} cells the energy differs by "
        f"{1e3 * off:.3g} meV per atom; give it a larger cell"
    )


def _heights(system: System) -> list[float]:
    """Return the thickness of the cell along each of its vectors in Å; infinite where it has none."""
    filled = system.cell.copy()
    for k in np.flatnonzero(np.linalg.norm(filled, axis=1) == 0):
        _, _, vt = np.linalg.svd(filled)
        filled[k] = 1e6 * vt[-1]
    volume = abs(np.linalg.det(filled))
    return [
        float(volume / np.linalg.norm(np.cross(filled[(k + 1) % 3], filled[(k + 2) % 3]))) for k in range(3)
    ]
