"""What every engine is, and the checks they share."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, Failure, Floats, Prediction, System
from sfumato.units import HARTREE

SELF_TEST_TOLERANCE = 1e-6
"""Hartree by which a known answer may differ."""

CLOSEST = 1e-3
"""Å below which two nuclei count as one point; tests of short-range repulsion go down to 0.03."""

HYDROGEN = System(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.75]]))
WATER = System(np.array([8, 1, 1]), np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]))


@dataclass(frozen=True, eq=False)
class Label:
    """What an engine found for one structure.

    Args:
        energy: eV; NaN if not converged.
        forces: (N, 3) eV/Å; NaN likewise.
        converged: whether the self-consistent field converged.
        spin_squared: ⟨S²⟩ in units of ħ², or None where the engine has no such value.
        seconds: wall time.
        engine: package and version.
        message: why it failed, or what had to be done to converge; empty otherwise.
        density: the engine's converged density, accepted as `guess` for a neighboring frame; may be None.
        raised: the message is an error that the engine raised, not a field that did not converge.
    """

    energy: float
    forces: Floats
    converged: bool
    spin_squared: float | None
    seconds: float
    engine: str
    message: str = ""
    density: Any = field(default=None, repr=False)
    raised: bool = False

    @property
    def reason(self) -> str:
        """Why there is no label; empty where there is one."""
        if self.converged:
            return ""
        return self.message if self.raised else f"not converged: {self.message}"


class Engine(Potential):
    """A reference engine: a potential with a level of theory, which can start from a neighbor's density.

    An engine of one's own is a small frozen object with `level`, `identity`, `label` and `self_test`.
    """

    if TYPE_CHECKING:  # read-only, as those of a potential

        @property
        def level(self) -> str:
            """The level of theory for people, for example "GFN2-xTB"."""

    @property
    def name(self) -> str:
        """Short, for tables: the level in lower case."""
        return self.level.lower()

    @property
    def abilities(self) -> Abilities:
        """Charge and multiplicity count; molecules one by one, in double precision."""
        return Abilities(charge=True, level=self.level)

    @abstractmethod
    def label(self, system: System, guess: Any = None) -> Label:
        """Return energy and forces of one structure.

        Args:
            system: the structure.
            guess: the `density` of the label of a neighboring structure; engines without one ignore it.
        """

    @abstractmethod
    def self_test(self) -> bool:
        """Compare two tiny molecules with pinned energies; False where none are pinned."""

    def compute(self, batch: Batch) -> Prediction:
        """Label structure by structure; one that does not converge fails alone."""
        return Prediction.join([self._predicted(Batch.of([system])) for system in batch])

    def _predicted(self, alone: Batch) -> Prediction:
        try:
            (system,) = alone
            label = self.label(system)
        except Exception as error:  # noqa: BLE001 (the failure of this structure)
            return Prediction.failed(alone, Failure.of(error))
        if not label.converged:
            return Prediction.failed(alone, Failure(label.reason))
        return Prediction(np.array([label.energy]), label.forces)


@cache
def _version(package: str, extra: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise ValueError(
            f"the package {package} is not installed; install it with: pip install 'sfumato[{extra}]'"
        ) from None


def _unpaired(system: System) -> int:
    """Return the number of unpaired electrons 2S, or say that the molecule cannot have it."""
    electrons = int(system.numbers.sum()) - system.charge
    unpaired = system.multiplicity - 1
    if electrons < unpaired or (electrons - unpaired) % 2:
        raise ValueError(
            f"{electrons} electrons (charge {system.charge}) cannot have multiplicity "
            f"{system.multiplicity}; set charge and multiplicity of the structure"
        )
    return unpaired


def _refuse_overlap(system: System) -> None:
    """Raise where two nuclei are on one point, which no method can describe and some compute all the same."""
    x, periodic, block = system.positions, system.cell[system.pbc], 256
    inverse = np.linalg.pinv(periodic)
    for start in range(0, len(system), block):
        apart = x[start : start + block, None] - x
        apart -= np.round(apart @ inverse) @ periodic
        near = np.argwhere((apart**2).sum(axis=2) < CLOSEST**2).tolist()
        for i, j in ((start + row, column) for row, column in near if start + row < column):
            raise ValueError(
                f"atoms {i} and {j} are at the same place, {x[i].tolist()} Å; move or remove one"
            )


def _split_level(engine: str, level: str) -> tuple[str, str]:
    """Return functional and basis of a level of theory."""
    xc, slash, basis = level.partition("/")
    if not (xc and slash and basis):
        raise ValueError(
            f"{engine}: a level reads functional/basis, for example wb97m-d3bj/def2-tzvppd; got {level!r}"
        )
    return xc, basis


def _failed(system: System, since: float, engine: str, message: str, raised: bool = False) -> Label:
    return Label(
        energy=float("nan"),
        forces=np.full((len(system), 3), np.nan),
        converged=False,
        spin_squared=None,
        seconds=time.perf_counter() - since,
        engine=engine,
        message=message,
        raised=raised,
    )


def _compare(engine: Engine, known: tuple[float, float] | None) -> bool:
    """Compare the energies of hydrogen and water (hartree) with known ones."""
    if known is None:
        return False
    for name, system, expected in zip(("H2", "H2O"), (HYDROGEN, WATER), known):
        found = engine.label(system).energy / HARTREE
        if not abs(found - expected) <= SELF_TEST_TOLERANCE:
            raise ValueError(
                f"self-test of {engine.level}: the energy of {name} is {found:.8f} hartree, known is "
                f"{expected:.8f}; the method was changed or is broken in this installation"
            )
    return True
