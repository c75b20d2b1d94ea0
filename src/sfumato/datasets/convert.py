"""Labeled structures of any known layout into one packed file of frames, as a stream."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.config import read_settings
from sfumato.datasets.sources import RawFrame, SourceSettings, read_frames, unit
from sfumato.frames import SPLITS, Category, split_by_molecule
from sfumato.io.frames_hdf5 import FrameWriter, writing_frames
from sfumato.systems import Batch, Floats, Ints, Prediction, System
from sfumato.words import nearest

CHUNK_ATOMS = 1 << 16
"""Atoms that are gathered before they are written."""

MOST_MOVED = 1e-5
"""Å that storing a position as float32 may move it; reached 128 Å from the origin at the earliest."""

LEVEL_WORDS = ("level", "level_of_theory", "theory", "functional", "xc")
"""Keys that, if they differ from frame to frame, betray mixed levels of theory."""

ORDERS = {"ase": (0, 1, 2, 3, 4, 5), "vasp": (0, 1, 2, 4, 5, 3)}
"""Which of six stress components are xx, yy, zz, yz, xz and xy."""

MOST_LISTED = 100
"""Frames left out that are listed by name in the file."""


@dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Args:
        path: the file.
        identity: of its contents.
        frames: how many.
        molecules: how many.
        splits: frames in each.
        notes: what was decided on the way, in sentences.
        left_out: the frames that are not in the file, with the reason.
    """

    path: Path
    identity: str
    frames: int
    molecules: int
    splits: dict[str, int]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


class UnusableError(ValueError):
    """A frame that cannot be read, has no atoms, or whose labels are not finite."""


@dataclass(frozen=True)
class _Factors:
    """Multipliers to eV and Å, with the signs of what is declared."""

    energy: float
    length: float
    forces: float
    stress: float


def _factors(settings: SourceSettings) -> _Factors:
    """Return the multipliers, after checking that everything needed is declared."""
    keys, units = settings.keys, settings.units
    if not keys.energy:
        raise ValueError("keys: name the key of the energy")
    for label in ("forces", "stress"):
        if not getattr(keys, label) and label not in settings.absent:
            raise ValueError(f"keys: name the key of the {label}, or declare it: absent: [{label}]")
    forces = unit("forces", units.forces) if keys.forces else 1.0
    stress = 1.0
    if keys.stress:
        if not settings.stress_are:
            raise ValueError("stress_are: declare 'stress', 'pressure' or 'virial'")
        stress = unit("virial" if settings.stress_are == "virial" else "stress", units.stress)
    return _Factors(
        unit("energy", units.energy),
        unit("length", units.length),
        forces if settings.forces_are == "forces" else -forces,
        stress if settings.stress_are == "stress" else -stress,
    )


def read_source(path: str | Path) -> SourceSettings:
    """Read from YAML what a file of labeled structures is and means.

    Raises:
        ValueError: an unreadable file, or a declaration that is not complete; names the file.
    """
    settings = read_settings(SourceSettings, Path(path))
    open_ = [key for key, value in settings.model_dump().items() if "???" in str(value)]
    if open_:
        raise ValueError(f"{path}: still to be filled in (???): {', '.join(open_)}")
    try:
        _factors(settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return settings


class _Words:
    """A category that grows."""

    def __init__(self) -> None:
        self._code: dict[str, int] = {}
        self._codes = array("i")

    def add(self, word: str) -> None:
        self._codes.append(self._code.setdefault(word, len(self._code)))

    def category(self) -> Category:
        return Category(tuple(self._code), np.array(self._codes, dtype=np.int64))


def _value(frame: RawFrame, key: str, role: str) -> Any:
    """Return what a frame holds under a key, or say which keys it has."""
    value = frame.values.get(key)
    if value is None:
        there = ", ".join(repr(name) for name in sorted(frame.names)) or "none"
        raise ValueError(f"{role}: there is no {key!r}; the keys that are there: {there}; set keys.{role}")
    return value


def _floats(value: Any, role: str) -> Floats:
    """Return the numbers that lie under a key, in whatever shape."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{role}: expected numbers, got {value!r:.60}") from None


def _number(value: Any, key: str) -> float:
    """Return the one number that lies under a key."""
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "iuf":
        raise ValueError(f"energy: expected one number under {key!r}, got {value!r:.60}")
    return float(found.item())


def _stress(values: Any, settings: SourceSettings, factor: float, system: System) -> Floats:
    """Return the stress (3, 3) eV/Å³ of a structure in Å."""
    found = _floats(values, "stress")
    if found.size == 6:
        if not settings.stress_order:
            raise ValueError("stress: six numbers; declare stress_order: 'ase' or 'vasp'")
        xx, yy, zz, yz, xz, xy = found.reshape(6)[list(ORDERS[settings.stress_order])]
        found = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    elif found.size != 9:
        raise ValueError(f"stress: expected 6 or 9 numbers, got shape {found.shape}")
    found = found.reshape(3, 3) * factor
    volume = abs(np.linalg.det(system.cell))
    if volume == 0:
        raise ValueError("stress: there is one, but the structure has no cell with a volume")
    if settings.stress_are != "virial":
        return found
    return np.asarray(found / volume)


class _Stream:
    """Frames on their way from a file into a writer."""

    def __init__(self, settings: SourceSettings, writer: FrameWriter) -> None:
        self.settings = settings
        self.factors = _factors(settings)
        self.writer = writer
        self.molecule, self.subset, self.split = _Words(), _Words(), _Words()
        self.left_out: list[tuple[str, str]] = []
        self.moved = 0.0
        self.assumed = {"charge": 0, "multiplicity": 0}
        self.lacking = {"forces": 0, "stress": 0}
        self.rule = self._rule()
        self._levels: dict[str, tuple[str, str]] = {}
        self._rows: list[tuple[System, float, Floats, Floats]] = []
        self._atoms = 0

    def _rule(self) -> str:
        """Return the key that names molecules, or "composition" or "frame", or "" if not known yet."""
        return self.settings.molecule or self.settings.keys.molecule

    def add(self, frame: RawFrame, split: str) -> None:
        """Take in one frame."""
        try:
            if frame.unusable or not len(frame.system):
                raise UnusableError(frame.unusable or "the structure has no atoms")
            self._check_level(frame)
            system = self._system(frame)
            row = self._labels(frame, system)
        except UnusableError as error:
            if self.settings.unusable == "error":
                raise ValueError(f"{error}; leave it out with unusable: leave out") from None
            self.left_out.append((frame.where, str(error)))
            return
        self._rows.append((system, *row))
        self._atoms += len(system)
        self._categories(frame, system, split)
        if self._atoms >= CHUNK_ATOMS:
            self.flush()

    def _check_level(self, frame: RawFrame) -> None:
        key, level = self.settings.keys.level, self.settings.level
        if key:
            found = str(_value(frame, key, "level"))
            if found != level:
                raise ValueError(
                    f"level: {found!r} in a set at {level!r}; mixed levels do not make one surface"
                )
            return
        for word in LEVEL_WORDS:
            if word in frame.values:
                here = str(frame.values[word])
                there, where = self._levels.setdefault(word, (here, frame.where))
                if here != there:
                    raise ValueError(
                        f"mixed levels of theory: {word} is {here!r}, but {there!r} in {where}; convert each "
                        "into its own set, or name the key of the level in keys.level"
                    )

    def _system(self, frame: RawFrame) -> System:
        """Return the structure in Å, as float32 will hold it."""
        system, settings = frame.system, self.settings
        positions = system.positions * self.factors.length
        rounded = positions.astype(np.float32).astype(np.float64)
        moved = float(np.abs(rounded - positions).max(initial=0.0))
        if moved > MOST_MOVED:
            raise ValueError(
                f"positions reach {np.abs(positions).max():.3g} Å, and float32 would move an atom by "
                f"{moved:.1g} Å; center the structure or wrap it into its cell"
            )
        self.moved = max(self.moved, moved)
        stated = {}
        for key in self.assumed:
            if key not in frame.states:
                self.assumed[key] += 1
                stated[key] = getattr(settings, key)
        return replace(system, positions=rounded, cell=system.cell * self.factors.length, **stated)

    def _labels(self, frame: RawFrame, system: System) -> tuple[float, Floats, Floats]:
        """Return energy (eV), forces (eV/Å) and stress (eV/Å³); NaN where declared absent."""
        keys, settings = self.settings.keys, self.settings
        energy = _number(_value(frame, keys.energy, "energy"), keys.energy) * self.factors.energy
        forces, stress = np.full((len(system), 3), np.nan), np.full((3, 3), np.nan)
        missing = [
            label
            for label in settings.absent
            if not getattr(keys, label) or frame.values.get(getattr(keys, label)) is None
        ]
        for label in missing:
            self.lacking[label] += 1
        if "forces" not in missing:
            forces = _floats(_value(frame, keys.forces, "forces"), "forces") * self.factors.forces
            if forces.shape != (len(system), 3):
                raise ValueError(f"forces: expected shape ({len(system)}, 3), got {forces.shape}")
        if "stress" not in missing:
            stress = _stress(_value(frame, keys.stress, "stress"), settings, self.factors.stress, system)
        for name, value in (("energy", energy), ("forces", forces), ("stress", stress)):
            if name not in missing and not np.isfinite(value).all():
                raise UnusableError(f"the {name} {'are' if name == 'forces' else 'is'} not finite")
        return energy, forces, stress

    def _categories(self, frame: RawFrame, system: System, split: str) -> None:
        keys = self.settings.keys
        if not self.rule:
            self.rule = "smiles" if "smiles" in frame.values else "composition"
        if self.rule == "frame":
            molecule = f"{split} {frame.where}".strip()
        elif self.rule == "composition":
            molecule = hill_formula(system.numbers)
        else:
            molecule = str(_value(frame, self.rule, "molecule"))
        self.molecule.add(molecule)
        self.subset.add(str(_value(frame, keys.subset, "subset")) if keys.subset else "all")
        if keys.split and not split:
            split = str(_value(frame, keys.split, "split"))
            if split not in SPLITS:
                raise ValueError(f"split: {split!r} is not a split; {nearest(split, SPLITS)}")
        self.split.add(split)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._rows:
            systems, energy, forces, stress = zip(*self._rows)
            labels = Prediction(
                np.array(energy),
                np.concatenate(forces),
                np.stack(stress) if self.settings.keys.stress else None,
            )
            self.writer.append(Batch.of(systems), labels)
        self._rows, self._atoms = [], 0

    def notes(self) -> tuple[str, ...]:
        """Return what was decided on the way, in sentences."""
        by = {
            "composition": "the composition (Hill formula)",
            "frame": "itself: frames may be divided freely",
        }
        found = [f"a frame's molecule is {by.get(self.rule, f'what it has under {self.rule!r}')}"]
        for key, count in self.assumed.items():
            if count:
                found.append(f"{count} frames state no {key}: taken as {getattr(self.settings, key)}")
        if any(self.assumed.values()):
            found.append(
                "a charge or multiplicity under a name of its own is read if keys.charge or "
                "keys.multiplicity says so"
            )
        found += [f"{count} frames have no {label}" for label, count in self.lacking.items() if count]
        found.append(f"float32 moved no atom by more than {self.moved:.1g} Å")
        if self.left_out:
            found.append(f"{len(self.left_out)} frames were left out")
        return tuple(found)


def hill_formula(numbers: Ints) -> str:
    """Return the composition as text: C, H, then the other elements by letter, or all by letter."""
    from ase.data import chemical_symbols

    counts = np.bincount(numbers)
    symbols = {chemical_symbols[z]: int(counts[z]) for z in np.flatnonzero(counts)}
    first = [s for s in ("C", "H") if s in symbols] if "C" in symbols else []
    order = first + sorted(s for s in symbols if s not in first)
    return "".join(s + (str(symbols[s]) if symbols[s] > 1 else "") for s in order)


def _all_frames(files: Mapping[str, Path], settings: SourceSettings) -> Iterator[tuple[str, Path, RawFrame]]:
    for split, file in files.items():
        for frame in read_frames(file, settings):
            yield split, file, frame


def _files(path: str | Path | Mapping[str, str | Path]) -> dict[str, Path]:
    """Return the files of the splits by name; one file alone has none."""
    files = {k: Path(v) for k, v in path.items()} if isinstance(path, Mapping) else {"": Path(path)}
    for split in files:
        if split and split not in SPLITS:
            raise ValueError(f"split: {split!r} is not a split; {nearest(split, SPLITS)}")
    return files


def convert(
    path: str | Path | Mapping[str, str | Path],
    out: str | Path,
    source: SourceSettings,
    watch: Callable[[int], None] | None = None,
) -> Conversion:
    """Convert labeled structures into a packed file of frames, in bounded memory, whole or not at all.

    Args:
        path: the file, or the files of the splits by name.
        out: the packed file, replaced if it exists.
        source: what the file is and means.
        watch: called with the number of frames read so far, now and then.

    Returns:
        What was made, and what was decided or left out on the way.

    Raises:
        ValueError: a label that is missing and not declared absent, units or signs not declared, mixed
            levels of theory, a frame that cannot be read or stored; names file, frame and remedy. An `out`
            that is a folder.
    """
    files = _files(path)
    if Path(out).is_dir():
        raise ValueError(f"{out}: is a folder; name the file to write, such as {Path(out) / source.name}.h5")
    facts = {key: getattr(source, key) for key in ("name", "level", "licence", "source", "absent")}
    with writing_frames(out, **facts) as writer:
        stream = _Stream(source, writer)
        for k, (split, file, frame) in enumerate(_all_frames(files, source)):
            try:
                stream.add(frame, split)
            except ValueError as error:
                raise ValueError(f"{file}, {frame.where}: {error}") from None
            if watch is not None and (k + 1) % 1000 == 0:
                watch(k + 1)
        stream.flush()
        if not writer.frames:
            first = ": ".join(stream.left_out[0]) if stream.left_out else "there are none"
            raise ValueError(f"{', '.join(map(str, files.values()))}: no frame that could be used: {first}")
        molecule = stream.molecule.category()
        if "" in files and not source.keys.split:
            divided = split_by_molecule(molecule, source.fractions, source.seed)
        else:
            divided = stream.split.category()
        left_out = tuple(stream.left_out)
        provenance = _provenance(files, source, stream.notes(), left_out)
        identity = writer.finish(molecule, stream.subset.category(), divided, provenance)
    return Conversion(
        path=Path(out),
        identity=identity,
        frames=len(molecule),
        molecules=len(molecule.names),
        splits={name: count for name, count in divided.counts().items() if count},
        notes=stream.notes(),
        left_out=left_out,
    )


def _provenance(
    files: Mapping[str, Path],
    source: SourceSettings,
    notes: Sequence[str],
    left_out: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    return {
        "converted from": {k or "all": {"file": f.name, "bytes": _size(f)} for k, f in files.items()},
        "declared": source.model_dump(mode="json"),
        "notes": list(notes),
        "left out": {"frames": len(left_out), "first": [list(x) for x in left_out[:MOST_LISTED]]},
    }


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size
