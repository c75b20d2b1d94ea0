"""ASE calculators as potentials."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from sfumato.io import to_ase
from sfumato.potentials.fingerprint import fingerprint
from sfumato.potentials.potential import Abilities, MissingElementError, Potential
from sfumato.systems import Batch, Failure, Floats, Prediction, System

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


class FromASE(Potential):
    """An ASE calculator as a potential; every structure is computed from scratch.

    The calculator is reset before each structure, so that a result depends on the structure alone and not
    on what was computed before it (calculators restart from old densities otherwise). Total charge and
    multiplicity are stated where calculators look for them: in `Atoms.info` (`charge`, and 2S+1 as
    `multiplicity` and `spin`) and, where they are not those of a neutral singlet, as initial charges and
    magnetic moments, spread over all atoms.

    Args:
        calculator: any object with ASE's calculator interface.
        name: short, for tables.
        identity: hash of its weights and settings; default `fingerprint(calculator)`.
        elements: atomic numbers it knows; None: leave it to the calculator to complain.
        device: where it computes.
    """

    name: str
    identity: str
    abilities: Abilities

    def __init__(
        self,
        calculator: Calculator,
        name: str,
        identity: str | None = None,
        elements: Collection[int] | None = None,
        device: str = "cpu",
    ) -> None:
        self.inner, self.name = calculator, name
        self.identity = identity or fingerprint(calculator)
        self.abilities = Abilities(
            elements=None if elements is None else frozenset(int(z) for z in elements),
            stress="stress" in getattr(calculator, "implemented_properties", ()),
            charge=True,
            device=device,
        )

    def compute(self, batch: Batch) -> Prediction:
        """Evaluate structure by structure; whatever the calculator raises is the failure of that one.

        Returns:
            Energies, forces, and stress if every structure is periodic in three directions and the
            calculator offers it.
        """
        asked = bool(batch.pbc.all()) and self.abilities.stress
        return Prediction.join([self._predicted(system, asked) for system in batch])

    def _predicted(self, system: System, asked: bool) -> Prediction:
        try:
            energy, forces, stress = self._one(system, asked)
        except Exception as error:  # noqa: BLE001 (calculators raise anything)
            return Prediction.failed(Batch.of([system]), Failure.of(error))
        return Prediction(np.array([energy]), forces, None if stress is None else stress[None])

    def _one(self, system: System, asked: bool) -> tuple[float, Floats, Floats | None]:
        if self.abilities.elements is not None:
            index = np.zeros(len(system), dtype=np.int64)
            MissingElementError.check(self.name, self.abilities.elements, system.numbers, index)
        atoms = _atoms(system)
        if hasattr(self.inner, "reset"):
            self.inner.reset()
        atoms.calc = self.inner
        energy = float(atoms.get_potential_energy())
        forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
        if forces.shape != (len(system), 3):
            raise ValueError(
                f"{self.name}: the calculator returned forces of shape {forces.shape} for {len(system)} "
                f"atoms; expected ({len(system)}, 3)"
            )
        stress = np.asarray(atoms.get_stress(voigt=False), dtype=float) if asked else None
        return energy, forces, stress


def from_ase(
    calculator: Calculator,
    name: str,
    identity: str | None = None,
    elements: Collection[int] | None = None,
) -> Potential:
    """Wrap an ASE calculator.

    Args:
        calculator: any object with ASE's calculator interface.
        name: short, for tables.
        identity: hash of its weights and settings; default `fingerprint(calculator)`.
        elements: atomic numbers it knows; None: leave it to the calculator to complain.

    Returns:
        The potential; see `FromASE`.
    """
    return FromASE(calculator, name, identity, elements)


def _atoms(system: System) -> Atoms:
    """Return a structure for ASE, with charge and multiplicity wherever calculators look for them."""
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
