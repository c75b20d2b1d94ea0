"""ASE atoms and extended XYZ files, to and from the array containers.

Charge and spin live in `Atoms.info`: `charge` in e, and `multiplicity` = 2S+1, which much of the field
calls `spin`; both names are read, both are written. Absent, they are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sfumato.systems import Floats, Prediction, System

if TYPE_CHECKING:
    from ase import Atoms

XYZ_SUFFIXES = (".xyz", ".extxyz")


def _whole(value: Any, what: str) -> int:
    """Return a number without a fraction as int: a charge of 0.5 must not become 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected a whole number, got {value!r}") from None
    if not number.is_integer():
        raise ValueError(f"{what}: expected a whole number, got {value!r}")
    return int(number)


def from_ase(atoms: Atoms) -> System:
    """Read a structure from an ASE object.

    Args:
        atoms: structure; `info["charge"]` (e) and `info["multiplicity"]` or `info["spin"]` (2S+1) are
            used, and are 0 and 1 where absent. Per-atom charges and magnetic moments are not.

    Returns:
        The structure.

    Raises:
        ValueError: a fractional charge, or `multiplicity` and `spin` that differ.
    """
    stated = {key: _whole(atoms.info[key], key) for key in ("multiplicity", "spin") if key in atoms.info}
    if len(set(stated.values())) > 1:
        raise ValueError(
            f"info: multiplicity is {stated['multiplicity']} but spin is {stated['spin']}; "
            "both mean 2S+1, so give one or make them equal"
        )
    return System(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell),
        pbc=atoms.pbc,
        charge=_whole(atoms.info.get("charge", 0), "charge"),
        multiplicity=next(iter(stated.values()), 1),
    )


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


def read_atoms(path: str | Path) -> list[Atoms]:
    """Return every structure of a file as ASE objects; .xyz is always taken as extended XYZ."""
    import ase.io

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    kind = "extxyz" if path.suffix.lower() in XYZ_SUFFIXES else None
    try:
        found = ase.io.read(path, index=":", format=kind, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's readers raise whatever the line made them raise
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error
    return list(found)


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
    Path(path).write_text("".join(text), encoding="utf-8")
