"""Molecules with names, the input of a scan builder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.io.ase_objects import from_ase, read_atoms
from sfumato.systems import System


@dataclass(frozen=True, eq=False)
class Molecule:
    """A structure with the name it goes by and, where known, its SMILES."""

    name: str
    system: System
    smiles: str = ""


def read_molecules(path: str | Path) -> list[Molecule]:
    """Read named structures from extended XYZ or any other format that ASE recognises.

    Args:
        path: the file; `info["name"]` and `info["smiles"]` are used, the position in the file names the rest.

    Returns:
        The molecules in the order of the file.

    Raises:
        ValueError: no such file, one that cannot be read, or two structures of one name.
    """
    molecules = []
    for k, atoms in enumerate(read_atoms(path)):
        try:
            system = from_ase(atoms)
        except ValueError as error:
            raise ValueError(f"{path}, structure {k}: {error}") from None
        molecules.append(Molecule(str(atoms.info.get("name", k)), system, str(atoms.info.get("smiles", ""))))
    names = [molecule.name for molecule in molecules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: {names.count(name)} structures are called {name!r}")
    return molecules
