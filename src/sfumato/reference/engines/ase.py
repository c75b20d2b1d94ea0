"""Any ASE calculator as an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.reference.engines.engine import Label, _failed, _refuse_overlap
from sfumato.systems import System, digest

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


@dataclass(frozen=True)
class ASE:
    """A user's ASE calculator; each structure is computed after a reset, so from scratch.

    Charge and multiplicity are stated where calculators look for them: in `Atoms.info` (`charge`,
    `multiplicity` and `spin`) and as initial charges and magnetic moments, spread over all atoms.

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
    def _made(self) -> tuple[Calculator, str]:
        """The calculator and its identity."""
        from sfumato.potentials.potential import FromASE, as_calculator
        from sfumato.potentials.specs import resolve

        made = resolve(self.spec)
        identity = digest(["ase", self.spec, made.identity])
        if self.known not in ("", identity):
            raise ValueError(f"ase: {self.spec} changed while the campaign was going; start it again")
        return made.calculator if isinstance(made, FromASE) else as_calculator(made), identity

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
        calculator, _ = self._made
        engine = f"ase {self.spec}"
        start = time.perf_counter()
        atoms = _atoms(system)
        if hasattr(calculator, "reset"):
            calculator.reset()
        atoms.calc = calculator
        try:
            energy = float(atoms.get_potential_energy())
            forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
        except Exception as error:  # noqa: BLE001 (whatever a user's calculator raises is a failed point)
            return _failed(system, start, engine, f"{type(error).__name__}: {error}")
        if forces.shape != system.positions.shape or not (np.isfinite(energy) and np.isfinite(forces).all()):
            return _failed(system, start, engine, "energy or forces are not finite, or of another shape")
        return Label(
            energy=energy,
            forces=forces,
            converged=True,
            spin_squared=None,
            seconds=time.perf_counter() - start,
            engine=engine,
        )

    def self_test(self) -> bool:
        """Return False: nothing is known about a user's calculator."""
        return False


def _atoms(system: System) -> Atoms:
    from sfumato.io import to_ase

    atoms = to_ase(system)
    for total, put in (
        (system.charge, atoms.set_initial_charges),
        (system.multiplicity - 1, atoms.set_initial_magnetic_moments),
    ):
        if total and len(system):
            share = np.full(len(system), total / len(system))
            share[0] += total - share.sum()  # the sum is what calculators take, some without rounding
            put(share)
    return atoms
