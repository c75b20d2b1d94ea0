"""When a replica leaves its batch: conditions are values, and what they see is a reason, not an exception."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from sfumato.dynamics.state import State, hottest
from sfumato.graph.neighbors import StructureError, half_pairs
from sfumato.systems import Batch, Floats, Ints

BONDED = 1.25
"""Times the sum of two covalent radii; closer atoms of a molecule at its start are bonded."""

NEVER = 1e-12
"""Chance of a state that no run is long enough for."""

UNKNOWN_RADIUS = 0.2
"""Å, which ASE has for elements without a covalent radius: such pairs are passed over."""


@dataclass(frozen=True)
class Left:
    """Why and when a replica left.

    Args:
        kind: one of `KINDS`.
        reason: for people, with numbers.
        step: after how many steps.
    """

    kind: str
    reason: str
    step: int


class Condition(ABC):
    """What a replica must not do.

    Attributes:
        kind: of the reason it gives.
        every: steps from one look to the next.
        fatal: whether the replica leaves; otherwise the first time is only noted.
    """

    kind: str
    every: int = 1
    fatal: bool = True

    @abstractmethod
    def look(self, state: State, rows: Ints) -> dict[int, str]:
        """Return which replicas meet the condition, by their place in the state, and why.

        Args:
            state: of the living replicas.
            rows: (S,) their numbers in the batch at the start.
        """


class NoAnswer(Condition):
    """The potential raised, or its energy or forces are not finite."""

    kind = "no answer"

    def look(self, state: State, rows: Ints) -> dict[int, str]:
        """See Condition."""
        return {k: f"the potential has no answer: {why.reason}" for k, why in state.failures.items()}


@dataclass(frozen=True)
class Exploded(Condition):
    """The kinetic temperature is many times that of the bath, and more than chance explains.

    Args:
        factor: times the temperature of the bath; for few atoms more, which heat alone takes there at times.
    """

    factor: float = 5.0
    kind = "exploded"

    def look(self, state: State, rows: Ints) -> dict[int, str]:
        """See Condition."""
        limit = np.maximum(self.factor * state.bath, hottest(state.bath, state.free, NEVER))
        bad = np.flatnonzero(~(state.kelvin <= limit))
        return {
            int(k): f"the kinetic temperature ran away: {state.kelvin[k]:,.0f} K, where "
            f"{state.bath[k]:,.0f} K were set"
            for k in bad
        }


@dataclass(frozen=True)
class Collapsed(Condition):
    """Two atoms are closer than any repulsive wall lets them.

    Args:
        ratio: of the sum of the covalent radii.
        every: steps from one look to the next.
    """

    ratio: float = 0.5
    every: int = 10
    kind = "collapsed"

    def look(self, state: State, rows: Ints) -> dict[int, str]:
        """See Condition."""
        batch = state.batch
        radii = covalent_radii[batch.numbers]
        known = radii[radii > UNKNOWN_RADIUS]
        if not len(known):
            return {}
        try:
            pairs = half_pairs(batch, 2 * self.ratio * float(known.max()))
        except StructureError as error:
            return {k: f"the positions make no sense: {error.reason(k)}" for k in error.reasons}
        near = radii[pairs.i] + radii[pairs.j]
        close = self.ratio * near - np.linalg.norm(pairs.vectors(batch), axis=1)
        close[(radii[pairs.i] <= UNKNOWN_RADIUS) | (radii[pairs.j] <= UNKNOWN_RADIUS)] = -1
        found: dict[int, str] = {}
        for p in np.argsort(-close, kind="stable")[: int((close > 0).sum())]:
            k = int(batch.index[pairs.i[p]])
            names = _names(batch, (int(pairs.i[p]), int(pairs.j[p])))
            length = self.ratio * near[p] - close[p]
            found.setdefault(k, f"{names} came within {length:.2f} Å of each other")
        return found


@dataclass(frozen=True, eq=False)
class Broken(Condition):
    """A bond of a molecule is much longer than it was at the start; crystals have no bonds here.

    Args:
        start: the batch at the start.
        stretch: times the length at the start.
        fatal: whether the replica leaves.
        every: steps from one look to the next.
    """

    start: Batch
    stretch: float = 1.75
    fatal: bool = True
    every: int = 10
    kind = "bond broken"
    _bonds: list[tuple[Ints, Floats]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for k in range(len(self.start)):
            self._bonds.append(bonds(self.start.take([k])))

    def look(self, state: State, rows: Ints) -> dict[int, str]:
        """See Condition."""
        batch = state.batch
        found: dict[int, str] = {}
        for k, (first, row) in enumerate(zip(batch.offsets, rows.tolist())):
            pairs, lengths = self._bonds[row]
            if not len(pairs):
                continue
            x = batch.positions[pairs + first]
            now = np.linalg.norm(x[:, 1] - x[:, 0], axis=1)
            worst = int(np.argmax(now / lengths))
            if not now[worst] <= self.stretch * lengths[worst]:
                names = _names(batch, tuple((pairs[worst] + first).tolist()))
                found[k] = f"the bond of {names} of {lengths[worst]:.2f} Å came to {now[worst]:.2f} Å"
        return found


def bonds(batch: Batch) -> tuple[Ints, Floats]:
    """Return the bonds of one structure, (B, 2) atoms, and their lengths, (B,) Å; none of a periodic one."""
    if batch.pbc.any() or len(batch.numbers) < 2:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    radii = covalent_radii[batch.numbers]
    pairs = half_pairs(batch, 2 * BONDED * float(radii.max()))
    length = np.linalg.norm(pairs.vectors(batch), axis=1)
    near = length < BONDED * (radii[pairs.i] + radii[pairs.j])
    atoms = np.stack([pairs.i, pairs.j], axis=1)[near]
    order = np.lexsort((atoms[:, 1], atoms[:, 0]))
    return atoms[order], length[near][order]


KINDS = (NoAnswer.kind, Exploded.kind, Collapsed.kind, Broken.kind)
"""In this order where several come true at once."""


def _names(batch: Batch, atoms: Sequence[int]) -> str:
    """Return for example "C3 and H7", numbered from 0 within their structure."""
    first = batch.offsets[batch.index[atoms[0]]]
    return " and ".join(f"{chemical_symbols[batch.numbers[a]]}{a - first}" for a in atoms)
