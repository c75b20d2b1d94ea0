"""The job behind the contract: one check of one potential, one record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sfumato.execution.records import Record, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.jobs.frames import Frame
from sfumato.jobs.tracks import Track, TrackJob
from sfumato.potentials.potential import Potential
from sfumato.systems import System
from sfumato.testing import Check, Settings
from sfumato.testing.contract import Contract, expected_cost, rows, sample
from sfumato.words import plain

TRIED = 3
"""Evaluations that are timed to say what a contract takes."""


@dataclass(frozen=True, eq=False)
class Asked(Track):
    """A check to make. It makes its own structures, so there are no atoms, unless they are the user's.

    Args:
        check: its name.
        own: the user's structures, by number; only for the check that looks at them.
    """

    check: str = ""
    own: tuple[tuple[int, System], ...] = ()

    @classmethod
    def of_check(cls, check: str, own: Sequence[tuple[int, System]] = ()) -> Asked:
        """Return a check by its name."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, 3)), 0, 1, check=check, own=tuple(own))

    def parts(self) -> Sequence[ArrayLike | str]:
        """See `Track`."""
        return ("check", self.check, *(f"{k} {system.identity}" for k, system in self.own))


@dataclass(frozen=True)
class ContractCheck(TrackJob):
    """Checks of the contract, one by one; none depends on which were made before.

    Args:
        settings: what is checked.
    """

    settings: Settings = field(default_factory=Settings)
    name: ClassVar[str] = "contract"
    version: ClassVar[int] = 1

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """Make checks; what a potential raises in one is its result."""
        return each(chunk, lambda item: self._record(potential, item))

    def _record(self, potential: Potential, item: Item) -> Record:
        asked: Asked = item.payload
        start = time.perf_counter()
        contract = _contract(potential, self.settings, asked.own)
        before = contract.evaluations
        result = contract.result(_row(asked.check, self.settings, len(asked.own)))
        numbers = {name: float(getattr(result, name)) for name in ("measured", "tolerance")}
        words = {name: getattr(result, name) for name in ("unit", "where")}
        return ok(
            item.key,
            seconds=time.perf_counter() - start,
            check=asked.check,
            result=result.status,
            evaluations=contract.evaluations - before,
            **plain(numbers),
            **words,
        )

    def estimate(self, potential: Potential, frames: Sequence[Frame]) -> float:
        """Return the seconds that checks take, from a few evaluations of the structure most of them are like.

        Raises:
            ValueError: the potential can evaluate none of the test structures.
        """
        contract = _contract(potential, self.settings, ())
        base = contract.bench.reference
        start = time.perf_counter()
        contract.bench.points([base] * TRIED)
        each_takes = (time.perf_counter() - start) / TRIED
        asked = [frame for frame in frames if isinstance(frame, Asked)]
        own = max((len(frame.own) for frame in asked), default=0)
        return each_takes * expected_cost((frame.check for frame in asked), self.settings, own)


def _row(name: str, settings: Settings, own: int) -> Check:
    return next(row for row in rows(settings, max(own, 1)) if row.name == name)


_LAST: list[tuple[Potential, Settings, Contract]] = []
"""The contract that was last worked on in this process: checks share noise, structures and precision."""


def _contract(potential: Potential, settings: Settings, own: Sequence[tuple[int, System]]) -> Contract:
    if own:
        return Contract(potential, settings, own)
    if not _LAST or _LAST[0][0] is not potential or _LAST[0][1] != settings:
        _LAST[:] = [(potential, settings, Contract(potential, settings))]
    return _LAST[0][2]


def planned(settings: Settings, own: Sequence[System]) -> list[Asked]:
    """Return the checks to make, in the order of the contract; those that the settings leave out are not."""
    from sfumato.testing.contract import OWN, QUICK

    taken = sample(own, settings)
    made = [row.name for row in rows(settings, len(taken)) if not (settings.quick and row.name in QUICK)]
    return [Asked.of_check(name, taken if name == OWN.name else ()) for name in made]
