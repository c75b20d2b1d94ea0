"""Extended XYZ files frame by frame: bounded, tolerant where the meaning is clear, strict where it is not.

ASE reads each frame; what it would lose without a word is dealt with before: a cell under `lattice`, frames
behind an empty line, numbers that do not belong to any column, nine components of a stress. Isotopes of
hydrogen and atomic numbers are taken as species.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ase.data import atomic_numbers, chemical_symbols

if TYPE_CHECKING:
    from ase import Atoms

SHORTEST_LINE = 8
"""Bytes of the line of an atom, "H 0 0 0" with its end."""

LONGEST_LINE = 1 << 20
"""Bytes; a header states some numbers and words."""

STANDARD_KEYS = {word.lower(): word for word in ("Lattice", "Properties", "pbc")}
"""Keys that ASE reads in this spelling only."""

ISOTOPES = {"D": "H", "T": "H"}
GHOSTS = frozenset({"X", "Xx", "Gh", "Bq", "Du"})


@dataclass(frozen=True)
class XYZFrame:
    """One frame of a file.

    Args:
        atoms: as ASE reads it.
        stated: the values of its header as they are, before ASE reshapes some of them.
    """

    atoms: Atoms
    stated: dict[str, Any] = field(default_factory=dict)


class FrameError(ValueError):
    """One frame that cannot be read, in a file whose other frames can."""


def read_extxyz(path: Path) -> Iterator[XYZFrame | FrameError]:
    """Read a file of extended or plain XYZ.

    Args:
        path: an existing file.

    Yields:
        The frames, and in the place of a frame that cannot be read the reason.

    Raises:
        ValueError: from where on the file cannot be read: no number of atoms, or one that the rest of the
            file has no lines for.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        k = 0
        while (first := _line(file, k)) is not None:
            if not first.strip():
                continue
            count = _count(first, k)
            left = size - file.tell()
            if count * SHORTEST_LINE > left + SHORTEST_LINE:
                raise ValueError(f"structure {k} announces {count} atoms, but only {left} bytes follow")
            header, rows = _line(file, k), [_line(file, k) for _ in range(count)]
            if header is None or None in rows:
                raise ValueError(f"structure {k} announces {count} atoms, but the file ends before the last")
            vectors = _vectors(file, k)
            try:
                yield _frame(header, [row for row in rows if row is not None], vectors)
            except Exception as error:  # noqa: BLE001 (ASE raises whatever a line makes it raise)
                plain = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                yield FrameError(plain)
            k += 1


def _line(file: BinaryIO, k: int) -> str | None:
    """Return the next line, None at the end."""
    line = file.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise ValueError(f"structure {k}: a line is longer than {LONGEST_LINE} bytes")
    if not line:
        return None
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _count(line: str, k: int) -> int:
    word = line.strip()
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"structure {k}: expected the number of atoms, got {word[:40]!r}")
    return int(word[:20])


def _vectors(file: BinaryIO, k: int) -> list[str]:
    """Return the lines VEC1 to VEC3 that may follow the atoms and state a cell."""
    found: list[str] = []
    while True:
        place = file.tell()
        line = _line(file, k)
        if line is None or not line.lstrip().startswith("VEC"):
            file.seek(place)
            return found
        found.append(line)


def _frame(header: str, rows: list[str], vectors: list[str]) -> XYZFrame:
    import ase.io
    from ase.io.extxyz import key_val_str_to_dict

    stated: dict[str, Any] = {}
    if header.strip() and not vectors:
        for key, value in key_val_str_to_dict(header.strip()).items():
            name = STANDARD_KEYS.get(key.lower(), key)
            if name in stated:
                raise ValueError(f"header: {name} is stated twice")
            stated[name] = value
        for name in ("Lattice", "lattice"):
            if name in stated and getattr(stated[name], "shape", None) == (9,):
                stated[name] = stated[name].reshape((3, 3), order="F")
    rows = _checked(rows, stated.get("Properties"))
    text = "".join([f"{len(rows)}\n", header if header.endswith("\n") else header + "\n", *rows, *vectors])
    atoms = ase.io.read(StringIO(text), index=0, format="extxyz", properties_parser=lambda _: dict(stated))
    return XYZFrame(atoms, stated)


def _checked(rows: list[str], properties: Any) -> list[str]:
    """Return the lines of the atoms with symbols ASE knows, after checking that they fill their columns."""
    fields = str(properties or "species:S:1:pos:R:3").split(":")
    names, widths = fields[::3], [int(width) for width in fields[2::3]]
    place, columns = 0, sum(widths)
    species = None
    for name, width in zip(names, widths):
        if name in ("species", "symbols", "element"):
            species = place
        place += width
    checked = []
    for i, row in enumerate(rows):
        words = row.split()
        # Without a statement of columns, what follows the position is nobody's.
        if len(words) < columns or (properties and len(words) > columns):
            raise ValueError(f"atom {i} has {len(words)} columns, expected {columns}")
        if species is not None and words[species].capitalize() not in atomic_numbers:
            words[species] = _symbol(words[species], i)
            checked.append(" ".join(words) + "\n")
            continue
        if species is not None and words[species].capitalize() in GHOSTS:
            _symbol(words[species], i)
        checked.append(row if row.endswith("\n") else row + "\n")
    return checked


def _symbol(word: str, atom: int) -> str:
    """Return the symbol of a species that ASE does not know."""
    if word.upper() in ISOTOPES:
        return ISOTOPES[word.upper()]
    if word.isascii() and word.isdigit() and 0 < int(word[:4]) < len(chemical_symbols):
        return str(chemical_symbols[int(word)])
    hint = "; ghost and dummy atoms have no place in a structure, remove it"
    plain = word.startswith("@") or word.capitalize().rstrip("0123456789") in GHOSTS or word == "0"
    raise ValueError(f"atom {atom} is {word[:20]!r}, which is not a chemical element{hint if plain else ''}")
