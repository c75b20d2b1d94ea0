"""The settings of the probes, and how much of everything each size probes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, NonNegativeInt, field_validator

from sfumato.config import Settings as Base
from sfumato.words import nearest

SizeName = Literal["dev", "fast", "standard"]


@dataclass(frozen=True)
class Size:
    """How many of each kind are probed at most.

    Args:
        pairs: pairs of elements that are pulled apart in search of a cutoff.
        triples: triples of elements, of which one atom is pulled away.
        bends: angles and torsions that are turned.
        lumps: lumps of four elements that are dilated, so that any two elements are at every distance.
        clusters: dense clusters, out of each of which one part slides and another one escapes.
        centers: atoms of a cluster whose neighbors exchange places.
        bonds: bonds of molecules that are stretched.
        walks: structures all of whose atoms move at random.
        squeezed: pairs of elements that are compressed.
        places: pairs of atoms in molecules that are compressed.
        gradients: structures at which force and energy are compared.
        diatomics: elements whose curve of two atoms is judged.
    """

    pairs: int
    triples: int
    bends: int
    lumps: int
    clusters: int
    centers: int
    bonds: int
    walks: int
    squeezed: int
    places: int
    gradients: int
    diatomics: int


SIZES: dict[SizeName, Size] = {
    "dev": Size(4, 0, 3, 0, 1, 2, 2, 1, 36, 24, 3, 12),
    "fast": Size(60, 10, 8, 6, 2, 8, 16, 16, 300, 300, 20, 36),
    "standard": Size(400, 40, 20, 20, 4, 16, 60, 60, 10_000, 1000, 60, 118),
}


class Settings(Base):
    """Everything that decides a number besides data and model.

    Args:
        size: how much is probed: dev (a look, two minutes), fast, or standard (every pair of elements, 1000
            places in molecules).
        elements: symbols with commas between, of which pairs, triples and clusters are made; by default all
            that the model says it knows, or of a model that does not say those of the data that it takes.
        reach: Å to which atoms are pulled apart in search of a cutoff; by default 12, and 5 where electrons
            have to converge.
        seed: of clusters, directions and choices.
    """

    size: SizeName = "fast"
    elements: str = ""
    reach: float | None = Field(default=None, gt=3, le=60)
    seed: NonNegativeInt = 0

    @field_validator("elements", mode="after")
    @classmethod
    def _known(cls, elements: str) -> str:
        from ase.data import atomic_numbers

        words = [word for word in re.split(r"[\s,]+", elements) if word]
        for word in words:
            if word not in atomic_numbers or word == "X":
                raise ValueError(f"{word!r} is not an element; {nearest(word, atomic_numbers)}")
        return ",".join(dict.fromkeys(words))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The atomic numbers of `elements`, in order."""
        from ase.data import atomic_numbers

        return tuple(atomic_numbers[word] for word in self.elements.split(",") if word)

    @property
    def counts(self) -> Size:
        """How much of everything is probed."""
        return SIZES[self.size]
