"""Labeled frames to train and test potentials on: FrameSet, and the categories its frames fall into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.systems import Batch, Bools, Ints, Prediction
from sfumato.words import nearest

SPLITS = ("train", "val", "test")
"""What a frame may be used for."""

MAY_BE_ABSENT = ("forces", "stress")
"""Labels that frames of a set may lack, where the set says so."""

COLUMNS = {
    "numbers": "<i8",
    "positions": "<f4",
    "offsets": "<i8",
    "cell": "<f8",
    "pbc": "|b1",
    "charge": "<i8",
    "multiplicity": "<i8",
    "energy": "<f8",
    "forces": "<f4",
    "stress": "<f8",
}
"""Arrays that define the identity of a set, in order, with the types they are hashed as."""


@dataclass(frozen=True, eq=False)
class Category:
    """One word for each frame, each distinct word stored once.

    Args:
        names: (K,) the distinct words.
        codes: (S,) which of them belongs to each frame.

    Raises:
        ValueError: a word listed twice, or a code that names none.
    """

    names: tuple[str, ...]
    codes: Ints

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        codes = np.array(self.codes, dtype=np.int64).reshape(-1)
        codes.flags.writeable = False
        object.__setattr__(self, "codes", codes)
        if len(set(self.names)) != len(self.names):
            raise ValueError("category: a word is listed twice")
        if len(codes) and not (codes.min() >= 0 and codes.max() < len(self.names)):
            raise ValueError(f"category: codes must lie in 0…{len(self.names) - 1}")

    @classmethod
    def of(cls, words: Iterable[str]) -> Category:
        """Make a category from the frames' words; the names are in order of appearance."""
        code: dict[str, int] = {}
        codes = [code.setdefault(word, len(code)) for word in words]
        return cls(tuple(code), np.array(codes, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return (self.names[code] for code in self.codes)

    def where(self, name: str) -> Ints:
        """Return the frames (n,) that have a word.

        Raises:
            ValueError: no frame has it; names the nearest that some have.
        """
        if name not in self.names:
            raise ValueError(f"no frame is {name!r}; {nearest(name, sorted(self.names))}")
        return np.flatnonzero(self.codes == self.names.index(name))

    def counts(self) -> dict[str, int]:
        """Return how many frames have each word."""
        numbers = np.bincount(self.codes, minlength=len(self.names))
        return dict(zip(self.names, numbers.tolist(), strict=True))

    def take(self, rows: ArrayLike) -> Category:
        """Return the words of some frames, all names kept."""
        return replace(self, codes=self.codes[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class Column:
    """One array of a set, whole or in pieces, so that the identity of a large one needs no memory.

    Args:
        shape: of the whole array.
        pieces: the array's parts along the first axis, in order.
    """

    shape: tuple[int, ...]
    pieces: Iterable[NDArray[Any]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Column:
        """Return a column of one piece."""
        return cls(array.shape, [array])


def frames_identity(level: str, columns: Mapping[str, Column | None], categories: Sequence[Category]) -> str:
    """Return the SHA-256 of a set, equal to `systems.digest` of its level, `COLUMNS` and categories.

    Args:
        level: level of theory.
        columns: by the names of `COLUMNS`; None for a stress that no frame has.
        categories: molecule, subset and split.
    """
    sha = hashlib.sha256()

    def text(word: str) -> None:
        data = word.encode()
        sha.update(f"str:{len(data)};".encode())
        sha.update(data)

    def numbers(dtype: str, column: Column) -> None:
        size = int(np.prod(column.shape)) * np.dtype(dtype).itemsize
        sha.update(f"{dtype}{column.shape}:{size};".encode())
        for piece in column.pieces:
            sha.update(np.ascontiguousarray(piece, dtype=dtype).data)

    text(level)
    for name, dtype in COLUMNS.items():
        column = columns[name]
        if column is None:
            text(f"no {name}")
        else:
            numbers(dtype, column)
    for category in categories:
        for name in category.names:
            text(name)
        numbers("<i8", Column.of(category.codes))
    return sha.hexdigest()


def draw(molecule: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on the molecule and the seed alone."""
    sha = hashlib.sha256(f"{seed}/{molecule}".encode()).digest()
    return int.from_bytes(sha[:8], "big") / 2**64


def split_by_molecule(molecule: Category, fractions: tuple[float, float, float], seed: int = 0) -> Category:
    """Divide frames into splits so that no molecule is in two of them.

    Molecules are put in the order of `draw` and that order is cut where the wanted share of the frames
    is reached, so that frames which are each their own molecule are divided exactly.

    Args:
        molecule: of each frame.
        fractions: of "train", "val" and "test", summing to 1.
        seed: draws another division.

    Returns:
        The split of each frame.

    Raises:
        ValueError: fractions that are negative or do not sum to 1, or too few molecules for a wanted
            split to have one.
    """
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-9):
        raise ValueError(f"split: fractions must not be negative and must sum to 1, got {fractions}")
    order = np.argsort([draw(name, seed) for name in molecule.names], kind="stable")
    frames = np.bincount(molecule.codes, minlength=len(molecule.names))[order]
    middle = np.cumsum(frames) - frames / 2
    split = np.empty(len(order), dtype=np.int64)
    split[order] = np.searchsorted(np.cumsum(fractions[:2]) * frames.sum(), middle, "right")
    codes = split[molecule.codes]
    for k, name in enumerate(SPLITS):
        if fractions[k] > 0 and not (codes == k).any():
            raise ValueError(
                f"split: {len(order)} molecules cannot be divided {fractions}, {name!r} would be "
                "empty; divide by what differs between frames, or state other fractions"
            )
    kept = np.unique(codes)
    return Category(tuple(SPLITS[k] for k in kept), np.searchsorted(kept, codes))


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Structures with their labels, in the precision in which they are stored.

    Args:
        name: short name, for example "organic-mini".
        level: level of theory of the labels.
        licence: SPDX identifier or the owner's words.
        source: who made it and where it came from.
        batch: the structures; positions are float32 numbers, so that labels made after rounding belong
            to the stored structure exactly.
        labels: energy (S,) eV, forces (N, 3) eV/Å, kept as float32 numbers, stress (S, 3, 3) eV/Å³ or None.
        molecule: what each frame is a configuration of, the unit by which data is split.
        subset: how each frame came about, for example "300 K" or "bond scan".
        split: "train", "val" or "test" for each frame.
        provenance: everything else that made it (JSON types only).
        absent: which of "forces" and "stress" some frames lack; those frames hold NaN throughout. A
            stress that no frame has is None.

    Raises:
        ValueError: an empty fact, labels or categories of another length, a label that is not finite
            and not declared absent, positions that float32 cannot hold, an unknown split, or a molecule
            in two splits.
    """

    name: str
    level: str
    licence: str
    source: str
    batch: Batch
    labels: Prediction
    molecule: Category
    subset: Category
    split: Category
    provenance: dict[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        what = f"frame set {self.name!r}: "
        object.__setattr__(self, "absent", tuple(self.absent))
        for key in ("name", "level", "licence"):
            if not getattr(self, key):
                raise ValueError(f"{what}{key} must not be empty")
        forces = self.labels.forces.astype(np.float32).astype(np.float64)
        object.__setattr__(self, "labels", replace(self.labels, forces=forces))
        check_labels(self.batch, self.labels, self.absent, what)
        check_categories(self.molecule, self.subset, self.split, len(self.batch), what)

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, rows: ArrayLike) -> FrameSet:
        """Return some of the frames, in the given order.

        Args:
            rows: (n,) frame numbers, for example `frames.split.where("train")`.
        """
        rows = np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.batch.offsets)[rows]
        stops = np.cumsum(counts)
        atoms = np.repeat(self.batch.offsets[rows] - (stops - counts), counts) + np.arange(counts.sum())
        stress = self.labels.stress
        return replace(
            self,
            batch=Batch(
                numbers=self.batch.numbers[atoms],
                positions=self.batch.positions[atoms],
                index=np.repeat(np.arange(len(rows)), counts),
                cell=self.batch.cell[rows],
                pbc=self.batch.pbc[rows],
                charge=self.batch.charge[rows],
                multiplicity=self.batch.multiplicity[rows],
            ),
            labels=Prediction(
                self.labels.energy[rows],
                self.labels.forces[atoms],
                None if stress is None else stress[rows],
            ),
            molecule=self.molecule.take(rows),
            subset=self.subset.take(rows),
            split=self.split.take(rows),
        )

    def has(self, label: str) -> Bools:
        """Return (S,) which frames have "forces" or "stress"."""
        if label == "forces":
            known = np.ones(len(self), dtype=bool)
            known[self.batch.index[np.isnan(self.labels.forces).any(axis=1)]] = False
            return known
        if self.labels.stress is None:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(np.isfinite(self.labels.stress).all(axis=(1, 2)))

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the level of theory, the structures, their labels and their categories."""
        found = {
            name: getattr(self.batch if hasattr(self.batch, name) else self.labels, name) for name in COLUMNS
        }
        columns = {name: None if array is None else Column.of(array) for name, array in found.items()}
        return frames_identity(self.level, columns, (self.molecule, self.subset, self.split))


def check_labels(batch: Batch, labels: Prediction, absent: Sequence[str], what: str = "") -> None:
    """Check that labels belong to structures, and that both can be stored without a change.

    Args:
        batch: the structures.
        labels: of them.
        absent: labels that whole frames may lack (NaN).
        what: words to put before an error.

    Raises:
        ValueError: as for `FrameSet`.
    """
    for name in absent:
        if name not in MAY_BE_ABSENT:
            raise ValueError(f"{what}{name!r} cannot be absent; {nearest(name, MAY_BE_ABSENT)}")
    if len(labels.energy) != len(batch) or len(labels.forces) != len(batch.numbers):
        raise ValueError(
            f"{what}{len(labels.energy)} energies and {len(labels.forces)} force vectors for "
            f"{len(batch)} frames with {len(batch.numbers)} atoms"
        )
    rounded = batch.positions.astype(np.float32) == batch.positions
    if not rounded.all():
        frame = batch.index[np.flatnonzero(~rounded.all(axis=1))[0]]
        raise ValueError(
            f"{what}positions of frame {frame} are not float32 numbers; round them before labeling"
        )
    good = np.isfinite(labels.energy)
    by_frame = [("forces", labels.forces, batch.index)]
    if labels.stress is not None:
        by_frame.append(("stress", labels.stress.reshape(-1, 9), np.arange(len(batch))))
    for name, values, frame in by_frame:
        lacks = np.full(len(batch), name in absent)
        lacks[frame[~np.isnan(values).all(axis=1)]] = False
        good[frame[~np.isfinite(values).all(axis=1) & ~lacks[frame]]] = False
    if not good.all():
        frame = np.flatnonzero(~good)[0]
        raise ValueError(f"{what}frame {frame} has a label that is not finite; leave it out")


def check_categories(
    molecule: Category, subset: Category, split: Category, frames: int, what: str = ""
) -> None:
    """Check that categories belong to the frames and that no molecule is in two splits.

    Args:
        molecule: of each frame.
        subset: of each frame.
        split: of each frame.
        frames: how many there are.
        what: words to put before an error.

    Raises:
        ValueError: as for `FrameSet`.
    """
    for key, category in (("molecule", molecule), ("subset", subset), ("split", split)):
        if len(category) != frames:
            raise ValueError(f"{what}{len(category)} words of {key} for {frames} frames")
    for name in split.names:
        if name not in SPLITS:
            raise ValueError(f"{what}unknown split {name!r}; {nearest(name, SPLITS)}")
    pairs = np.unique(np.stack([molecule.codes, split.codes]), axis=1)
    twice = np.flatnonzero(np.bincount(pairs[0]) > 1)
    if len(twice):
        raise ValueError(
            f"{what}{molecule.names[twice[0]]!r} is in two splits; put it in one, or name "
            "as molecules what may be divided"
        )
