"""ASE atoms and extended XYZ files, to and from the array containers.

Charge and spin live in `Atoms.info`: `charge` in e, and `multiplicity` = 2S+1, which much of the field
calls `spin`. These names are written; the others that are in use are read too. Absent, they are 0 and 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from sfumato.files import write_text
from sfumato.io.extxyz import FrameError, read_extxyz
from sfumato.systems import Floats, Prediction, System
from sfumato.words import printable

if TYPE_CHECKING:
    from ase import Atoms

XYZ_SUFFIXES = (".xyz", ".extxyz")
PDB_SUFFIXES = (".pdb", ".ent")
GAUSSIAN_SUFFIXES = (".gjf", ".com")

CHARGE_KEYS = ("charge", "total_charge", "net_charge", "q")
"""Names of the total charge in e, in any case."""

MULTIPLICITY_KEYS = ("multiplicity", "spin", "total_spin", "spin_multiplicity", "mult")
"""Names of 2S+1, in any case."""

NO_ENERGY = "a disordered structure has no one energy; choose an ordered one"


def whole(value: Any, what: str) -> int:
    """Return a number without a fraction as int: a charge of 0.5 must not become 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected a whole number, got {value!r}") from None
    if not number.is_integer():
        raise ValueError(f"{what}: expected a whole number, got {value!r}")
    return int(number)


def stated_keys(atoms: Atoms, what: Literal["charge", "multiplicity"]) -> tuple[str, ...]:
    """Return the keys of `info` under which a structure states its charge or multiplicity, in any case.

    Args:
        atoms: the structure.
        what: which of the two.
    """
    names = CHARGE_KEYS if what == "charge" else MULTIPLICITY_KEYS
    return tuple(key for key in atoms.info if isinstance(key, str) and key.lower() in names)


def _stated(atoms: Atoms, what: Literal["charge", "multiplicity"]) -> int | None:
    """Return what a structure states, by itself or through the input of a program; None where it does not."""
    keys = stated_keys(atoms, what)
    values = {key: whole(atoms.info[key], key) for key in keys}
    if len(set(values.values())) > 1:
        said = ", ".join(f"{key} is {value}" for key, value in values.items())
        unit = "the total charge in e" if what == "charge" else "2S+1"
        raise ValueError(f"info: {said}; all mean {unit}, so give one or make them equal")
    if values:
        return next(iter(values.values()))
    parameters = getattr(atoms.calc, "parameters", None) or {}
    for name in ("charge",) if what == "charge" else ("mult", "multiplicity"):
        if parameters.get(name) is not None:
            return whole(parameters[name], name)
    return None


def from_ase(atoms: Atoms) -> System:
    """Read a structure from an ASE object.

    Args:
        atoms: structure; total charge (e) and 2S+1 are what `info` states under one of `CHARGE_KEYS` and
            `MULTIPLICITY_KEYS`, else what the program input it was read from says, else 0 and 1. Per-atom
            charges and magnetic moments are not used.

    Returns:
        The structure.

    Raises:
        ValueError: a fractional charge, a multiplicity of zero, statements that differ, or sites that are
            occupied in part.
    """
    _refuse_disorder(atoms)
    multiplicity = _stated(atoms, "multiplicity")
    if multiplicity == 0:
        key = next(iter(stated_keys(atoms, "multiplicity")), "multiplicity")
        raise ValueError(
            f"{key} is 0, but means 2S+1 here, which is 1 for a closed shell; if it counts unpaired "
            "electrons or is S, state the multiplicity instead (for data convert: multiplicity_is: 2S or S)"
        )
    return System(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell),
        pbc=atoms.pbc,
        charge=_stated(atoms, "charge") or 0,
        multiplicity=1 if multiplicity is None else multiplicity,
    )


def _refuse_disorder(atoms: Atoms) -> None:
    """Raise where a site is occupied in part: the atoms that ASE makes of it are another substance."""
    sites = atoms.info.get("occupancy")  # from a CIF: {site: {symbol: occupancy}}
    for site in sites.values() if isinstance(sites, Mapping) else ():
        if isinstance(site, Mapping) and (len(site) > 1 or any(value != 1 for value in site.values())):
            held = ", ".join(f"{symbol} {value:g}" for symbol, value in site.items())
            raise ValueError(f"a site is occupied by {held}: {NO_ENERGY}")
    of_atoms = np.asarray(atoms.arrays.get("occupancy", ()))  # from a PDB
    if of_atoms.dtype.kind == "f":
        partly = np.flatnonzero((of_atoms > 0) & (of_atoms < 1))
        if len(partly):
            raise ValueError(f"atom {partly[0]} has occupancy {of_atoms[partly[0]]:g}: {NO_ENERGY}")


def to_ase(system: System) -> Atoms:
    """Make an ASE object from a structure.

    Args:
        system: the structure.

    Returns:
        Atoms whose `info` states `charge`, `multiplicity` and, for calculators that look for it, `spin`.
    """
    from ase import Atoms

    info = {"charge": system.charge, "multiplicity": system.multiplicity, "spin": system.multiplicity}
    return Atoms(
        numbers=system.numbers, positions=system.positions, cell=system.cell, pbc=system.pbc, info=info
    )


def iterate_atoms(path: str | Path) -> Iterator[Atoms | FrameError]:
    """Read the structures of a file one after the other; .xyz is always taken as extended XYZ.

    Args:
        path: any format that ASE recognizes.

    Yields:
        ASE objects, and in the place of a frame of XYZ that cannot be read the reason.

    Raises:
        ValueError: no such file, or one that cannot be read further; names the file.
    """
    import ase.io

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.suffix.lower() in XYZ_SUFFIXES:
            for frame in read_extxyz(path):
                yield frame if isinstance(frame, FrameError) else frame.atoms
            return
        if path.suffix.lower() in PDB_SUFFIXES:
            _refuse_alternates(path)
        # Of an input for Gaussian, charge and spin are parameters of the calculator.
        more = {"attach_calculator": True} if path.suffix.lower() in GAUSSIAN_SUFFIXES else {}
        with warnings.catch_warnings():
            # A row of a CIF that does not fit its table would be left out, atoms and symmetry too.
            warnings.filterwarnings("error", message="Wrong number")
            found = ase.io.read(path, index=":", do_not_split_by_at_sign=True, **more)
    except UserWarning as error:
        raise ValueError(f"{path}: cannot be read: a row of a table: {printable(str(error), 300)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    except Exception as error:  # ASE's readers raise whatever the line made them raise
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error
    yield from found


def _refuse_alternates(path: Path) -> None:
    """Raise where a PDB gives an atom in several places: ASE would take all of them."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith(("ATOM", "HETATM")) and line[16:17].strip():
                raise ValueError(
                    f"line {number} is alternate location {line[16]!r} of an atom: {NO_ENERGY}; keep one "
                    "location of each atom and clear column 17"
                )


def read_atoms(path: str | Path) -> list[Atoms]:
    """Return every structure of a file as ASE objects; .xyz is always taken as extended XYZ.

    Raises:
        ValueError: no such file, or one of which a structure cannot be read; names file and structure.
    """
    found: list[Atoms] = []
    for k, atoms in enumerate(iterate_atoms(path)):
        if isinstance(atoms, FrameError):
            raise ValueError(f"{path}, structure {k}: cannot be read: {atoms}")
        found.append(atoms)
    return found


def read_systems(path: str | Path) -> list[System]:
    """Read all structures of a file.

    Args:
        path: extended XYZ, or any other format that ASE recognizes.

    Returns:
        The structures in the order of the file.

    Raises:
        ValueError: no such file, or one that cannot be read; names the file and the structure.
    """
    systems = []
    for k, atoms in enumerate(read_atoms(path)):
        try:
            systems.append(from_ase(atoms))
        except ValueError as error:
            raise ValueError(f"{path}, structure {k}: {error}") from None
    return systems


def _result(atoms: Atoms, key: str, shape: tuple[int, ...]) -> Floats:
    """Return a stored result, NaN where there is none."""
    value = None if atoms.calc is None else atoms.calc.results.get(key)
    return np.full(shape, np.nan) if value is None else np.asarray(value, dtype=float).reshape(shape)


def read_predictions(path: str | Path) -> Prediction:
    """Read the energies, forces and stresses that a file of structures holds.

    Args:
        path: extended XYZ, or any other format that ASE recognizes.

    Returns:
        Energies (eV), forces (eV/Å) of all structures in order; NaN where the file has none. Stress
        (eV/Å³) only if at least one structure has it.

    Raises:
        ValueError: no such file, or one that cannot be read.
    """
    from ase.stress import voigt_6_to_full_3x3_stress

    frames = read_atoms(path)
    stress = None
    if any(a.calc is not None and "stress" in a.calc.results for a in frames):
        stress = np.stack([voigt_6_to_full_3x3_stress(_result(a, "stress", (6,))) for a in frames])
    return Prediction(
        energy=np.array([_result(a, "energy", ()) for a in frames], dtype=float),
        forces=np.concatenate([_result(a, "forces", (len(a), 3)) for a in frames] or [np.zeros((0, 3))]),
        stress=stress,
    )


def _numbers_text(values: ArrayLike) -> str:
    """Write numbers so that they read back to the last bit, which ASE's eight decimals do not."""
    return " ".join(repr(float(value)) for value in np.ravel(values))


def _quoted(text: str) -> str:
    """Write a word so that ASE reads it back, backslashes of a SMILES too."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _frame_text(
    system: System,
    energy: float | None,
    forces: Floats | None,
    stress: Floats | None,
    info: Mapping[str, str],
) -> str:
    from ase.data import chemical_symbols

    head = []
    if system.cell.any():
        head.append(f'Lattice="{_numbers_text(system.cell)}"')
    head.append("Properties=species:S:1:pos:R:3" + ("" if forces is None else ":forces:R:3"))
    if energy is not None:
        head.append(f"energy={energy!r}")
    if stress is not None:
        head.append(f'stress="{_numbers_text(stress)}"')
    head += [f"charge={system.charge}", f"multiplicity={system.multiplicity}"]
    head.append('pbc="{}"'.format(" ".join("FT"[int(p)] for p in system.pbc)))
    head += [f"{key}={_quoted(text)}" for key, text in info.items() if text]
    rows = system.positions if forces is None else np.concatenate([system.positions, forces], axis=1)
    body = [f"{chemical_symbols[z]} {_numbers_text(row)}" for z, row in zip(system.numbers, rows)]
    return "\n".join([str(len(system)), " ".join(head), *body, ""])


def write_systems(
    path: str | Path,
    systems: Sequence[System],
    predictions: Prediction | None = None,
    info: Sequence[Mapping[str, str]] | None = None,
) -> None:
    """Write structures, and what was predicted for them, as extended XYZ that reads back bit for bit.

    Args:
        path: the file, replaced if it exists.
        systems: the structures.
        predictions: energies (S,), forces (N, 3) and, optionally, stresses of all structures in order.
        info: further words of each structure, for example {"name": "ethane"}; empty ones are left out.

    Raises:
        ValueError: predictions or words for another number of structures or atoms.
    """
    counts = [len(system) for system in systems]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    if predictions is not None and (
        len(predictions.energy) != len(systems) or len(predictions.forces) != offsets[-1]
    ):
        raise ValueError(
            f"{path}: {len(predictions.energy)} energies and {len(predictions.forces)} force vectors were "
            f"given for {len(systems)} structures with {offsets[-1]} atoms"
        )
    words = [{}] * len(systems) if info is None else info
    if len(words) != len(systems):
        raise ValueError(f"{path}: words of {len(words)} structures were given for {len(systems)}")
    text = []
    for k, system in enumerate(systems):
        if predictions is None:
            text.append(_frame_text(system, None, None, None, words[k]))
            continue
        stress = None if predictions.stress is None else predictions.stress[k]
        forces = predictions.forces[offsets[k] : offsets[k + 1]]
        text.append(_frame_text(system, float(predictions.energy[k]), forces, stress, words[k]))
    write_text(path, "".join(text))
