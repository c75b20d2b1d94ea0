"""The crystal in which defects are made: an element, or a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ase.build import bulk
from ase.data import atomic_numbers, reference_states

from sfumato.files import expanded
from sfumato.io.ase_objects import from_ase, read_atoms
from sfumato.systems import System, digest

CUBIC = ("diamond", "fcc", "bcc")


@dataclass(frozen=True, eq=False)
class Crystal:
    """A perfect crystal of one element.

    Args:
        name: of the element or file.
        system: its cubic cell; the lattice constant is only where each potential begins to look for its own.
        level: of theory of the geometry.
        licence: of the file.
        source: who made it.
    """

    name: str
    system: System
    level: str = "not stated"
    licence: str = "not stated"
    source: str = ""

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the structure."""
        return digest([self.system.identity])


def read_crystal(data: str | Path) -> Crystal:
    """Return a perfect crystal.

    Args:
        data: the symbol of an element that is a cubic crystal (diamond, fcc, bcc), or a file that ASE reads.

    Raises:
        ValueError: an element with another crystal, no such file, or a structure that is not periodic or not
            of one element.
    """
    path = expanded(data)
    if path.is_file():
        system = from_ase(read_atoms(path)[0])
        if not system.pbc.all() or len(set(system.numbers.tolist())) != 1:
            raise ValueError(f"{data}: expected the periodic cell of a perfect crystal of one element")
        return Crystal(path.stem, system, source=path.name)
    symbol = str(data)
    state = reference_states[atomic_numbers[symbol]] if symbol in atomic_numbers else None
    if not state or state.get("symmetry") not in CUBIC:
        raise ValueError(
            f"{data!r} is neither a file nor an element that crystallizes as {', '.join(CUBIC)}; "
            "for example Si, or a file with the cubic cell of a crystal"
        )
    source = "lattice constant of ASE's reference states"
    return Crystal(symbol, from_ase(bulk(symbol, cubic=True)), "experiment", "LGPL-2.1-or-later", source)
