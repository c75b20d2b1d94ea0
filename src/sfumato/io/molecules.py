"""Molecules with names, read from SMILES, SDF, extended XYZ or anything ASE knows.

SMILES and SDF need RDKit. A molecule that comes with its graph keeps it: `bonds`, and a SMILES in which
every atom, hydrogen too, carries its position in the structure (from 1) as its map number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.io.ase_objects import from_ase, iterate_atoms
from sfumato.io.extxyz import FrameError
from sfumato.systems import Floats, Ints, System

SMILES_SUFFIXES = (".smi", ".smiles")
SDF_SUFFIXES = (".sdf", ".sd", ".mol")

FORCE_FIELD_STEPS = 2000

MOST_ATOMS = 200
"""Of a molecule that needs a conformer; the time for one grows with the cube."""

LONGEST_SMILES = 4000
"""Letters; a mapped SMILES of 200 atoms has fewer."""

CONFORMER_SECONDS = 60
"""After which the search for a conformer is given up."""


@dataclass(frozen=True, eq=False)
class Molecule:
    """A structure with the name it goes by and what is known of its graph.

    Args:
        name: unique in its file.
        system: the structure.
        smiles: atom-mapped where it was made from the graph; may be empty.
        bonds: (B, 2) bonded pairs i < j; None where only the geometry tells.
    """

    name: str
    system: System
    smiles: str = ""
    bonds: Ints | None = None


@dataclass(frozen=True)
class Exclusion:
    """Something that was left out, and why."""

    name: str
    reason: str


class Molecules(tuple[Molecule, ...]):
    """The molecules of a file; `rejected` lists what could not be read, with the reason."""

    rejected: tuple[Exclusion, ...]

    def __new__(cls, found: Iterable[Molecule], rejected: Iterable[Exclusion] = ()) -> Molecules:
        self = super().__new__(cls, found)
        self.rejected = tuple(rejected)
        return self


def read_molecules(path: str | Path, *, seed: int = 0) -> Molecules:
    """Read the molecules of a file; one that cannot be read is listed with its reason, the rest is kept.

    A line of a .smi file is a SMILES and, optionally, a name; empty lines and lines that begin with # are
    passed over. Atoms are put in canonical order, hydrogens are added, and the structure is an ETKDGv3
    conformer relaxed with MMFF94s (UFF where that has no parameters). An SDF record in three dimensions keeps
    its coordinates, and hydrogens it lacks are added to them; a flat one is treated like a SMILES.

    Args:
        path: .smi, .sdf (V2000 and V3000), .xyz, .extxyz or any other format that ASE recognizes. Of ASE's
            structures `info["name"]` and `info["smiles"]` are used.
        seed: of the conformers.

    Returns:
        The molecules in the order of the file, and what was left out. The name is the given one, else the
        line number (SMILES) or the position in the file, from 0. Of two molecules of one name the first
        is kept.

    Raises:
        ValueError: no such file, one of which nothing can be read, a seed out of range, or RDKit is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix in SMILES_SUFFIXES:
        entries = _smiles_entries(path, seed)
    elif suffix in SDF_SUFFIXES:
        entries = _sdf_entries(path, seed)
    else:
        entries = _ase_entries(path)
    found: dict[str, Molecule] = {}
    rejected: list[Exclusion] = []
    for entry in entries:
        if isinstance(entry, Exclusion):
            rejected.append(entry)
        elif entry.name in found:
            rejected.append(Exclusion(entry.name, "an earlier molecule has this name; give it another"))
        else:
            found[entry.name] = entry
    if not found:
        reasons = Counter(exclusion.reason for exclusion in rejected).most_common(3)
        told = "; ".join(f"{reason} ({count}×)" for reason, count in reasons)
        raise ValueError(f"{path}: no molecule could be read: {told or 'the file is empty'}")
    return Molecules(found.values(), rejected)


def _ase_entries(path: Path) -> Iterator[Molecule | Exclusion]:
    for k, atoms in enumerate(iterate_atoms(path)):
        if isinstance(atoms, FrameError):
            yield Exclusion(str(k), f"structure {k}: cannot be read: {atoms}")
            continue
        name = str(atoms.info.get("name", k))
        try:
            if not len(atoms):
                raise ValueError("it has no atoms")
            yield Molecule(name, from_ase(atoms), str(atoms.info.get("smiles", "")))
        except ValueError as error:
            yield Exclusion(name, f"structure {k}: {error}")


def _smiles_entries(path: Path, seed: int) -> Iterator[Molecule | Exclusion]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split(maxsplit=1)
        if not words or line.lstrip().startswith("#"):
            continue
        name = words[1].strip() if len(words) > 1 else str(number)
        try:
            yield molecule_from_smiles(words[0], name, seed=seed)
        except MoleculeError as error:
            yield Exclusion(name, f"line {number}: {error}")


def _sdf_entries(path: Path, seed: int) -> Iterator[Molecule | Exclusion]:
    with _rdkit() as chem:
        try:
            supplier = chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)
        except OSError:  # an empty file
            return
        for k in range(len(supplier)):
            graph = supplier[k]
            stated = supplier.GetItemText(k).split("\n", 1)[0].strip()
            name = stated or str(k)
            try:
                if graph is None:
                    raise MoleculeError("not a record that RDKit can read")
                yield _molecule(chem, _with_hydrogens(chem, graph, seed), name)
            except MoleculeError as error:
                yield Exclusion(name, f"record {k}: {error}")


class MoleculeError(ValueError):
    """A single molecule that cannot be made into a structure."""


@contextmanager
def _rdkit() -> Iterator[Any]:
    """Give RDKit's Chem module, silent while the block runs: what fails is said by the caller."""
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        raise ValueError(
            "the package rdkit is needed for SMILES and SDF; install it with: pip install 'sfumato[rdkit]'"
        ) from None
    with rdBase.BlockLogs():
        yield Chem


def _sanitized(chem: Any, graph: Any) -> Any:
    try:
        chem.SanitizeMol(graph)
    except ValueError as error:  # RDKit's MolSanitizeException is one
        raise MoleculeError(str(error)) from None
    return graph


def _graph(chem: Any, smiles: str) -> Any:
    """Parse a SMILES without its map numbers; explicit hydrogens that are atoms of their own are merged."""
    if len(smiles) > LONGEST_SMILES:
        raise MoleculeError(
            f"a SMILES of {len(smiles)} letters is too long for a conformer; give coordinates"
        )
    graph = chem.MolFromSmiles(smiles, sanitize=False)
    if graph is None:
        raise MoleculeError(f"{smiles!r} is not a SMILES")
    _sanitized(chem, graph)
    for atom in graph.GetAtoms():
        atom.SetAtomMapNum(0)
    return chem.RemoveHs(graph)


def canonical_smiles(smiles: str) -> str:
    """Return what two spellings of one molecule share: canonical, without map numbers and stereochemistry.

    Args:
        smiles: any SMILES.

    Raises:
        ValueError: not a SMILES, or RDKit is missing.
    """
    with _rdkit() as chem:
        return str(chem.MolToSmiles(_graph(chem, smiles), isomericSmiles=False))


def molecule_from_smiles(smiles: str, name: str = "", *, seed: int = 0) -> Molecule:
    """Make a structure from a SMILES, the same for every spelling of it.

    Args:
        smiles: one molecule; map numbers are ignored.
        name: what to call it; the SMILES if empty.
        seed: of the conformer.

    Returns:
        The molecule with bonds and mapped SMILES. Charge and multiplicity are those of the graph: unpaired
        electrons of radicals are taken to be parallel.

    Raises:
        MoleculeError: not a SMILES, several molecules, no conformer, or no force field for it.
        ValueError: RDKit is missing.
    """
    with _rdkit() as chem:
        canonical = chem.MolToSmiles(_graph(chem, smiles))
        graph = chem.AddHs(chem.MolFromSmiles(canonical))
        return _molecule(chem, _embedded(chem, graph, 1, seed)[0], name or smiles)


def conformers(molecule: Molecule, count: int, *, seed: int = 0) -> Floats:
    """Make further conformers of a molecule from its graph.

    Args:
        molecule: with an atom-mapped SMILES.
        count: number of conformers C asked for.
        seed: of the conformers.

    Returns:
        (C, N, 3) Å, relaxed with the force field, the lowest in energy first; some may coincide.

    Raises:
        MoleculeError: the SMILES does not map every atom, or no conformer was found.
        ValueError: RDKit is missing.
    """
    with _rdkit() as chem:
        graph = chem.MolFromSmiles(molecule.smiles, _keeping_hydrogens(chem))
        numbers = molecule.system.numbers
        maps = [] if graph is None else [atom.GetAtomMapNum() for atom in graph.GetAtoms()]
        if sorted(maps) != list(range(1, len(numbers) + 1)):
            raise MoleculeError("its SMILES does not map every atom")
        graph = chem.RenumberAtoms(graph, np.argsort(maps).tolist())
        for atom in graph.GetAtoms():
            atom.SetAtomMapNum(0)
        if [atom.GetAtomicNum() for atom in graph.GetAtoms()] != numbers.tolist():
            raise MoleculeError("its SMILES maps other elements than the structure has")
        return np.stack([g.GetConformer().GetPositions() for g in _embedded(chem, graph, count, seed)])


def _keeping_hydrogens(chem: Any) -> Any:
    parameters = chem.SmilesParserParams()
    parameters.removeHs = False
    return parameters


def _embedded(chem: Any, graph: Any, count: int, seed: int) -> list[Any]:
    """Return copies of a graph with hydrogens, each with one relaxed conformer, the lowest first."""
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    if not 0 <= seed < 2**31 - 1:
        raise ValueError(f"seed: must lie in 0…2³¹−2, got {seed}")
    if graph.GetNumAtoms() > MOST_ATOMS:
        raise MoleculeError(
            f"{graph.GetNumAtoms()} atoms are too many for a conformer (at most {MOST_ATOMS}); give "
            "coordinates (SDF, xyz)"
        )
    pieces = len(chem.GetMolFrags(graph))
    if pieces > 1:
        raise MoleculeError(f"it holds {pieces} separate molecules; give each on its own")
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed + 1  # RDKit multiplies it by the conformer's number: 0 makes all alike
    if hasattr(parameters, "timeout"):
        parameters.timeout = CONFORMER_SECONDS
    try:
        ids = list(rdDistGeom.EmbedMultipleConfs(graph, count, parameters))
        if not ids:
            parameters.useRandomCoords = True
            ids = list(rdDistGeom.EmbedMultipleConfs(graph, count, parameters))
    except (RuntimeError, ValueError) as error:
        raise MoleculeError(f"no conformer: {error}") from None
    if not ids:
        raise MoleculeError("RDKit found no conformer")
    if graph.GetNumBonds() == 0:
        outcome = [(0, 0.0)] * len(ids)
    elif rdForceFieldHelpers.MMFFHasAllMoleculeParams(graph):
        outcome = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(
            graph, maxIters=FORCE_FIELD_STEPS, mmffVariant="MMFF94s"
        )
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(graph):
        outcome = rdForceFieldHelpers.UFFOptimizeMoleculeConfs(graph, maxIters=FORCE_FIELD_STEPS)
    else:
        raise MoleculeError("neither MMFF94s nor UFF has parameters for it; give coordinates (SDF, xyz)")
    energies = [energy for _, energy in outcome]
    return [chem.Mol(graph, confId=ids[k]) for k in np.argsort(energies, kind="stable")]


def _with_hydrogens(chem: Any, graph: Any, seed: int) -> Any:
    """Return a record of an SDF as a complete molecule with coordinates."""
    _sanitized(chem, graph)
    spatial = graph.GetNumConformers() > 0 and graph.GetConformer().Is3D()
    if spatial:
        return chem.AddHs(graph, addCoords=True)
    return _embedded(chem, chem.AddHs(graph), 1, seed)[0]


def _molecule(chem: Any, graph: Any, name: str) -> Molecule:
    """Read structure, bonds and mapped SMILES off a graph with one conformer."""
    chem.AssignStereochemistryFrom3D(graph)
    atoms = list(graph.GetAtoms())
    try:
        system = System(
            numbers=np.array([atom.GetAtomicNum() for atom in atoms], dtype=np.int64),
            positions=graph.GetConformer().GetPositions(),
            charge=chem.GetFormalCharge(graph),
            multiplicity=1 + sum(atom.GetNumRadicalElectrons() for atom in atoms),
        )
    except ValueError as error:
        raise MoleculeError(str(error)) from None
    bonds = [sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in graph.GetBonds()]
    for atom in atoms:
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    return Molecule(name, system, chem.MolToSmiles(graph), np.array(sorted(bonds)).reshape(-1, 2))
