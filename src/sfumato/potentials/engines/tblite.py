"""Extended tight binding through tblite."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.potentials.engines.engine import (
    Engine,
    Label,
    _compare,
    _failed,
    _refuse_overlap,
    _unpaired,
    _version,
)
from sfumato.systems import System, digest
from sfumato.units import BOHR, HARTREE, HARTREE_PER_BOHR

TBLITE_KNOWN = {
    "GFN2-xTB": (-0.982323024, -5.070365727),
    "GFN1-xTB": (-1.036493032, -5.768617638),
}
"""Energies of hydrogen and water in hartree."""

LANTHANUM, LUTETIUM = 57, 71

TBLITE_DAMPINGS = (0.4, 0.1)
"""Mixer dampings tried in turn: tblite's default, and a cautious one that brings most stubborn SCFs home."""


def _unpaired_valence(system: System) -> int:
    """Return the number of unpaired electrons outside the 4f shells, which GFN-xTB counts as core.

    A lanthanide has three valence electrons there, whatever its 4f shell. The multiplicity may be that of
    all electrons, with the 4f shells of high spin and parallel, or that of the valence electrons alone.
    """
    z = system.numbers[(system.numbers > LANTHANUM) & (system.numbers <= LUTETIUM)]
    in_core = z - LANTHANUM
    high_spin = int(np.minimum(in_core, 14 - in_core).sum())
    if not high_spin:
        return _unpaired(system)
    electrons = int(system.numbers.sum() - in_core.sum()) - system.charge
    for unpaired in (system.multiplicity - 1 - high_spin, system.multiplicity - 1):
        if 0 <= unpaired <= electrons and (electrons - unpaired) % 2 == 0:
            return unpaired
    raise ValueError(
        f"{electrons} electrons outside the 4f shells (charge {system.charge}) cannot have multiplicity "
        f"{system.multiplicity}, neither with the {high_spin} unpaired 4f electrons nor without them; for no "
        f"unpaired valence electrons it is {high_spin + 1}, or 1 with the 4f electrons left out"
    )


@dataclass(frozen=True)
class TBLite(Engine):
    """Extended tight binding through tblite, from scratch for every structure.

    Args:
        method: "GFN2-xTB" or "GFN1-xTB".
        accuracy: SCF threshold relative to tblite's own default, smaller is tighter. At 1 the forces of a
            30-atom molecule carry noise of up to 1e-3 eV/Å, at 0.01 below 2e-5, for a third more time.
        max_iterations: SCF iterations before a point counts as not converged.
    """

    method: str = "GFN2-xTB"
    accuracy: float = 0.01
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
        settings = np.array([self.accuracy, self.max_iterations, *TBLITE_DAMPINGS], dtype=float)
        return digest(["tblite", _version("tblite", "xtb"), self.method, settings])

    def label(self, system: System, guess: Any = None) -> Label:
        """Label one structure, always from scratch, so that the result does not depend on history.

        Args:
            system: the structure; a periodic cell is computed at the Γ point, so it must be large.
            guess: ignored.

        Returns:
            Energy and forces.

        Raises:
            ValueError: tblite is missing, the system is periodic in some directions only, atoms overlap, or
                charge and multiplicity do not fit the electrons.
        """
        engine = f"tblite {_version('tblite', 'xtb')}"
        if system.pbc.any() and not system.pbc.all():
            raise ValueError(
                "tblite: the structure is periodic in some directions only, and tblite knows all three or "
                "none; give it a cell with enough vacuum and make it fully periodic"
            )
        unpaired = _unpaired_valence(system)
        _refuse_overlap(system)
        from tblite.interface import Calculator

        start = time.perf_counter()
        periodic = bool(system.pbc.any())
        message = ""
        for damping in TBLITE_DAMPINGS:
            try:
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
                calculator.set("mixer-damping", damping)
                result = calculator.singlepoint()
                break
            except RuntimeError as error:
                message = " ".join(str(error).split())
        else:
            return _failed(system, start, engine, message)
        return Label(
            energy=float(result.get("energy")) * HARTREE,
            forces=-result.get("gradient") * HARTREE_PER_BOHR,
            converged=True,
            spin_squared=None,
            seconds=time.perf_counter() - start,
            engine=engine,
            message=message and f"converged with mixer damping {damping}",
        )

    def self_test(self) -> bool:
        """Compare hydrogen and water with pinned energies.

        Returns:
            True.

        Raises:
            ValueError: an energy differs by more than `SELF_TEST_TOLERANCE`.
        """
        return _compare(self, TBLITE_KNOWN[self.method])


def make_tblite(level: str) -> TBLite:
    """Return the engine of a method, written in any case.

    Raises:
        ValueError: an unknown method.
    """
    return TBLite({name.lower(): name for name in TBLITE_KNOWN}.get(level.lower(), level))
