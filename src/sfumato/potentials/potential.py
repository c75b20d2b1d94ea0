"""The one protocol of everything that gives energies and forces of structures, and its face for ASE."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.io import from_ase as system_from_ase
from sfumato.systems import Batch, Failure, Floats, Ints, Prediction, System, symbols

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


SKIN = 0.3
"""Å; a wider one saves searches for neighbors, but there are more pairs to choose from at every step."""


@dataclass(frozen=True)
class Abilities:
    """What a potential says it can do; nobody probes it for more.

    Args:
        batch: structures it prefers to get at once (1 for an ASE calculator).
        elements: atomic numbers it has parameters for; None: it does not say.
        periodic: False: molecules only; True: crystals and slabs must not be refused; None: it does not say.
        stress: whether it gives stress of structures that are periodic in three directions.
        charge: whether total charge and multiplicity change its answer.
        dtype: the precision it works in, "float32" or "float64"; empty: it does not say.
        dtypes: precisions that `Potential.to` offers.
        device: where it computes, for example "cpu" or "cuda:1".
        devices: kinds of devices that `Potential.to` offers.
        level: level of theory of a reference engine; empty for others.
    """

    batch: int = 1
    elements: frozenset[int] | None = None
    periodic: bool | None = None
    stress: bool = False
    charge: bool = False
    dtype: str = ""
    dtypes: tuple[str, ...] = ()
    device: str = "cpu"
    devices: tuple[str, ...] = ("cpu",)
    level: str = ""


class Potential(ABC):
    """Energies and forces of structures: a network, an ASE calculator, another package's model, an engine.

    A potential of one's own has a `name` (short, for tables), an `identity` (SHA-256 of weights and settings;
    records are keyed by it), `abilities` that differ from the defaults, and `compute`.
    """

    if TYPE_CHECKING:  # read-only, so that a class attribute, a field or a property may provide them

        @property
        def name(self) -> str: ...

        @property
        def identity(self) -> str: ...

        @property
        def abilities(self) -> Abilities: ...

    else:
        abilities = Abilities()

    meddled: int = 0
    """Structures that something inside has changed although they were only lent to it, as far as is known."""

    @abstractmethod
    def compute(self, batch: Batch) -> Prediction:
        """Return energies (eV), forces (eV/Å) and, where there is one, stress (eV/Å³).

        It may raise anything: `predict` finds out whose fault it is. A potential that knows better says so
        in `Prediction.failures`.
        """

    def predict(self, batch: Batch) -> Prediction:
        """Return what `compute` says, and of structures that cannot be predicted the reason why.

        A structure that makes `compute` raise, or whose energy, forces or stress are not finite, fails alone:
        the others are evaluated without it.

        Args:
            batch: structures.

        Returns:
            NaN in place of the energy and forces of each structure in `failures`.
        """
        try:
            found = self.compute(batch)
            _require_shapes(found, batch)
        except Exception as error:  # noqa: BLE001 (the structure's failure, whatever it was)
            if len(batch) == 1:
                return Prediction.failed(batch, Failure.of(error))
            half = len(batch) // 2
            rows = (np.arange(half), np.arange(half, len(batch)))
            return Prediction.join([self.predict(batch.take(part)) for part in rows])
        return found.checked(batch)

    def to(self, *, device: str | None = None, dtype: str | None = None) -> Potential:
        """Return the same potential on another device or in another precision.

        Args:
            device: "cpu", "cuda" or "cuda:1"; None: the same.
            dtype: "float32" or "float64"; None: the same.

        Raises:
            ValueError: a device or precision that it does not offer.
        """
        for what, asked, has in (
            ("device", device, self.abilities.device),
            ("precision", dtype, self.abilities.dtype),
        ):
            if asked not in (None, has):
                raise ValueError(
                    f"{self.name} has a {what} of its own ({has or 'not stated'}), and cannot be moved to "
                    f"{asked}; leave it out, or set it where the model is made"
                )
        return self

    def session(self, batch: Batch, skin: float = 0.0) -> Session:
        """Return the stateful form for dynamics and relaxation: the same structures at ever new positions.

        Args:
            batch: the structures.
            skin: Å; what a potential may keep of neighbors between calls is good until an atom has moved by
                half of it. Results do not depend on it.
        """
        return Session(self, batch)

    def calculator(self, skin: float = SKIN) -> Calculator:
        """Return an ASE calculator; see `as_calculator`."""
        return as_calculator(self, skin)


class Session:
    """Structures that move a little from call to call, and a potential; the plain form keeps nothing.

    Args:
        potential: any.
        batch: numbers, charges, periodic directions, and where the atoms are at first.
    """

    def __init__(self, potential: Potential, batch: Batch) -> None:
        self.potential, self.batch = potential, batch

    def predict(self, positions: Floats, cell: Floats | None = None) -> Prediction:
        """Evaluate the structures where their atoms are now.

        Args:
            positions: (N, 3) Å.
            cell: (S, 3, 3) Å; None: as before.
        """
        self.move(positions, cell)
        return self.potential.predict(self.batch)

    def move(self, positions: Floats, cell: Floats | None = None) -> None:
        """Put the atoms somewhere else."""
        self.batch = replace(self.batch, positions=positions, cell=self.batch.cell if cell is None else cell)

    def take(self, rows: Sequence[int] | Ints) -> Session:
        """Return a session of some of the structures, for example of those that are still sound."""
        return type(self)(self.potential, self.batch.take(rows))


class MissingElementError(ValueError):
    """A potential was asked about an element it does not know."""

    @classmethod
    def check(cls, potential: str, known: Collection[int], numbers: Ints, index: Ints) -> None:
        """Raise this error where an element is unknown; it says which, where first, and what is known.

        Args:
            potential: its name.
            known: atomic numbers.
            numbers: (N,) atomic numbers.
            index: (N,) the structure of each atom.
        """
        unknown = set(np.unique(numbers).tolist()) - set(known)
        if unknown:
            first = index[np.isin(numbers, list(unknown)).argmax()]
            raise cls(
                f"{potential} has no parameters for {symbols(unknown)}, first met in structure {first} of "
                f"the batch; it knows {symbols(known)}"
            )


def _require_shapes(found: Prediction, batch: Batch) -> None:
    if len(found.energy) != len(batch):
        raise ValueError(f"{len(found.energy)} energies were returned for {len(batch)} structures")
    if len(found.forces) != len(batch.numbers):
        raise ValueError(f"forces for {len(found.forces)} atoms were returned, expected {len(batch.numbers)}")


@dataclass(frozen=True)
class _Kind:
    """What a session cannot change: numbers, periodic directions, charge and multiplicity."""

    numbers: bytes
    pbc: bytes
    charge: int
    multiplicity: int

    @classmethod
    def of(cls, system: System) -> _Kind:
        return cls(system.numbers.tobytes(), system.pbc.tobytes(), system.charge, system.multiplicity)


def as_calculator(potential: Potential, skin: float = SKIN) -> Calculator:
    """Return an ASE calculator: energy, free energy (the same), forces, and stress where there is one.

    It keeps a session, so that a network searches for neighbors only when atoms have moved.

    Args:
        potential: any potential; total charge and multiplicity are read from `Atoms.info`.
        skin: Å, see `Potential.session`.

    Returns:
        A calculator with the attributes `potential` and `session`. Asked for a stress that the potential
        does not have, it raises ASE's `PropertyNotImplementedError`; for a structure that cannot be
        predicted, what the potential raised.
    """
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class FromPotential(Calculator):  # type: ignore[misc]
        """The ASE face of a Potential."""

        name = potential.name
        implemented_properties = ("energy", "free_energy", "forces", "stress")
        session: Session | None = None
        _kind: _Kind | None = None

        def check_state(self, atoms: Any, tol: float = 1e-15) -> list[str]:
            """ASE does not look at `info`, which states charge and multiplicity."""
            changes: list[str] = super().check_state(atoms, tol)
            stated = ("charge", "multiplicity", "spin")
            if not changes and any(self.atoms.info.get(key) != atoms.info.get(key) for key in stated):
                changes.append("info")
            return changes

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            system = system_from_ase(self.atoms)
            kind = _Kind.of(system)
            if self.session is None or kind != self._kind:
                self.session, self._kind = potential.session(Batch.of([system]), skin), kind
            prediction = self.session.predict(system.positions, system.cell[None]).require()
            energy = float(prediction.energy[0])
            self.results = {"energy": energy, "free_energy": energy, "forces": np.array(prediction.forces)}
            if prediction.stress is not None:
                self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress[0])
            elif "stress" in properties:
                raise PropertyNotImplementedError(f"{potential.name} gives no stress for this structure")

    calculator = FromPotential()
    calculator.potential = potential  # also what `fingerprint` tells two of them apart by
    return calculator
