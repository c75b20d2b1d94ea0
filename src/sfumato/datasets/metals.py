"""Twenty-seven transition metals, each a crystal with a vacancy, as in the data set TM23, built with ASE."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sfumato.systems import System

MELTING = {
    "Ag": 1234.93,
    "Au": 1337.33,
    "Cd": 594.22,
    "Co": 1768.15,
    "Cr": 2180.15,
    "Cu": 1357.77,
    "Fe": 1811.15,
    "Hf": 2506.15,
    "Hg": 234.32,
    "Ir": 2719.15,
    "Mn": 1519.15,
    "Mo": 2895.15,
    "Nb": 2750.15,
    "Ni": 1728.15,
    "Os": 3306.15,
    "Pd": 1827.95,
    "Pt": 2041.35,
    "Re": 3458.15,
    "Rh": 2236.15,
    "Ru": 2606.15,
    "Ta": 3290.15,
    "Tc": 2430.15,
    "Ti": 1943.15,
    "V": 2183.15,
    "W": 3687.15,
    "Zn": 692.68,
    "Zr": 2127.15,
}
"""K. Source: CRC Handbook of Chemistry and Physics, "Melting, boiling, triple and critical points of the
elements", as in the package mendeleev 1.3.0."""

TIMES_MELTING = 1.25
"""Of the temperature of simulations: the hottest of the three levels of TM23, and the one that the
energy-conservation test of Fu et al. 2025 takes."""

REPEATS = {
    "fcc": (2, 2, 2),
    "bcc": (3, 3, 3),
    "hcp": (3, 3, 2),
    "rhombohedral": (3, 3, 3),
    "cubic": (1, 1, 1),
}

ALPHA_MANGANESE = {
    "basis": [(0, 0, 0), (0.317, 0.317, 0.317), (0.356, 0.356, 0.042), (0.089, 0.089, 0.282)],
    "spacegroup": 217,
}
"""Source: Oberteuffer & Ibers 1970, Acta Cryst. B 26, 1499."""


def kelvin_of(symbol: str) -> float:
    """Return the temperature at which a metal is simulated, in K."""
    return round(TIMES_MELTING * MELTING[symbol], 2)


def metal(symbol: str) -> System:
    """Return a crystal of 27 to 58 sites, one of them vacant, at the experimental lattice constant of ASE.

    Args:
        symbol: one of `MELTING`.
    """
    from ase.build import bulk
    from ase.data import atomic_numbers, reference_states
    from ase.spacegroup import crystal

    facts = reference_states[atomic_numbers[symbol]]
    kind = facts["symmetry"]
    if symbol == "Mn":
        a = facts["a"]
        atoms = crystal(["Mn"] * 4, cellpar=[a, a, a, 90, 90, 90], **ALPHA_MANGANESE)
    else:
        atoms = bulk(symbol, cubic=kind in ("fcc", "bcc")) * REPEATS[kind]
    del atoms[0]
    return System(atoms.numbers, atoms.positions, np.asarray(atoms.cell), np.ones(3, dtype=bool))


def metals(symbols: Iterable[str] = MELTING) -> dict[str, System]:
    """Return the crystals of some metals by symbol."""
    return {symbol: metal(symbol) for symbol in symbols}
