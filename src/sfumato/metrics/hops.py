"""Hops of atoms between the sites of a lattice: which atoms are migrating, and when.

An atom is on a hop from its nearest site to one of the next ones. With the vector b from the nearest to such
a site, and x the atom seen from the nearest, t = x·b/b² is the projected coordinate of that hop: 0 on the
site, ½ in the middle. An atom that is in the middle third of any of them, t > 1/3, is migrating.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from sfumato.systems import Bools, Floats, Ints

THIRD = 1.0 / 3.0
"""Of the way from site to site, beyond which an atom is in the middle of its hop."""

EMPTY = 0.8
"""Å; a site with no atom this near is vacant, as in the published sets."""

MARGIN = 6.0
"""Å around the cell in which images of sites are kept."""

NEXT = 5
"""Sites after the nearest, to which an atom may be on its way: more than the bonds of a diamond lattice."""

TRIED = 4
"""Atoms each of which is put on every site when a lattice is laid over a structure."""

ROUNDS, STILL = 50, 1e-6
"""Of refining that, and Å of a shift after which it has come to rest."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest sites of some atoms.

    Args:
        site: (N,) number of the nearest.
        target: (N,) number of that next site towards which the projected coordinate is largest.
        distance: (N,) Å to the nearest.
        t: (N,) projected coordinate from the nearest to the target, at most ½.
        off: (N, 3) Å, the atom as seen from its nearest site.
    """

    site: Ints
    target: Ints
    distance: Floats
    t: Floats
    off: Floats


class Sites:
    """Sites of a lattice in a cell, for nearest neighbors across its walls.

    Args:
        positions: (M, 3) Å.
        cell: (3, 3) Å.
        pbc: (3,) periodic directions.

    Raises:
        ValueError: fewer than two sites, or a cell without volume.
    """

    def __init__(self, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike = (True, True, True)) -> None:
        self.cell = np.asarray(cell, dtype=float)
        self.pbc = np.asarray(pbc, dtype=bool)
        if abs(np.linalg.det(self.cell)) < 1e-9:
            raise ValueError("sites: the cell has no volume")
        self.positions = self._wrapped(np.asarray(positions, dtype=float))
        if len(self.positions) < 2:
            raise ValueError(f"sites: at least two are needed, got {len(self.positions)}")
        self._images, self._number = self._with_images(self.positions)
        self._tree = cKDTree(self._images)

    def __len__(self) -> int:
        return len(self.positions)

    def _wrapped(self, x: Floats) -> Floats:
        share = x @ np.linalg.inv(self.cell)
        return np.asarray(np.where(self.pbc, share - np.floor(share), share) @ self.cell)

    def _with_images(self, x: Floats) -> tuple[Floats, Ints]:
        """Return wrapped positions (N, 3) with all images near the cell, and the number of each."""
        inverse = np.linalg.inv(self.cell)
        margin = MARGIN * np.linalg.norm(inverse, axis=0)
        reach = np.where(self.pbc, np.ceil(margin), 0).astype(int)
        images, numbers = [], []
        for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
            moved = x @ inverse + shift
            near = ((moved >= -margin) & (moved <= 1 + margin) | ~self.pbc).all(axis=1)
            images.append(moved[near] @ self.cell)
            numbers.append(np.flatnonzero(near))
        return np.concatenate(images), np.concatenate(numbers)

    def nearest(self, positions: ArrayLike) -> Nearest:
        """Return where each atom is.

        Args:
            positions: (N, 3) Å.
        """
        x = self._wrapped(np.asarray(positions, dtype=float))
        distance, rows = self._tree.query(x, k=min(1 + NEXT, len(self._images)))
        off = x - self._images[rows[:, 0]]
        span = self._images[rows[:, 1:]] - self._images[rows[:, :1]]
        t = (off[:, None] * span).sum(axis=2) / (span**2).sum(axis=2)
        best = t.argmax(axis=1)
        along = np.take_along_axis(t, best[:, None], axis=1)[:, 0]
        target = np.take_along_axis(rows[:, 1:], best[:, None], axis=1)[:, 0]
        return Nearest(self._number[rows[:, 0]], self._number[target], distance[:, 0], along, off)

    def vacant(self, positions: ArrayLike, radius: float = EMPTY) -> Ints:
        """Return the numbers of the sites with no atom within a radius (Å)."""
        images, _ = self._with_images(self._wrapped(np.asarray(positions, dtype=float)))
        distance, _ = cKDTree(images).query(self.positions)
        return np.flatnonzero(distance >= radius)

    def moved(self, shift: ArrayLike) -> Sites:
        """Return the same sites elsewhere."""
        return Sites(self.positions + np.asarray(shift, dtype=float), self.cell, self.pbc)


def laid_over(sites: Sites, positions: ArrayLike) -> Sites:
    """Return a lattice where it fits a structure best: most atoms close to a site.

    Some atoms are put on every site in turn; the best of these shifts is refined by the mean displacement of
    the atoms that rest on sites.

    Args:
        sites: the lattice, its origin anywhere.
        positions: (N, 3) Å.
    """
    x = np.asarray(positions, dtype=float)
    tried = x[np.linspace(0, len(x) - 1, min(TRIED, len(x))).astype(int)]
    shifts = (tried[:, None] - sites.positions[None]).reshape(-1, 3)
    misfits = [float(np.median(sites.nearest(x - shift).distance)) for shift in shifts]
    return refined(sites.moved(shifts[int(np.argmin(misfits))]), x)


def refined(sites: Sites, positions: ArrayLike) -> Sites:
    """Return a lattice that nearly fits a structure where it fits best; follows a drift of the whole."""
    x = np.asarray(positions, dtype=float)
    total = np.zeros(3)
    for _ in range(ROUNDS):
        near = sites.nearest(x - total)
        shift = near.off[near.distance <= np.median(near.distance) * 2].mean(axis=0)
        total += shift
        if np.linalg.norm(shift) < STILL:
            break
    return sites.moved(total)


def migrating(near: Nearest, least: float = THIRD) -> Bools:
    """Return (N,) which atoms are in the middle of a hop, by one structure alone.

    Args:
        near: of each atom.
        least: t from which on an atom is migrating.
    """
    return np.asarray(near.t > least)


@dataclass(frozen=True)
class Hop:
    """An atom went from one site to another.

    Args:
        atom: its number.
        origin: the site it rested on before.
        target: the site it rested on after.
        start: the last frame at rest on the origin.
        stop: the first frame at rest on the target.
    """

    atom: int
    origin: int
    target: int
    start: int
    stop: int


def find_hops(sites: Ints, resting: Bools, persist: int = 2) -> list[Hop]:
    """Return the hops in a trajectory, by the frame in which they end.

    Args:
        sites: (F, N) number of the nearest site of each atom.
        resting: (F, N) whether it is closer to it than to the middle third.
        persist: frames that an atom must rest on a site for it to count, so that an excursion that returns at
            once is no hop.

    Raises:
        ValueError: shapes that differ, or `persist` below one.
    """
    if sites.shape != resting.shape or sites.ndim != 2:
        raise ValueError(f"hops: expected two arrays of shape (F, N), got {sites.shape} and {resting.shape}")
    if persist < 1:
        raise ValueError(f"persist: at least one frame, got {persist}")
    found = [
        hop
        for atom in range(sites.shape[1])
        for hop in _of_atom(atom, sites[:, atom], resting[:, atom], persist)
    ]
    return sorted(found, key=lambda hop: (hop.stop, hop.atom))


def _of_atom(atom: int, sites: Ints, resting: Bools, persist: int) -> Iterator[Hop]:
    stays = [stay for stay in _stays(sites, resting) if stay[2] >= persist]
    for (before, _, _, last), (after, first, _, _) in itertools.pairwise(stays):
        if before != after:
            yield Hop(atom, before, after, last, first)


def _stays(sites: Ints, resting: Bools) -> list[tuple[int, int, int, int]]:
    """Return (site, first frame, frames at rest, last frame) of each stay; excursions do not end it."""
    stays: list[tuple[int, int, int, int]] = []
    for frame in np.flatnonzero(resting).tolist():
        site = int(sites[frame])
        if stays and stays[-1][0] == site:
            _, first, count, _ = stays[-1]
            stays[-1] = (site, first, count + 1, frame)
        else:
            stays.append((site, frame, 1, frame))
    return stays


def in_hops(hops: Sequence[Hop], off_site: Bools) -> Bools:
    """Return (F, N) which atoms are in the middle of one of the hops.

    Args:
        hops: of the trajectory.
        off_site: (F, N) whether an atom is in the middle third between sites.
    """
    found = np.zeros(off_site.shape, dtype=bool)
    for hop in hops:
        between = slice(hop.start + 1, hop.stop)
        found[between, hop.atom] = off_site[between, hop.atom]
    return found
