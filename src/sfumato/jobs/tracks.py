"""Structures that are to be moved: what a job along a path gets, and the key of its record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from sfumato.jobs.frames import Frame, Subject
from sfumato.jobs.job import Job
from sfumato.potentials.potential import Potential
from sfumato.reference.paths import Line, Path, Turn
from sfumato.reference.swaps import Swap
from sfumato.systems import Floats, Ints, Scan, System, digest


@dataclass(frozen=True, eq=False)
class Track(Frame):
    """A structure and how its atoms are to move."""

    def parts(self) -> Sequence[ArrayLike | str]:
        """Return everything besides the structure that decides the result."""
        raise NotImplementedError


@dataclass(frozen=True)
class TrackSubject(Subject):
    """Whose results these are, for structures with a path."""

    def keys_of(self, frames: Iterable[Frame]) -> list[str]:
        """See Subject."""
        return [self.key(frame) for frame in frames]

    def key(self, frame: Frame | Scan) -> str:
        """Return a hash of subject, structure and path."""
        plain = super().key(frame)
        if not isinstance(frame, Track):
            return plain
        return hashlib.sha256(f"{plain}/{digest(frame.parts())}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Approach(Track):
    """One atom is put at some distances from another, on the line between them; all others stay.

    Args:
        mover: the atom that moves, and `other`, which stays.
        arm: (3,) of length 1, from `other`, or the image of it that is meant, to `mover`.
        distances: (P,) Å.
    """

    mover: int = 0
    other: int = 1
    arm: Floats = field(default_factory=lambda: np.array([1.0, 0.0, 0.0]))
    image: Floats = field(default_factory=lambda: np.zeros(3))
    distances: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def between(
        cls, system: System, pair: tuple[int, int], distances: Floats, image: Floats | None = None
    ) -> Approach:
        """Return how the first atom of a pair is put at distances from the second.

        Args:
            system: the structure.
            pair: the atom that moves and the one that stays.
            distances: (P,) Å.
            image: (3,) Å to add to the position of the second, in a crystal.
        """
        shift = np.zeros(3) if image is None else image
        arm = system.positions[pair[0]] - system.positions[pair[1]] - shift
        frame = Frame.of(system)
        return cls(
            **frame.__dict__,
            mover=pair[0],
            other=pair[1],
            arm=arm / np.linalg.norm(arm),
            image=shift,
            distances=distances,
        )

    def systems(self) -> list[System]:
        """Return the structure at every distance."""
        base = self.system()
        found = []
        for r in self.distances:
            positions = base.positions.copy()
            positions[self.mover] = positions[self.other] + self.image + r * self.arm
            found.append(replace(base, positions=positions))
        return found

    def parts(self) -> Sequence[ArrayLike | str]:
        """See `Track`."""
        return ("approach", np.array([self.mover, self.other]), self.arm, self.image, self.distances)


@dataclass(frozen=True, eq=False)
class Trip(Track):
    """Atoms move along a straight line, or turn about an axis, through some places.

    Args:
        places: (M,) Å.
        direction: (N, 3) of a straight line; None for a turn.
        turning: numbers of the atoms that turn about the axis (3,) through `pivot` (3,) Å.
        radius: Å, of the circle on which places are measured.
    """

    places: Floats = field(default_factory=lambda: np.zeros(0))
    direction: Floats | None = None
    turning: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pivot: Floats = field(default_factory=lambda: np.zeros(3))
    axis: Floats = field(default_factory=lambda: np.zeros(3))
    radius: float = 0.0

    @classmethod
    def along(cls, path: Path, places: Floats) -> Trip:
        """Take over a straight line or a turn.

        Raises:
            TypeError: another kind of path.
        """
        if isinstance(path, Line):
            return cls(**Frame.of(path.base).__dict__, places=places, direction=path.direction)
        if isinstance(path, Turn):
            how = {name: getattr(path, name) for name in ("turning", "pivot", "axis", "radius")}
            return cls(**Frame.of(path.base).__dict__, places=places, **how)
        raise TypeError(f"a trip follows a Line or a Turn, got a {type(path).__name__}")

    def path(self) -> Path:
        """Return the structures along the path."""
        if self.direction is not None:
            return Line(self.system(), self.direction)
        return Turn(self.system(), self.turning, self.pivot, self.axis, self.radius)

    def parts(self) -> Sequence[ArrayLike | str]:
        """See `Track`."""
        line = np.zeros((0, 3)) if self.direction is None else self.direction
        return ("trip", self.places, line, self.turning, self.pivot, self.axis, np.array([self.radius]))


@dataclass(frozen=True, eq=False)
class Exchange(Track):
    """Neighbors of one atom exchange places in the order of distance, all at once.

    Args:
        swaps: which; no atom is in two of them.
    """

    swaps: tuple[Swap, ...] = ()

    @classmethod
    def among(cls, system: System, swaps: Sequence[Swap]) -> Exchange:
        """Return the exchange of some neighbors of a structure, which is not moved yet."""
        return cls(**Frame.of(system).__dict__, swaps=tuple(swaps))

    def parts(self) -> Sequence[ArrayLike | str]:
        """See `Track`."""
        return ("exchange", np.array([[s.center, s.mover, s.other, s.rank] for s in self.swaps]))


@dataclass(frozen=True)
class TrackJob(Job):
    """A job on structures with a path; it fills batches by itself, so its items travel one by one."""

    def subject(self, identity: str) -> Subject:
        """See `Job`."""
        plain = super().subject(identity)
        return TrackSubject(plain.job, plain.version, plain.identity)

    def together(self, potential: Potential) -> int:
        """See `Job`."""
        return 1
