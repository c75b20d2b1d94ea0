"""Any ASE calculator as an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sfumato.potentials.engines.engine import Engine, Label, _failed, _refuse_overlap
from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, System, digest


@dataclass(frozen=True)
class ASE(Engine):
    """A user's ASE calculator; each structure is computed after a reset, so from scratch.

    Charge and multiplicity are stated as `FromASE` does.

    Args:
        spec: "file.py:factory" or "package.module:factory", a function without arguments that returns the
            calculator; or any model that evaluation takes, for example "mace:FILE".
        known: the identity that the calculator must have, set for the workers of a campaign; "" for any.
    """

    spec: str
    known: str = field(default="", repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ASE], tuple[str, str]]:
        # The calculator itself stays at home: a worker makes its own, from a file that must be the same.
        return ASE, (self.spec, self.known or self.identity)

    @property
    def level(self) -> str:
        """The spec."""
        return self.spec

    @cached_property
    def _made(self) -> tuple[Potential, str]:
        """The calculator as a potential, and the identity of the engine."""
        from sfumato.potentials.specs import resolve

        made = resolve(self.spec)
        identity = digest(["ase", self.spec, made.identity])
        if self.known not in ("", identity):
            raise ValueError(f"ase: {self.spec} changed while the campaign was going; start it again")
        return made, identity

    @property
    def abilities(self) -> Abilities:
        """Those of the calculator, one structure at a time; its stress is not a label."""
        return replace(self._made[0].abilities, batch=1, stress=False, level=self.spec)

    @property
    def identity(self) -> str:
        """SHA-256 of spec, source file, and class, package version and settings of the calculator."""
        return self._made[1]

    def label(self, system: System, guess: Any = None) -> Label:
        """Label one structure.

        Args:
            system: molecule or crystal, whatever the calculator takes.
            guess: ignored.

        Returns:
            Energy and forces; what the calculator raises, and a result that is not finite, is a failure.

        Raises:
            ValueError: the spec leads to no calculator, or atoms overlap.
        """
        _refuse_overlap(system)
        potential, _ = self._made
        engine = f"ase {self.spec}"
        start = time.perf_counter()
        found = potential.predict(Batch.of([system]))
        if found.failures:
            return _failed(system, start, engine, found.failures[0].reason, raised=True)
        return Label(
            energy=float(found.energy[0]),
            forces=found.forces,
            converged=True,
            spin_squared=None,
            seconds=time.perf_counter() - start,
            engine=engine,
        )

    def self_test(self) -> bool:
        """Return False: nothing is known about a user's calculator."""
        return False
