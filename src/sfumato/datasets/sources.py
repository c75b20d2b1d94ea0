"""Labeled structures as others publish them: each layout as a stream of raw frames, in its own units.

What a file means is declared in `SourceSettings`, never guessed. Two layouts whose makers fix the meaning,
SPICE and MPtrj, come with their declaration; every part of it can be overridden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator, model_validator

from sfumato.config import Settings
from sfumato.io.ase_objects import from_ase, stated_keys, whole
from sfumato.io.extxyz import ISOTOPES, FrameError, read_extxyz
from sfumato.io.hdf5 import open_any
from sfumato.systems import System
from sfumato.units import BOHR, GPA, HARTREE, KCAL_PER_MOL, KJ_PER_MOL, MEV
from sfumato.words import nearest

if TYPE_CHECKING:
    from ase import Atoms
    from ase.db.row import AtomsRow

ENERGY = {
    "eV": 1.0,
    "meV": MEV,
    "hartree": HARTREE,
    "rydberg": HARTREE / 2,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
}
LENGTH = {"Å": 1.0, "angstrom": 1.0, "bohr": BOHR, "nm": 10.0}
STRESS = {
    "eV/Å³": 1.0,
    "GPa": GPA,
    "kbar": GPA / 10,
    "bar": GPA / 1e4,
    "hartree/bohr³": HARTREE / BOHR**3,
}

PAGE = 1000
"""Rows of an SQLite database that are in memory at once."""


class Keys(Settings):
    """Under which name a file holds what; empty where it does not.

    Args:
        energy: total energy of the structure.
        forces: (N, 3).
        stress: (3, 3), nine numbers, or six in a declared order.
        molecule: what a frame is a configuration of.
        subset: how a frame came about.
        split: "train", "val" or "test".
        level: level of theory of a frame, which must be the set's.
        charge: total charge in e, where it has none of the usual names (`CHARGE_KEYS`).
        multiplicity: likewise (`MULTIPLICITY_KEYS`), in the sense of `multiplicity_is`.
    """

    energy: str = ""
    forces: str = ""
    stress: str = ""
    molecule: str = ""
    subset: str = ""
    split: str = ""
    level: str = ""
    charge: str = ""
    multiplicity: str = ""


class Units(Settings):
    """Units of the numbers in the file: energy, length, forces as "energy/length", and stress."""

    energy: str = ""
    length: str = ""
    forces: str = ""
    stress: str = ""


class SourceSettings(Settings):
    """What a file of labeled structures is and means.

    Args:
        layout: how it is written.
        name: of the set that is made of it.
        level: level of theory of all labels.
        licence: SPDX identifier or the owner's words.
        source: who made it.
        keys: where what is.
        units: of the numbers.
        forces_are: "forces" −∂E/∂x, or "gradient" +∂E/∂x.
        stress_are: "stress" (1/V) ∂E/∂ε (ASE), "pressure" the negative of it (VASP), or "virial"
            −∂E/∂ε, whose unit is one of energy.
        stress_order: of six numbers: "ase" xx yy zz yz xz xy, "vasp" xx yy zz xy yz zx.
        absent: of "forces" and "stress", what frames may lack.
        molecule: where no key names it: "composition", or "frame" where each stands for itself; empty
            means the key "smiles" if the frames have it, else the composition.
        fractions: of frames in train, val and test where neither files nor a key divide them.
        seed: of that division.
        charge: e, of frames that state none.
        multiplicity: 2S+1, of frames that state none.
        multiplicity_is: what a number under such a key means: the multiplicity "2S+1", the number of unpaired
            electrons "2S", or the spin "S".
        unusable: what to do with a frame that cannot be read, has no atoms or labels that are not finite:
            "error" or "leave out".
    """

    layout: Literal["extxyz", "ase-db", "spice", "mptrj", "pymatgen"]
    name: str
    level: str
    licence: str
    source: str = ""
    keys: Keys = Keys()
    units: Units = Units()
    forces_are: Literal["forces", "gradient"] = "forces"
    stress_are: Literal["", "stress", "pressure", "virial"] = ""
    stress_order: Literal["", "ase", "vasp"] = ""
    absent: tuple[Literal["forces", "stress"], ...] = ()
    molecule: Literal["", "composition", "frame"] = ""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    charge: int = 0
    multiplicity: int = 1
    multiplicity_is: Literal["2S+1", "2S", "S"] = "2S+1"
    unusable: Literal["error", "leave out"] = "error"

    @field_validator("name")
    @classmethod
    def _a_name_and_no_path(cls, name: str) -> str:
        if re.search(r"[/\\\x00-\x1f]", name) or name.strip(". ") == "":
            raise ValueError("must be a name, without slashes and control characters")
        return name

    @model_validator(mode="before")
    @classmethod
    def _declared_by_the_layout(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        known: dict[str, Any] = LAYOUTS.get(str(values.get("layout")), {})
        merged = {**known, **values}
        for part in ("keys", "units"):
            if isinstance(values.get(part, {}), Mapping):
                merged[part] = {**known.get(part, {}), **values.get(part, {})}
        return merged


LAYOUTS: dict[str, dict[str, Any]] = {
    "extxyz": {"stress_order": "ase"},
    "ase-db": {"stress_order": "ase"},
    # Eastman et al. 2023, doi 10.1038/s41597-022-01882-6: atomic units, gradients.
    "spice": {
        "keys": {
            "energy": "dft_total_energy",
            "forces": "dft_total_gradient",
            "molecule": "smiles",
            "subset": "subset",
        },
        "units": {"energy": "hartree", "length": "bohr", "forces": "hartree/bohr"},
        "forces_are": "gradient",
        "absent": ("stress",),
    },
    # Deng et al. 2023, doi 10.1038/s42256-023-00716-3, and its data card: raw VASP stress in kbar.
    "mptrj": {
        "keys": {
            "energy": "uncorrected_total_energy",
            "forces": "force",
            "stress": "stress",
            "molecule": "mp_id",
        },
        "units": {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "kbar"},
        "stress_are": "pressure",
    },
}
"""What the makers of a layout declare about it."""


def unit(quantity: Literal["energy", "length", "forces", "stress", "virial"], name: str) -> float:
    """Return what a number in a unit is multiplied by to be in eV and Å.

    Args:
        quantity: what is measured.
        name: of the unit, for example "hartree/bohr".

    Raises:
        ValueError: no name, or an unknown one; says which are known.
    """
    if not name:
        raise ValueError(f"units: declare the unit of the {quantity}")
    if quantity == "forces":
        energy, _, length = name.rpartition("/")
        return unit("energy", energy) / unit("length", length)
    table = {"length": LENGTH, "stress": STRESS}.get(quantity, ENERGY)
    if name not in table:
        raise ValueError(
            f"units: {name!r} is not a unit of {quantity} known here; {nearest(name, table)}; "
            f"known: {', '.join(table)}"
        )
    return table[name]


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One structure as it lies in a file, in the file's units.

    Args:
        where: words that find it again.
        system: the structure; charge 0 and multiplicity 1 where not stated.
        values: everything that may be a label or a category, by its key.
        names: the keys that are there, if more than those of `values`.
        states: which of "charge" and "multiplicity" the file states.
        unusable: why the structure, empty then, cannot be used; empty where it can.
    """

    where: str
    system: System
    values: Mapping[str, Any]
    names: tuple[str, ...] = ()
    states: frozenset[str] = field(default_factory=frozenset)
    unusable: str = ""


NOTHING = System(np.zeros(0, dtype=np.int64), np.zeros((0, 3)))
"""In the place of a structure that cannot be read."""


def read_frames(path: str | Path, settings: SourceSettings) -> Iterator[RawFrame]:
    """Read a file of labeled structures frame by frame.

    Args:
        path: the file; for ase-db also a folder of databases.
        settings: of which the layout and the keys are used.

    Yields:
        The frames in the order of the file.

    Raises:
        ValueError: no such file, one that cannot be read, or a missing package; names file and frame.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    frames = READERS[settings.layout](path, settings)
    where = "the first structure"
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except ImportError as error:
            raise ValueError(
                f"{path}: reading the layout {settings.layout!r} needs a package that is not installed: "
                f"{error}; pip install 'sfumato[train]'"
            ) from None
        except Exception as error:  # parsers raise whatever the line made them raise
            raise ValueError(f"{path}, at {where}: cannot be read: {error}") from error
        where = f"the structure after {frame.where}"
        yield frame if settings.layout in ("extxyz", "ase-db") else _with_declared(frame, settings)


def _of_ase(atoms: Atoms, where: str, values: Mapping[str, Any], settings: SourceSettings) -> RawFrame:
    info = dict(atoms.info)
    stated = []
    for what in ("charge", "multiplicity"):
        key = getattr(settings.keys, what)
        if key:
            there = key in info
            value = info.get(key)
            info = {name: item for name, item in info.items() if name not in stated_keys(atoms, what)}
            info |= {what: value} if there else {}
        atoms.info = info
        names = stated_keys(atoms, what)
        if what == "multiplicity":
            info |= {name: _multiplicity(info[name], name, settings) for name in names}
        stated += [what] if names else []
    return RawFrame(where, from_ase(atoms), values, tuple(values), frozenset(stated))


def _multiplicity(value: Any, name: str, settings: SourceSettings) -> Any:
    """Return 2S+1 of what a file states."""
    if settings.multiplicity_is == "2S+1":
        return value
    try:
        number = float(value) * (2 if settings.multiplicity_is == "S" else 1)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a number, got {value!r}") from None
    return number + 1


def _with_declared(frame: RawFrame, settings: SourceSettings) -> RawFrame:
    """Return a frame with the charge and multiplicity that lie under the keys the settings name."""
    stated: dict[str, Any] = {}
    for what in ("charge", "multiplicity"):
        key = getattr(settings.keys, what)
        if key and frame.values.get(key) is not None:
            value = frame.values[key]
            value = _multiplicity(value, key, settings) if what == "multiplicity" else value
            stated[what] = whole(np.asarray(value).item(), key)
    return replace(frame, system=replace(frame.system, **stated), states=frame.states | stated.keys())


def _read_extxyz(path: Path, settings: SourceSettings) -> Iterator[RawFrame]:
    for k, frame in enumerate(read_extxyz(path)):
        where = f"structure {k}"
        if isinstance(frame, FrameError):
            yield RawFrame(where, NOTHING, {}, unusable=f"it cannot be read: {frame}")
            continue
        atoms = frame.atoms
        arrays = {key: a for key, a in atoms.arrays.items() if key not in ("numbers", "positions")}
        results = {} if atoms.calc is None else dict(atoms.calc.results)
        if "stress" in results and "stress" in frame.stated:
            results["stress"] = frame.stated["stress"]  # ASE makes six numbers of nine, in its own order
        try:
            yield _of_ase(atoms, where, {**atoms.info, **arrays, **results}, settings)
        except ValueError as error:
            yield RawFrame(where, NOTHING, {}, unusable=str(error))


def _read_ase_db(path: Path, settings: SourceSettings) -> Iterator[RawFrame]:
    from ase.db import connect

    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".aselmdb", ".db", ".json"))
    for file in files:
        lmdb = file.suffix == ".aselmdb"
        database = connect(file, **({"readonly": True, "use_lock_file": False} if lmdb else {}))
        for row in database.select() if lmdb else _pages(database):
            atoms = row.toatoms()
            atoms.info = {**row.get("data", {}), **row.key_value_pairs}
            results = {} if atoms.calc is None else atoms.calc.results
            yield _of_ase(atoms, f"{file.name}, row {row.id}", {**atoms.info, **results}, settings)


def _pages(database: Any) -> Iterator[AtomsRow]:
    """Yield all rows; ASE would fetch an SQLite database whole."""
    last = 0
    while True:
        rows = list(database.select(f"id>{last}", sort="id", limit=PAGE))
        yield from rows
        if len(rows) < PAGE:
            return
        last = rows[-1].id


def _charge_of(smiles: str) -> int:
    """Return the sum of the formal charges written in a SMILES string."""
    total = 0
    for signs, number in re.findall(r"\[[^\]+-]*([+]+|-+)(\d*)(?::\d+)?\]", smiles):
        total += (int(number) if number else len(signs)) * (1 if signs[0] == "+" else -1)
    return total


def _read_spice(path: Path, settings: SourceSettings) -> Iterator[RawFrame]:
    import h5py

    wanted = {key for key in settings.keys.model_dump().values() if key} | {"smiles"}
    with open_any(path) as file:
        for name, group in file.items():
            positions = group["conformations"][:]
            if not len(positions):  # conformations may all have been left out
                continue
            found = {}
            for key in wanted & set(group):
                text = h5py.check_string_dtype(group[key].dtype) is not None
                value = np.ravel(group[key].asstr()[()])[0] if text else group[key][()]
                shared = text or np.shape(value)[:1] != (len(positions),)
                found[key] = [value] * len(positions) if shared else value
            numbers = group["atomic_numbers"][:]
            smiles = str(found["smiles"][0]) if "smiles" in found else ""
            for k, x in enumerate(positions):
                yield RawFrame(
                    f"group {name}, conformation {k}",
                    System(numbers, x, charge=_charge_of(smiles)),
                    {key: value[k] for key, value in found.items()},
                    tuple(group),
                    frozenset({"charge"} if smiles else ()),
                )


def _structure(record: Mapping[str, Any]) -> tuple[System, frozenset[str]]:
    """Return the structure that a pymatgen dictionary describes, and what it states about it."""
    from ase.data import atomic_numbers

    numbers = []
    for k, site in enumerate(record["sites"]):
        species = site["species"]
        if len(species) != 1 or species[0]["occu"] != 1:
            raise ValueError(f"site {k} is occupied by {species}: disordered structures have no one energy")
        symbol = str(species[0]["element"])
        symbol = ISOTOPES.get(symbol, symbol)
        if symbol not in atomic_numbers:
            raise ValueError(f"site {k}: {symbol!r} is not a chemical element")
        numbers.append(atomic_numbers[symbol])
    lattice = record.get("lattice")
    cell = np.zeros((3, 3)) if lattice is None else np.array(lattice["matrix"], dtype=float)
    positions = [
        site["xyz"] if "xyz" in site else np.asarray(site["abc"], dtype=float) @ cell
        for site in record["sites"]
    ]
    words = {"charge": "charge", "multiplicity": "spin_multiplicity"}
    stated = {what: whole(record[word], word) for what, word in words.items() if record.get(word) is not None}
    system = System(
        np.array(numbers, dtype=np.int64),
        np.asarray(positions, dtype=float).reshape(-1, 3),
        cell,
        np.zeros(3, dtype=bool) if lattice is None else lattice.get("pbc", (True, True, True)),
        **stated,
    )
    return system, frozenset(stated)


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one with dotted keys, the structure left out."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= {} if key == "structure" else _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _read_pymatgen(path: Path, settings: SourceSettings) -> Iterator[RawFrame]:
    import ijson  # type: ignore[import-untyped,import-not-found,unused-ignore]

    k = -1
    with path.open("rb") as file:
        for k, record in enumerate(ijson.items(file, "item", use_float=True)):
            if not isinstance(record, Mapping) or "structure" not in record:
                raise ValueError("expected a list of objects that each have a 'structure'")
            system, states = _structure(record["structure"])
            values = _flat(record)
            yield RawFrame(f"structure {k}", system, values, tuple(values), states)
    if k < 0:
        raise ValueError("expected a list of objects that each have a 'structure'")


def _read_mptrj(path: Path, settings: SourceSettings) -> Iterator[RawFrame]:
    import ijson  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with path.open("rb") as file:
        for material, frames in ijson.kvitems(file, "", use_float=True):
            for name, record in frames.items():
                system, states = _structure(record["structure"])
                values = {"mp_id": material, **_flat(record)}
                yield RawFrame(f"{material}, frame {name}", system, values, tuple(values), states)


READERS: dict[str, Callable[[Path, SourceSettings], Iterator[RawFrame]]] = {
    "extxyz": _read_extxyz,
    "ase-db": _read_ase_db,
    "spice": _read_spice,
    "mptrj": _read_mptrj,
    "pymatgen": _read_pymatgen,
}
