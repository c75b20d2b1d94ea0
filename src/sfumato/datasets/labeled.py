"""Files of structures that say themselves what they hold, and a declaration to complete for others.

`sfumato label` writes extended XYZ in eV and Å with a header of one form, which nobody else writes: it needs
no declaration. What another file means has to be declared; `template` writes a declaration to be completed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sfumato.datasets.convert import Conversion, convert
from sfumato.datasets.sources import ENERGY, LENGTH, STRESS, RawFrame, SourceSettings, read_frames
from sfumato.files import temporary_folder
from sfumato.frames import FrameSet
from sfumato.io import read_frame_set, write_systems
from sfumato.io.ase_objects import XYZ_SUFFIXES
from sfumato.systems import Prediction, System
from sfumato.words import nearest

PACKED_SUFFIXES = (".h5", ".hdf5")

NOT_STATED = "not stated"

_WORD = r'"(?:[^"\\]|\\.)*"'
_HEADER = re.compile(
    r'(Lattice="[^"]*" )?Properties=species:S:1:pos:R:3:forces:R:3 energy=\S+ (?P<stress>stress="[^"]*" )?'
    rf'charge=-?\d+ multiplicity=\d+ pbc="[FT] [FT] [FT]"( name={_WORD})?(?P<smiles> smiles={_WORD})?'
    rf" level=(?P<level>{_WORD})(?P<scan> coordinate={_WORD} scanned={_WORD} fragment={_WORD})?\s*"
)
"""What `write_labeled` puts on the second line."""

LONGEST = 1 << 20
"""Bytes of a header; the fragment of ten thousand atoms has 30 kB."""


def require_format(path: Path) -> None:
    """Refuse a file whose name does not say a format that labels are written in.

    Raises:
        ValueError: an ending other than .xyz, .extxyz, .h5 or .hdf5.
    """
    known = (*XYZ_SUFFIXES, *PACKED_SUFFIXES)
    if path.suffix.lower() not in known:
        raise ValueError(
            f"{path}: the ending says how to write: {', '.join(known)}; {nearest(path.suffix, known)}"
        )


def write_labeled(
    path: Path, systems: Sequence[System], labels: Prediction, words: Sequence[Mapping[str, str]]
) -> None:
    """Write labeled structures: extended XYZ, or a packed set of frames where the ending is .h5.

    Args:
        path: its ending says the format.
        systems: the structures.
        labels: energies (S,) eV and forces (N, 3) eV/Å.
        words: of each structure: name, smiles, level, and of a frame of a scan what it is scanned along.

    Raises:
        ValueError: another ending, or what `convert` refuses.
    """
    require_format(path)
    if path.suffix.lower() in XYZ_SUFFIXES:
        write_systems(path, systems, labels, words)
        return
    with temporary_folder("label") as folder:
        plain = folder / f"{path.stem}.extxyz"
        write_systems(plain, systems, labels, words)
        made = declaration(plain)
        assert made is not None
        pack(plain, path, made)


def pack(path: str | Path, out: Path, declared: SourceSettings) -> Conversion:
    """Convert a file that `write_labeled` wrote; of too few molecules to divide, all frames are in "test".

    Args:
        path: the file.
        out: the packed file.
        declared: its `declaration`.

    Raises:
        ValueError: what `convert` refuses besides.
    """
    try:
        return convert(path, out, declared)
    except ValueError as error:
        if "cannot be divided" not in str(error):
            raise
        return convert(path, out, declared.model_copy(update=UNDIVIDED))


UNDIVIDED = {"fractions": (0.0, 0.0, 1.0)}


def header_of(path: str | Path) -> re.Match[str] | None:
    """Return the parts of the first header of a file that `write_labeled` wrote; None for any other file."""
    path = Path(path)
    if path.suffix.lower() not in XYZ_SUFFIXES or not path.is_file():
        return None
    with path.open("rb") as file:
        file.readline(LONGEST)
        line = file.readline(LONGEST)
    return _HEADER.fullmatch(line.decode("utf-8", errors="replace").rstrip("\n"))


def declaration(path: str | Path) -> SourceSettings | None:
    """Return what a file that `sfumato label` wrote says of itself; None for any other file.

    The level of theory of every frame is compared with that of the first when the file is read. A molecule is
    what has one SMILES, or else one composition.
    """
    found = header_of(path)
    if found is None:
        return None
    keys = {"energy": "energy", "forces": "forces", "level": "level"}
    units = {"energy": "eV", "length": "Å", "forces": "eV/Å"}
    stressed = {"stress_are": "stress"} if found["stress"] else {}
    return SourceSettings(
        layout="extxyz",
        name=Path(path).stem,
        level=re.sub(r"\\(.)", r"\1", found["level"][1:-1]),
        licence=NOT_STATED,
        source="sfumato label",
        keys=keys | ({"stress": "stress"} if stressed else {}),
        units=units | ({"stress": "eV/Å³"} if stressed else {}),
        absent=("stress",),
        molecule="" if found["smiles"] else "composition",
        **stressed,
    )


def read_labeled(path: str | Path, declared: SourceSettings) -> FrameSet:
    """Return the frames of a file of labeled structures, all of them in the split "test".

    Args:
        path: the file.
        declared: what it means.

    Raises:
        ValueError: what `convert` refuses.
    """
    with temporary_folder("labeled") as folder:
        packed = folder / "frames.h5"
        # How the frames would be divided for training does not matter here, and few cannot be.
        convert(path, packed, declared.model_copy(update=UNDIVIDED))
        return read_frame_set(packed)


_LAYOUTS = {".db": "ase-db", ".aselmdb": "ase-db", ".h5": "spice", ".hdf5": "spice", ".json": "mptrj"}

_TEMPLATE = """\
# What {file} is and means, for: sfumato data convert {file} --source THIS.yaml -o set.h5
# Nothing is guessed: replace every ??? and check the rest.
layout: {layout}           # extxyz, ase-db, spice, mptrj or pymatgen
name: {name}
level: ???                 # level of theory of all labels, for example wB97M-D3(BJ)/def2-TZVPPD
licence: ???               # SPDX identifier such as CC-BY-4.0, or the owner's words
source: ""                 # who made it
keys:                      # {there}
  energy: {energy}
  forces: {forces}
  stress: {stress}
  molecule: {molecule}     # what a frame is a configuration of; "" for SMILES, else the composition
  subset: ""               # how a frame came about, for errors by subset
  split: ""                # train, val or test
  charge: ""               # only where it is not called {charges}
  multiplicity: ""         # likewise, {spins}
units:
  energy: ???              # {energies}
  length: ???              # {lengths}
  forces: ???              # energy/length, for example eV/Å
  stress: {stress_unit}    # {stresses}
forces_are: forces         # or gradient, of the other sign
stress_are: {stress_are}   # stress (as ASE), pressure (as VASP, the other sign) or virial
stress_order: {order}           # of six numbers: ase (xx yy zz yz xz xy) or vasp (xx yy zz xy yz zx)
absent: [{absent}]         # labels that frames may lack: forces, stress
multiplicity_is: 2S+1      # or 2S (unpaired electrons), or S
unusable: error            # or "leave out": frames that cannot be read or have labels that are not finite
fractions: [0.8, 0.1, 0.1] # train, val and test, where no key divides them; molecules stay together
"""


def template(path: str | Path) -> str:
    """Return a declaration of a file of structures, with comments, and ??? where only its owner knows.

    The keys that the file has are filled in where they have a usual name.

    Args:
        path: an existing file.

    Raises:
        ValueError: there is no such file, or no structure can be read from it.
    """
    from sfumato.io.ase_objects import CHARGE_KEYS, MULTIPLICITY_KEYS

    path = Path(path)
    layout = _LAYOUTS.get(path.suffix.lower(), "extxyz")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    bare = SourceSettings.model_validate({"layout": layout, "name": "x", "level": "x", "licence": "x"})
    frame = next(iter(read_frames(path, bare)), None)
    if frame is None:
        raise ValueError(f"{path}: holds no structure")
    stress = _usual(frame, "stress", "virial")
    text = _TEMPLATE.format(
        file=path.name,
        layout=layout,
        name=re.sub(r"[^\w.+-]+", "-", path.stem),
        there="in the first frame: " + (", ".join(sorted(frame.names)) or "nothing"),
        energy=_usual(frame, "energy", "free_energy") or "???",
        forces=_usual(frame, "forces", "force", "gradient") or "???",
        stress=stress or '""',
        molecule=_usual(frame, "mol_id", "molecule") or '""',
        charges=", ".join(CHARGE_KEYS),
        spins=", ".join(MULTIPLICITY_KEYS),
        energies=", ".join(ENERGY),
        lengths=", ".join(LENGTH),
        stresses=", ".join(STRESS),
        stress_unit="???" if stress else '""',
        stress_are="???" if stress else '""',
        order="ase" if layout in ("extxyz", "ase-db") else '""',
        absent="" if stress else "stress",
    )
    lines = [line.partition(" # ") for line in text.splitlines()]
    aligned = [f"{left.rstrip():<26} # {right}" if mark else left for left, mark, right in lines]
    return "\n".join(aligned) + "\n"


def _usual(frame: RawFrame, *words: str) -> str:
    """Return the key of a frame that is called by one of some words, with or without something before it."""
    for word in words:
        exact = [key for key in frame.names if key.lower() == word]
        alike = [key for key in frame.names if key.lower().endswith(word)]
        if exact or alike:
            return (exact or alike)[0]
    return ""
