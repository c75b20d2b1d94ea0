"""The only unit conversions in the package: CODATA 2022, in eV, Å, fs, amu and K.

Multiply a quantity in the named unit by the constant to get the inside unit:
``energy_eV = energy_hartree * HARTREE``.
"""

HARTREE = 27.211386245981
"""eV per hartree."""

BOHR = 0.529177210544
"""Å per bohr."""

HARTREE_PER_BOHR = HARTREE / BOHR
"""eV/Å per hartree/bohr."""

KCAL_PER_MOL = 0.04336410424
"""eV per kcal/mol (thermochemical calorie)."""

KJ_PER_MOL = 0.01036426966
"""eV per kJ/mol."""

MEV = 1e-3
"""eV per meV."""

GPA = 1 / 160.2176634
"""eV/Å³ per gigapascal, exact."""

KELVIN = 8.617333262145179e-5
"""eV per kelvin (Boltzmann constant)."""

AMU_A2_PER_FS2 = 103.6426967
"""eV per amu·Å²/fs²."""
