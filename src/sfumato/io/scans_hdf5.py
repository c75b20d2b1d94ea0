"""A packed set of scans: one HDF5 file of ragged flat arrays with offsets.

Scan s has atoms `offset/atom[s:s+2]` of `atom/*` and frames `offset/frame[s:s+2]` of `frame/*`; the rows of
`coordinates/*` are frame by frame, atom by atom, scan after scan. What makes the numbers usable (level of
theory, licence, source) and the identity that proves them intact are attributes of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.files import write_atomically
from sfumato.io.hdf5 import open_packed, require_rows
from sfumato.systems import COORDINATES, Scan, ScanSet

if TYPE_CHECKING:
    import h5py

MOST = max(COORDINATES)
FORMAT = "sfumato-scans"
SCHEMA = 2


def write_scan_set(path: str | Path, scan_set: ScanSet) -> None:
    """Write a set of scans to one file, whole or not at all.

    Args:
        path: the file, replaced if it exists.
        scan_set: the scans and their facts.

    Raises:
        ValueError: a folder that does not exist, or provenance that JSON cannot express.
    """
    import h5py

    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")
    try:
        provenance = json.dumps(scan_set.provenance, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scan set {scan_set.name!r}: provenance is not JSON: {error}") from None
    with write_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema"] = SCHEMA
        for key in ("name", "level", "licence", "source", "identity"):
            file.attrs[key] = getattr(scan_set, key)
        # No attribute: those hold 64 kB, and a campaign may list more exclusions than that.
        file.create_dataset("provenance", data=provenance, dtype=h5py.string_dtype())
        _write_arrays(file, scan_set)


def _write_arrays(file: h5py.File, scan_set: ScanSet) -> None:
    import h5py

    scans = scan_set.scans

    def put(name: str, arrays: list[Any], shape: tuple[int, ...], dtype: str) -> None:
        values = np.concatenate(arrays) if arrays else np.empty(0)
        values = values.reshape(shape).astype(dtype)
        packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if values.size else {}
        file.create_dataset(name, data=values, **packing)

    for key in ("name", "smiles"):
        text = [getattr(s, key) for s in scans]
        file.create_dataset(f"scan/{key}", data=text, shape=(len(scans),), dtype=h5py.string_dtype())
    put("scan/atoms", [[*s.atoms, *[-1] * (MOST - len(s.atoms))] for s in scans], (-1, MOST), "<i4")
    put("scan/cell", [s.cell for s in scans], (-1, 3, 3), "<f8")
    put("scan/pbc", [s.pbc for s in scans], (-1, 3), "u1")
    put("scan/charge", [[s.charge] for s in scans], (-1,), "<i4")
    put("scan/multiplicity", [[s.multiplicity] for s in scans], (-1,), "<i4")
    put("offset/atom", [[0], np.cumsum([len(s.numbers) for s in scans])], (-1,), "<i8")
    put("offset/frame", [[0], np.cumsum([len(s) for s in scans])], (-1,), "<i8")
    put("atom/numbers", [s.numbers for s in scans], (-1,), "u1")
    put("atom/fragment", [s.fragment for s in scans], (-1,), "i1")
    put("frame/coordinate", [s.coordinate for s in scans], (-1,), "<f8")
    put("frame/energy", [s.energy for s in scans], (-1,), "<f8")
    put("coordinates/positions", [s.positions.reshape(-1, 3) for s in scans], (-1, 3), "<f8")
    put("coordinates/forces", [s.forces.reshape(-1, 3) for s in scans], (-1, 3), "<f8")


def read_scan_set(path: str | Path) -> ScanSet:
    """Read a packed set of scans and verify that its contents are what was written.

    Args:
        path: the file.

    Returns:
        The scans and their facts.

    Raises:
        ValueError: no such file; not HDF5, or truncated; another format or a newer schema; something
            missing or malformed; contents that differ from the identity the file states.
    """
    path = Path(path)
    with open_packed(path) as file:
        facts = _facts(file)
        identity = facts.pop("identity")
        scan_set = ScanSet(scans=tuple(_scans(file)), **facts)
    if scan_set.identity != identity:
        raise ValueError(
            f"{path}: the contents are not those that were written: the file states identity {identity}, "
            f"its arrays have {scan_set.identity}; fetch or build it again"
        )
    return scan_set


def _facts(file: h5py.File) -> dict[str, Any]:
    """Return the attributes of a file of this format and of a schema known here."""
    stated = file.attrs.get("format")
    if stated != FORMAT:
        raise ValueError(f"not a packed set of scans: format is {stated!r}, expected {FORMAT!r}")
    schema = file.attrs["schema"]
    if schema != SCHEMA:
        hint = "; it was written by a newer sfumato: upgrade" if schema > SCHEMA else ""
        raise ValueError(f"schema {schema} cannot be read, only schema {SCHEMA}{hint}")
    facts: dict[str, Any] = {
        key: str(file.attrs[key]) for key in ("name", "level", "licence", "source", "identity")
    }
    facts["provenance"] = json.loads(file["provenance"].asstr()[()])
    return facts


def _offsets(file: h5py.File, name: str, scans: int, rows: int) -> list[int]:
    values = file[name][:]
    if len(values) != scans + 1 or values[0] != 0 or values[-1] != rows or (np.diff(values) < 0).any():
        raise ValueError(f"{name} does not divide {rows} rows among {scans} scans")
    result: list[int] = values.tolist()
    return result


def _require_consistent(file: h5py.File) -> None:
    """Check the sizes of all arrays against each other before any is read."""
    scans, atoms, frames = (len(file[name]) for name in ("scan/name", "atom/numbers", "frame/coordinate"))
    require_rows(file, "scan", scans, ("smiles", "atoms", "cell", "pbc", "charge", "multiplicity"))
    require_rows(file, "offset", scans + 1, ("atom", "frame"))
    require_rows(file, "atom", atoms, ("numbers", "fragment"))
    require_rows(file, "frame", frames, ("coordinate", "energy"))
    rows = len(file["coordinates/positions"])
    require_rows(file, "coordinates", rows, ("positions", "forces"))


def _scans(file: h5py.File) -> Iterator[Scan]:
    """Cut the flat arrays into scans."""
    _require_consistent(file)
    names, smiles = (file[f"scan/{key}"].asstr()[:].tolist() for key in ("name", "smiles"))
    members, charge, multiplicity = (file[f"scan/{key}"][:] for key in ("atoms", "charge", "multiplicity"))
    cell, pbc = file["scan/cell"][:], file["scan/pbc"][:]
    numbers, fragment = file["atom/numbers"][:], file["atom/fragment"][:]
    coordinate, energy = file["frame/coordinate"][:], file["frame/energy"][:]
    positions, forces = file["coordinates/positions"][:], file["coordinates/forces"][:]
    atoms = _offsets(file, "offset/atom", len(names), len(numbers))
    frames = _offsets(file, "offset/frame", len(names), len(coordinate))
    row = 0
    for s, name in enumerate(names):
        a, f = slice(atoms[s], atoms[s + 1]), slice(frames[s], frames[s + 1])
        shape = (f.stop - f.start, a.stop - a.start, 3)
        rows = slice(row, row + shape[0] * shape[1])
        row = rows.stop
        if row > len(positions):
            raise ValueError(f"coordinates end before scan {name}")
        yield Scan(
            name=name,
            numbers=numbers[a],
            positions=positions[rows].reshape(shape),
            coordinate=coordinate[f],
            energy=energy[f],
            forces=forces[rows].reshape(shape),
            atoms=members[s][members[s] >= 0],
            fragment=fragment[a],
            charge=int(charge[s]),
            multiplicity=int(multiplicity[s]),
            smiles=smiles[s],
            cell=cell[s],
            pbc=pbc[s],
        )
