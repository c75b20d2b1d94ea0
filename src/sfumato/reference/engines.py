"""Engines that label a structure: energy and forces at a named level of theory.

Every engine is a small frozen object with `level`, `identity`, `label(system, guess)` and `self_test()`.
Packages are imported when the first structure is labelled. A point that did not converge is never a
number: its energy and forces are NaN and its message says why.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol

import numpy as np

from sfumato.systems import Floats, System, digest
from sfumato.units import BOHR, HARTREE, HARTREE_PER_BOHR

SELF_TEST_TOLERANCE = 1e-6
"""Hartree by which a known answer may differ."""

HYDROGEN = System(numbers=[1, 1], positions=[[0, 0, 0], [0, 0, 0.75]])
WATER = System(numbers=[8, 1, 1], positions=[[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])


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
        density: the engine's converged density, accepted as `guess` for a neighbouring frame; may be None.
    """

    energy: float
    forces: Floats
    converged: bool
    spin_squared: float | None
    seconds: float
    engine: str
    message: str = ""
    density: Any = field(default=None, repr=False)


class Engine(Protocol):
    """A level of theory that can label structures."""

    @property
    def level(self) -> str:
        """The level of theory for people, for example "GFN2-xTB"."""

    @property
    def identity(self) -> str:
        """SHA-256 of method, settings and package versions."""

    def label(self, system: System, guess: Any = None) -> Label:
        """Return energy and forces of one structure."""

    def self_test(self) -> bool:
        """Compare two tiny molecules with pinned energies; False where none are pinned."""


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


def _failed(system: System, since: float, engine: str, message: str) -> Label:
    return Label(
        energy=float("nan"),
        forces=np.full((len(system), 3), np.nan),
        converged=False,
        spin_squared=None,
        seconds=time.perf_counter() - since,
        engine=engine,
        message=message,
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


TBLITE_KNOWN = {"GFN2-xTB": (-0.98, -5.07), "GFN1-xTB": (-1.0, -5.7)}
"""Energies of hydrogen and water in hartree."""


@dataclass(frozen=True)
class TBLite:
    """Extended tight binding through tblite, from scratch for every structure.

    Args:
        method: "GFN2-xTB" or "GFN1-xTB".
        accuracy: tblite's accuracy; 1 is its default, smaller is tighter.
        max_iterations: SCF iterations before a point counts as not converged.
    """

    method: str = "GFN2-xTB"
    accuracy: float = 1.0
    max_iterations: int = 250

    def __post_init__(self) -> None:
        if self.method not in TBLITE_KNOWN:
            raise ValueError(f"TBLite: unknown method {self.method!r}; choose {' or '.join(TBLITE_KNOWN)}")

    @property
    def level(self) -> str:
        """The method's name."""
        return self.method

    @property
    def identity(self) -> str:
        """SHA-256 of method, settings and version."""
        settings = np.array([self.accuracy, self.max_iterations], dtype=float)
        return digest(["tblite", _version("tblite", "xtb"), self.method, settings])

    def label(self, system: System, guess: Any = None) -> Label:
        """Label one structure, always from scratch, so that the result does not depend on history.

        Args:
            system: the structure; periodic cells are allowed.
            guess: ignored.

        Returns:
            Energy and forces.

        Raises:
            ValueError: tblite is missing, or charge and multiplicity do not fit the electrons.
        """
        engine = f"tblite {_version('tblite', 'xtb')}"
        unpaired = _unpaired(system)
        from tblite.interface import Calculator

        start = time.perf_counter()
        periodic = bool(system.pbc.any())
        calculator = Calculator(
            self.method,
            system.numbers,
            system.positions / BOHR,
            charge=float(system.charge),
            uhf=unpaired,
            lattice=system.cell / BOHR if periodic else None,
            periodic=system.pbc if periodic else None,
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", self.accuracy)
        calculator.set("max-iter", self.max_iterations)
        try:
            result = calculator.singlepoint()
        except RuntimeError as error:
            return _failed(system, start, engine, " ".join(str(error).split()))
        return Label(
            energy=float(result.get("energy")) * HARTREE,
            forces=-result.get("gradient") * HARTREE_PER_BOHR,
            converged=True,
            spin_squared=None,
            seconds=time.perf_counter() - start,
            engine=engine,
        )

    def self_test(self) -> bool:
        """Compare hydrogen and water with pinned energies.

        Returns:
            True.

        Raises:
            ValueError: an energy differs by more than `SELF_TEST_TOLERANCE`.
        """
        return _compare(self, TBLITE_KNOWN[self.method])
