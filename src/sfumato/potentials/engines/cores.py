"""Effective core potentials that belong to basis sets, which PySCF leaves to the user to name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

ALL_ELECTRON = 0.5
"""Of Z², the exponent that the tightest s function of a basis with core functions reaches (STO-2G: 0.85)."""


def core_potentials(basis: str, numbers: Iterable[int]) -> dict[int, Any]:
    """Return the effective core potentials with which a basis set must be used.

    Args:
        basis: in PySCF's spelling.
        numbers: atomic numbers.

    Returns:
        By atomic number, in PySCF's form; elements with all their electrons in the basis are left out.

    Raises:
        ValueError: functions for the core are missing, and so is a potential in its place.
    """
    from ase.data import chemical_symbols

    found = {}
    for z in sorted({int(z) for z in numbers}):
        symbol = chemical_symbols[z]
        potential = next(filter(None, (_load("ecp", name, symbol) for name in _families(basis))), None)
        if potential is not None:
            found[z] = potential
        elif z > 2 and _tightest(basis, symbol) < ALL_ELECTRON * z * z:
            raise ValueError(
                f"the basis {basis} has no functions for the core electrons of {symbol}, and no effective "
                "core potential is known that belongs to it; take another basis, for example def2-svp"
            )
    return found


def _families(basis: str) -> list[str]:
    """Return the names under which the potentials of a basis may be kept, its own first."""
    name = basis.partition("@")[0].lower()
    plain = "".join(letter for letter in name if letter not in "-_ ()")
    names = [name]
    if plain.startswith(("def2", "madef2")):
        names.append("def2-svp")
    elif plain.startswith("bfd"):
        names.append("bfd")
    elif plain.startswith("ccecp"):
        names.append(plain.partition("augccpv")[0].partition("ccpv")[0])
    elif plain.endswith("pp") and "ccp" in plain:
        names.append(plain.removeprefix("aug").replace("ccpwcv", "ccpv"))
    return names


def _load(what: str, name: str, symbol: str) -> Any:
    """Return what PySCF has of a basis or potential for an element; None where it has nothing."""
    from pyscf.gto import basis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unknown name also suggests another package
        try:
            return (basis.load_ecp if what == "ecp" else basis.load)(name, symbol) or None
        except (KeyError, ValueError, RuntimeError, TypeError, OSError):
            return None


def _tightest(basis: str, symbol: str) -> float:
    """Return the largest exponent of an s function; infinite where PySCF has no such basis and says so."""
    shells = _load("basis", basis, symbol) or []
    exponents = [row[0] for shell in shells if shell[0] == 0 for row in shell[1:] if not isinstance(row, int)]
    return max(exponents, default=float("inf"))
