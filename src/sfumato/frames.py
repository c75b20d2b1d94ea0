"""Labelled frames to train and test potentials on: FrameSet, and the categories its frames fall into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sfumato.systems import Batch, Ints, Prediction, digest
from sfumato.words import nearest

SPLITS = ("train", "val", "test")
"""What a frame may be used for."""


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

    Raises:
        ValueError: an empty fact, labels or categories of another length, a label that is not finite,
            positions that float32 cannot hold, an unknown split, or a molecule in two splits.
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

    def __post_init__(self) -> None:
        what = f"frame set {self.name!r}: "
        for key in ("name", "level", "licence"):
            if not getattr(self, key):
                raise ValueError(f"{what}{key} must not be empty")
        forces = self.labels.forces.astype(np.float32).astype(np.float64)
        object.__setattr__(self, "labels", replace(self.labels, forces=forces))
        self._check_labels(what)
        self._check_categories(what)

    def _check_labels(self, what: str) -> None:
        batch, labels = self.batch, self.labels
        if len(labels.energy) != len(batch) or len(labels.forces) != len(batch.numbers):
            raise ValueError(
                f"{what}{len(labels.energy)} energies and {len(labels.forces)} force vectors for "
                f"{len(batch)} frames with {len(batch.numbers)} atoms"
            )
        rounded = batch.positions.astype(np.float32) == batch.positions
        if not rounded.all():
            frame = batch.index[np.flatnonzero(~rounded.all(axis=1))[0]]
            raise ValueError(
                f"{what}positions of frame {frame} are not float32 numbers; round them before labelling"
            )
        finite = np.isfinite(labels.energy)
        finite[batch.index[~np.isfinite(labels.forces).all(axis=1)]] = False
        if labels.stress is not None:
            finite &= np.isfinite(labels.stress).all(axis=(1, 2))
        if not finite.all():
            frame = np.flatnonzero(~finite)[0]
            raise ValueError(f"{what}frame {frame} has a label that is not finite; leave it out")

    def _check_categories(self, what: str) -> None:
        for key in ("molecule", "subset", "split"):
            if len(getattr(self, key)) != len(self.batch):
                raise ValueError(
                    f"{what}{len(getattr(self, key))} words of {key} for {len(self.batch)} frames"
                )
        for name in self.split.names:
            if name not in SPLITS:
                raise ValueError(f"{what}unknown split {name!r}; {nearest(name, SPLITS)}")
        pairs = np.unique(np.stack([self.molecule.codes, self.split.codes]), axis=1)
        twice = np.flatnonzero(np.bincount(pairs[0]) > 1)
        if len(twice):
            raise ValueError(f"{what}{self.molecule.names[twice[0]]!r} is in two splits; put it in one")

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

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the level of theory, the structures, their labels and their categories."""
        batch, labels = self.batch, self.labels
        parts: list[ArrayLike | str] = [
            self.level,
            batch.numbers,
            batch.positions.astype(np.float32),
            batch.offsets,
            batch.cell,
            batch.pbc,
            batch.charge,
            batch.multiplicity,
            labels.energy,
            labels.forces.astype(np.float32),
            "no stress" if labels.stress is None else labels.stress,
        ]
        for category in (self.molecule, self.subset, self.split):
            parts += [*category.names, category.codes]
        return digest(parts)
