"""What a model need not learn: an energy for every element, and the scale of the forces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.datasets.loader import Rows
from sfumato.datasets.sources import SourceSettings, read_frames, unit
from sfumato.systems import Batch, Floats, Ints

READ = 8192
"""Frames in memory at once."""

UNDETERMINED = 1e-6
"""An element counts as determined if less than this of it lies outside what the compositions span."""


@dataclass(frozen=True)
class AtomEnergies:
    """The energy that each atom of an element adds before the model adds anything.

    Args:
        energy: eV, by atomic number.
        origin: how they were found, in words.
        undetermined: elements whose own energy the data does not fix, only sums with others.
    """

    energy: Mapping[int, float]
    origin: str
    undetermined: tuple[int, ...] = ()

    def total(self, batch: Batch) -> Floats:
        """Return (S,) eV, the sum over the atoms of each structure.

        Raises:
            ValueError: an element without an energy.
        """
        from ase.data import chemical_symbols

        table = np.full(int(batch.numbers.max(initial=0)) + 1, np.nan)
        for z, energy in self.energy.items():
            if z < len(table):
                table[z] = energy
        lacking = np.unique(batch.numbers[np.isnan(table[batch.numbers])])
        if len(lacking):
            raise ValueError(
                f"atom energies: none for {', '.join(chemical_symbols[z] for z in lacking)}; they were found "
                f"by {self.origin}, for {', '.join(chemical_symbols[z] for z in sorted(self.energy))} only"
            )
        return np.asarray(np.bincount(batch.index, table[batch.numbers], len(batch)), dtype=float)

    def as_json(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        energy = {str(z): e for z, e in self.energy.items()}
        return {"energy": energy, "origin": self.origin, "undetermined": list(self.undetermined)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> AtomEnergies:
        """Return what `as_json` wrote."""
        energy = {int(z): float(e) for z, e in found["energy"].items()}
        return cls(energy, str(found["origin"]), tuple(found["undetermined"]))


@dataclass(frozen=True)
class Compositions:
    """The compositions of a split with their mean energies, and the scale of its forces.

    Args:
        elements: (K,) atomic numbers that occur.
        counts: (U, K) atoms of each element in each distinct composition.
        frames: (U,) frames of that composition.
        energy: (U,) eV, their mean energy.
        force_scale: eV/Å, root mean square of all force components; NaN where no frame has forces.
        stressed: frames whose stress is known.
    """

    elements: tuple[int, ...]
    counts: Floats
    frames: Floats
    energy: Floats
    force_scale: float
    stressed: int = 0


def compositions(rows: Rows, split: str | None = "train") -> Compositions:
    """Read a split once, in bounded memory, for what `fit_atom_energies` and the scale of forces need.

    Args:
        rows: the frames.
        split: which of them; None for all.

    Raises:
        ValueError: no frame is in the split.
    """
    wanted = np.ones(len(rows), dtype=bool)
    if split is not None:
        wanted[:] = False
        wanted[rows.split.where(split)] = True
    if not wanted.any():
        raise ValueError(f"{rows.name}: no frame to take energies from")
    sums: dict[bytes, list[float]] = {}
    squares, components, stressed = 0.0, 0, 0
    for start in range(0, len(rows), READ):
        stop = min(start + READ, len(rows))
        if not wanted[start:stop].any():
            continue
        arrays = rows.arrays(start, stop)
        counts = np.diff(rows.offsets[start : stop + 1])
        index = np.repeat(np.arange(stop - start), counts)
        table = np.zeros((stop - start, 119), dtype=np.int32)
        np.add.at(table, (index, arrays["numbers"]), 1)
        for k in np.flatnonzero(wanted[start:stop]):
            found = sums.setdefault(table[k].tobytes(), [0.0, 0.0])
            found[0] += 1
            found[1] += float(arrays["energy"][k])
        forces = arrays["forces"][wanted[start:stop][index]].astype(float)
        forces = forces[~np.isnan(forces)]
        squares += float(forces @ forces)
        components += len(forces)
        if "stress" in arrays:
            stressed += int(np.isfinite(arrays["stress"][wanted[start:stop]]).all(axis=(1, 2)).sum())
    tables = np.array([np.frombuffer(key, dtype=np.int32) for key in sums])
    elements = np.flatnonzero(tables.any(axis=0))
    frames, energy = np.array(list(sums.values())).T
    return Compositions(
        elements=tuple(elements.tolist()),
        counts=tables[:, elements].astype(float),
        frames=frames,
        energy=energy / frames,
        force_scale=float(np.sqrt(squares / components)) if components else float("nan"),
        stressed=stressed,
    )


def fit_atom_energies(found: Compositions) -> AtomEnergies:
    """Fit one energy per element to total energies by least squares over all frames.

    Where the compositions do not tell elements apart (methane alone says nothing about C and H each), the
    solution of least norm is taken and the elements concerned are named: totals of such compositions are
    right, the parts are arbitrary, and another composition would be off.

    Args:
        found: from `compositions`.

    Returns:
        The energies.
    """
    weight = np.sqrt(found.frames)
    left, singular, right = np.linalg.svd(found.counts * weight[:, None], full_matrices=False)
    kept = singular > singular.max(initial=0.0) * max(found.counts.shape) * np.finfo(float).eps
    right = right[kept]
    solution = right.T @ ((left[:, kept].T @ (found.energy * weight)) / singular[kept])
    outside = 1 - (right**2).sum(axis=0)
    undetermined = tuple(z for z, part in zip(found.elements, outside) if part > UNDETERMINED)
    return AtomEnergies(
        dict(zip(found.elements, solution.tolist())),
        f"least squares over {int(found.frames.sum())} frames of {len(found.frames)} compositions",
        undetermined,
    )


def isolated_atoms(path: str | Path, source: SourceSettings) -> AtomEnergies:
    """Read the energies of isolated atoms from a file with one atom per structure.

    Args:
        path: the file.
        source: its layout, the key and the unit of the energy.

    Raises:
        ValueError: a structure of more than one atom, an element twice, or no energy.
    """
    energy: dict[int, float] = {}
    for frame in read_frames(path, source):
        if len(frame.system) != 1:
            raise ValueError(f"{path}, {frame.where}: {len(frame.system)} atoms; expected one alone")
        z = int(frame.system.numbers[0])
        if z in energy:
            raise ValueError(f"{path}, {frame.where}: a second atom of atomic number {z}")
        value = frame.values.get(source.keys.energy)
        if value is None:
            there = ", ".join(map(repr, sorted(frame.names))) or "none"
            raise ValueError(f"{path}, {frame.where}: no {source.keys.energy!r}; the keys there: {there}")
        energy[z] = float(value) * unit("energy", source.units.energy)
    if not energy:
        raise ValueError(f"{path}: no structures")
    return AtomEnergies(dict(sorted(energy.items())), f"isolated atoms of {Path(path).name}")


LONE_GAP = 8.0
"""eV of nothing between some energies and all others of the same atoms; stretched bonds leave 4 at most."""

LONE_RANGE = 3.0
"""Times the whole range of those others, that the gap must have too."""

LONE_SHARE = 0.1
"""Of the frames of the same atoms, the most that lie beyond it; so fewer than ten frames tell nothing."""

LONE_FORCE = 2.0
"""Times the largest force of the others, beyond which a force explains its energy."""


def lone_energies(groups: Ints, energy: Floats, largest: Floats) -> tuple[Ints, float]:
    """Find energies that lie far from all others of the same atoms, and that no force explains.

    Args:
        groups: (S,) equal for the same atoms.
        energy: (S,) eV.
        largest: (S,) eV/Å, the largest force; NaN without forces.

    Returns:
        The frames, and the widest gap, eV, beyond which they lie; 0 where there is none.
    """
    found: list[Ints] = []
    widest = 0.0
    order = np.lexsort((energy, groups))
    for frames in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        few = int(LONE_SHARE * len(frames))
        if not few:
            continue
        values = energy[frames]
        gaps = np.diff(values)
        wide = np.flatnonzero(gaps > LONE_GAP)
        for k in wide[(wide < few) | (wide >= len(gaps) - few)].tolist():
            below = k < len(gaps) / 2
            rest = values[-1] - values[k + 1] if below else values[k] - values[0]
            lone, others = (frames[: k + 1], frames[k + 1 :])[:: 1 if below else -1]
            pushed = largest[lone] > LONE_FORCE * np.nanmax(largest[others], initial=0.0)
            if gaps[k] > max(LONE_GAP, LONE_RANGE * rest) and not pushed.all():
                found.append(lone[~pushed])
                widest = max(widest, float(gaps[k]))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64), widest
