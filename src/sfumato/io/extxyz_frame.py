"""One labeled frame of extended XYZ, read strictly and fast.

A published set is 48,500 files of one dialect, and a general reader spends a quarter of an hour on them.
This one knows that dialect only; every other header goes to ASE, so nothing is read in a way that ASE
would not (but one: ASE drops the backslash of a SMILES, which is stereochemistry, and it is kept here).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from io import StringIO
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers

from sfumato.io.ase_objects import from_ase, stated_keys
from sfumato.systems import Floats, Ints

PROPERTIES = "species:S:1:pos:R:3:forces:R:3"
COLUMNS = 7
KEYS = {"Properties", "id", "bond", "smiles", "dataset", "energy", "pbc"}

# key=value or key="quoted value"; no escaped quote, bracket or brace, whose meaning is left to ASE.
_PAIR = re.compile(r"""\s*([A-Za-z]\w*)=(?:"((?:[^"\\]|\\(?=[^"]))*)"|([^\s"'{}\[\],\\]+))(?=\s|$)""")


class _Header(NamedTuple):
    energy: float
    smiles: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A labeled structure as the file states it.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å.
        energy: eV; may be NaN.
        forces: (N, 3) eV/Å.
        smiles: empty where the file has none.
        charge: e, None where the file does not say.
        multiplicity: 2S+1, None where the file does not say.
    """

    numbers: Ints
    positions: Floats
    energy: float
    forces: Floats
    smiles: str = ""
    charge: int | None = None
    multiplicity: int | None = None


def _header(comment: str) -> _Header | None:
    """Return what the comment line says if it is of the known dialect, else None."""
    fields: dict[str, str] = {}
    end, comment = 0, comment.rstrip()
    while end < len(comment):
        match = _PAIR.match(comment, end)
        if match is None or match[1] not in KEYS or match[1] in fields:
            return None
        fields[match[1]] = match[3] if match[2] is None else match[2]
        end = match.end()
    if fields.get("Properties") != PROPERTIES or fields.get("pbc", "F F F") != "F F F":
        return None
    try:
        return _Header(float(fields["energy"]), fields.get("smiles", ""))
    except (KeyError, ValueError):
        return None


def parse_frame(text: str, where: str) -> Frame:
    """Read the text of a file that holds one frame with an energy and forces.

    Args:
        text: the whole file.
        where: what to call it in an error.

    Returns:
        The frame.

    Raises:
        ValueError: not exactly one well-formed frame, no energy or forces, or a periodic structure.
    """
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 2:
        raise ValueError(f"{where}: not an XYZ file: it has no header")
    header = _header(lines[1])
    if header is None:
        return _frame_by_ase(text, where)
    try:
        count = int(lines[0])
    except ValueError:
        raise ValueError(f"{where}: line 1 must be the number of atoms, got {lines[0][:40]!r}") from None
    rows = [line.split() for line in lines[2:]]
    if len(rows) != count:
        raise ValueError(f"{where}: line 1 announces {count} atoms, but {len(rows)} lines follow the header")
    if any(len(row) != COLUMNS for row in rows):
        bad = next(k for k, row in enumerate(rows) if len(row) != COLUMNS)
        raise ValueError(f"{where}: line {bad + 3} has {len(rows[bad])} columns, expected {COLUMNS}")
    try:
        numbers = np.array([atomic_numbers[row[0]] for row in rows], dtype=np.int64)
        values = np.array([float(word) for row in rows for word in row[1:]]).reshape(-1, 6)
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]!r} is not an element") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Frame(numbers, values[:, :3], header.energy, values[:, 3:], header.smiles)


def _frame_by_ase(text: str, where: str) -> Frame:
    """Read a frame of any other extended XYZ."""
    import ase.io

    try:
        found = ase.io.read(StringIO(text), index=":", format="extxyz")
    except Exception as error:  # ASE's reader raises whatever the line made it raise
        raise ValueError(f"{where}: cannot be read: {type(error).__name__}: {error}") from error
    if len(found) != 1:
        raise ValueError(f"{where}: expected one frame, found {len(found)}")
    atoms = found[0]
    results = {} if atoms.calc is None else atoms.calc.results
    for key in ("energy", "forces"):
        if key not in results:
            raise ValueError(f"{where}: the frame has no {key}")
    if atoms.pbc.any():
        raise ValueError(f"{where}: the frame is periodic; bond scans are of molecules")
    try:
        system, energy = from_ase(atoms), float(results["energy"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    smiles = atoms.info.get("smiles", "")
    return Frame(
        numbers=system.numbers,
        positions=system.positions,
        energy=energy,
        forces=np.array(results["forces"], dtype=float),
        smiles=smiles if isinstance(smiles, str) else "",  # ASE takes "F" for false
        charge=system.charge if stated_keys(atoms, "charge") else None,
        multiplicity=system.multiplicity if stated_keys(atoms, "multiplicity") else None,
    )


def unlabeled(frame: Frame) -> bool:
    """Tell whether the reference calculation of a frame failed."""
    return math.isnan(frame.energy)
