"""Engines that label a structure: energy and forces at a named level of theory.

Every engine is a small frozen object with `level`, `identity`, `label(system, guess)` and `self_test()`.
Packages are imported when the first structure is labelled. A point that did not converge is never a
number: its energy and forces are NaN and its message says why.
"""

from __future__ import annotations

from collections.abc import Callable

from sfumato.reference.engines.engine import HYDROGEN, SELF_TEST_TOLERANCE, WATER, Engine, Label, _version
from sfumato.reference.engines.pyscf import PYSCF_KNOWN, PySCF, _import_pyscf
from sfumato.reference.engines.tblite import TBLITE_KNOWN, TBLite
from sfumato.words import nearest

__all__ = [
    "ENGINES",
    "HYDROGEN",
    "PYSCF_KNOWN",
    "SELF_TEST_TOLERANCE",
    "TBLITE_KNOWN",
    "WATER",
    "Engine",
    "Label",
    "PySCF",
    "TBLite",
    "_import_pyscf",
    "_version",
    "make_engine",
]


def _tblite(level: str) -> Engine:
    return TBLite({name.lower(): name for name in TBLITE_KNOWN}.get(level.lower(), level))


def _pyscf(level: str) -> Engine:
    xc, slash, basis = level.partition("/")
    if not (xc and slash and basis):
        raise ValueError(f"PySCF: a level reads functional/basis, for example {PySCF().level}; got {level!r}")
    return PySCF(xc, basis)


ENGINES: dict[str, Callable[[str], Engine]] = {"tblite": _tblite, "pyscf": _pyscf}
"""Engines by name; each takes a level of theory."""


def make_engine(name: str, level: str) -> Engine:
    """Make an engine at a level of theory.

    Args:
        name: one of `ENGINES`.
        level: "GFN2-xTB" or "GFN1-xTB" for tblite, "functional/basis" for PySCF.

    Returns:
        The engine; its package is looked for when it is used.

    Raises:
        ValueError: an unknown engine or a level it cannot have.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; {nearest(name, ENGINES)}")
    return ENGINES[name](level)
