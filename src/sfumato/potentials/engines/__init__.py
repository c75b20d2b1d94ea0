"""Engines that label a structure: energy and forces at a named level of theory.

Every engine is a small frozen object with `level`, `identity`, `label(system, guess)` and `self_test()`.
Packages are imported when the first structure is labeled. A point that did not converge is never a
number: its energy and forces are NaN and its message says why.
"""

from __future__ import annotations

from collections.abc import Callable

from sfumato.potentials.engines.ase import ASE
from sfumato.potentials.engines.engine import HYDROGEN, SELF_TEST_TOLERANCE, WATER, Engine, Label, _version
from sfumato.potentials.engines.psi4 import PSI4_KNOWN, Psi4, make_psi4
from sfumato.potentials.engines.pyscf import PYSCF_KNOWN, PySCF, _import_pyscf, make_pyscf
from sfumato.potentials.engines.tblite import TBLITE_KNOWN, TBLite, make_tblite
from sfumato.words import nearest

__all__ = [
    "ASE",
    "ENGINES",
    "HYDROGEN",
    "PSI4_KNOWN",
    "PYSCF_KNOWN",
    "SELF_TEST_TOLERANCE",
    "TBLITE_KNOWN",
    "WATER",
    "Engine",
    "Label",
    "Psi4",
    "PySCF",
    "TBLite",
    "_import_pyscf",
    "_version",
    "make_engine",
]

ENGINES: dict[str, Callable[[str], Engine]] = {
    "tblite": make_tblite,
    "pyscf": make_pyscf,
    "psi4": make_psi4,
    "ase": ASE,
}
"""Engines by name; each takes a level of theory."""


def make_engine(name: str, level: str) -> Engine:
    """Make an engine at a level of theory.

    Args:
        name: one of `ENGINES`.
        level: "GFN2-xTB" or "GFN1-xTB" for tblite, "functional/basis" for PySCF and Psi4, "file.py:factory"
            or "package.module:factory" of an ASE calculator for ase.

    Returns:
        The engine; its package is looked for when it is used.

    Raises:
        ValueError: an unknown engine or a level it cannot have.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; {nearest(name, ENGINES)}")
    return ENGINES[name](level)
