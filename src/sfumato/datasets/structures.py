"""Structures from which dynamics start: bundled molecules, metals with a vacancy, a user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from sfumato.datasets.metals import MELTING, kelvin_of, metal
from sfumato.io import from_ase
from sfumato.io.ase_objects import read_atoms
from sfumato.systems import System, digest
from sfumato.words import nearest

BUNDLED = Path(__file__).parents[1] / "data" / "molecules.extxyz"
"""Relaxed with GFN2-xTB; benchmarks/structures.py builds it."""

MOLECULE, METAL = 1.0, 5.0
"""fs, the published time steps: 1 fs for molecules, 5 fs for the metals (Fu et al. 2025)."""

MOLECULES_KELVIN, CRYSTALS_KELVIN = 500.0, 300.0
"""Of a user's own structures whose file does not say."""

SMALL = ("ethanol", "malonaldehyde", "aspirin")
MD22 = ("Ac-Ala3-NHMe", "DHA", "AT-AT", "stachyose")
"""Those of the seven systems of MD22 that are bundled."""

FEW_METALS = ("Cu", "W", "Ti")
SETS = ("molecules", "small", "md22", "metals", "all")


@dataclass(frozen=True, eq=False)
class Setup:
    """A structure, how hot it is simulated, and with which step.

    Args:
        name: unique in its set.
        system: the structure.
        kelvin: K.
        timestep: fs.
        source: where it comes from.
    """

    name: str
    system: System
    kelvin: float
    timestep: float
    source: str


@dataclass(frozen=True, eq=False)
class Setups:
    """A set of structures to simulate.

    Args:
        name: of the set.
        setups: the structures.
        licence: SPDX identifier or the owner's words.
        source: who made them.
        level: of theory; these have no labels.
    """

    name: str
    setups: tuple[Setup, ...]
    licence: str
    source: str
    level: str = "no labels"

    def __len__(self) -> int:
        return len(self.setups)

    def __iter__(self) -> Iterator[Setup]:
        return iter(self.setups)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of structures, temperatures and steps."""
        return digest(
            part
            for setup in self.setups
            for part in (setup.name, setup.system.identity, np.array([setup.kelvin, setup.timestep]))
        )


def load_structures(data: str | Path, size: str) -> Setups:
    """Return a set of structures.

    Args:
        data: one of `SETS`, the name of one bundled molecule or metal, several names with commas between, or
            the path of a file of structures: their `info` may say `name` and `kelvin`.
        size: "dev", "fast" or "standard": "molecules" and "metals" are few or all.

    Raises:
        ValueError: an unknown name, or a file that cannot be read.
    """
    text = str(data)
    if text in SETS:
        names = _names(text, size)
        return _bundled(text, names)
    path = Path(text).expanduser()
    if path.is_file():
        return _own(path)
    names = tuple(part.strip() for part in text.split(","))
    known = (*_molecules(), *MELTING)
    for name in names:
        if name not in known:
            hint = nearest(name, (*SETS, *known))
            raise ValueError(f"unknown structures {name!r}: neither a file nor a bundled one; {hint}")
    return _bundled(text, names)


def _names(text: str, size: str) -> tuple[str, ...]:
    """Return the structures of a named set."""
    large = size == "standard"
    small = {"dev": SMALL, "fast": (*SMALL, *MD22[:3])}.get(size, MD22)
    named = {
        "molecules": small,
        "small": SMALL,
        "md22": MD22,
        "metals": tuple(MELTING) if large else FEW_METALS,
    }
    return (*named["molecules"], *named["metals"]) if text == "all" else named[text]


def _bundled(name: str, names: Sequence[str]) -> Setups:
    setups = [_molecules()[n] if n in _molecules() else _metal(n) for n in names]
    kinds = {"GFN2-xTB minima" if n in _molecules() else "ASE, a vacancy in each" for n in names}
    return Setups(name, tuple(setups), "MIT; sources of each structure are listed", "; ".join(sorted(kinds)))


def _metal(symbol: str) -> Setup:
    source = "ASE's reference structure with a vacancy, 1.25 times the melting point (CRC Handbook)"
    return Setup(symbol, metal(symbol), kelvin_of(symbol), METAL, source)


@lru_cache
def _molecules() -> dict[str, Setup]:
    found = {}
    for atoms in read_atoms(BUNDLED):
        info = atoms.info
        name = str(info["name"])
        source = f"{info['source']}; relaxed with GFN2-xTB"
        found[name] = Setup(name, from_ase(atoms), float(info["kelvin"]), MOLECULE, source)
    return found


def _own(path: Path) -> Setups:
    """Return the structures of a user's file."""
    setups: list[Setup] = []
    for k, atoms in enumerate(read_atoms(path)):
        try:
            system = from_ase(atoms)
        except ValueError as error:
            raise ValueError(f"{path}, structure {k}: {error}") from None
        name = str(atoms.info.get("name") or k)
        if any(setup.name == name for setup in setups):
            name = f"{name}-{k}"
        usual = CRYSTALS_KELVIN if system.pbc.any() else MOLECULES_KELVIN
        stated = atoms.info.get("kelvin", usual)
        if not isinstance(stated, int | float | np.number) or not float(stated) > 0:
            raise ValueError(f"{path}, structure {k}: kelvin is {stated!r}; expected a temperature above 0 K")
        setups.append(Setup(name, system, float(stated), MOLECULE, str(path)))
    if not setups:
        raise ValueError(f"{path}: no structure in it")
    return Setups(path.stem, tuple(setups), "the user's", str(path))
