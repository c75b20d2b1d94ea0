"""Bonds of a molecule, slab or crystal, and the sides into which cutting one divides it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from sfumato.graph.neighbors import neighbor_pairs
from sfumato.systems import Bools, Floats, Ints, System

BOND_FACTOR = 1.25
"""Two atoms closer than this times the sum of their covalent radii are bonded.

Over the 485 released molecules the longest bond of the SMILES lies at 1.242 and, but for one pair
at 0.998, the closest pair without a bond at 1.295: the factor sits in that gap.
"""

OVERLAP_FACTOR = 0.4
"""Two atoms closer than this times the sum of their covalent radii are an input error."""


@dataclass(frozen=True, eq=False)
class Network:
    """The bonds of a structure, each once.

    Args:
        pairs: (B, 2) bonded atoms.
        shift: (B, 3) cell vectors to add to the second atom, which makes it the image that is bonded.
    """

    pairs: Ints
    shift: Ints


class Link(NamedTuple):
    """A bond as seen from one of its atoms."""

    bond: int
    atom: int
    shift: Ints


@dataclass(frozen=True, eq=False)
class Cut:
    """A bond whose removal takes the side of its second atom off the first.

    Args:
        j: the atom that stays.
        k: the atom that goes.
        side: (N,) the atoms that go.
        finite: whether they are finitely many also in a crystal, where each has images in every cell.
        images: (N, 3) the cell vectors that bring the atoms that go, and k with them, next to j; 0 elsewhere.
    """

    j: int
    k: int
    side: Bools
    finite: bool
    images: Ints


@dataclass(frozen=True, eq=False)
class Bridge:
    """A bond whose removal leaves two fragments of at least two atoms each.

    Args:
        i: first atom, i < j.
        j: second atom.
        fragment: (N,) −1 on the side of i, +1 on the side of j, so that a positive displacement
            along the unit vector from i to j stretches the bond.
    """

    i: int
    j: int
    fragment: Ints

    @property
    def bond(self) -> Ints:
        """(2,) the bonded atoms."""
        return np.array([self.i, self.j])


def named(numbers: Ints, k: int) -> str:
    """Return how messages name an atom: number and element."""
    return f"{k} ({chemical_symbols[numbers[k]]})"


def radii_sums(numbers: Ints) -> Floats:
    """Return the sums of covalent radii (N(N−1)/2,) in Å, pairs ordered as in `pdist`."""
    radii = covalent_radii[np.asarray(numbers)]
    first, second = np.triu_indices(len(radii), 1)
    sums: Floats = radii[first] + radii[second]
    return sums


def _refuse_overlap(numbers: Ints, pairs: Ints, distance: Floats, sums: Floats) -> None:
    overlap = np.flatnonzero(distance < OVERLAP_FACTOR * sums)
    if len(overlap):
        i, j = pairs[overlap[0]]
        raise ValueError(
            f"bonds: atoms {named(numbers, i)} and {named(numbers, j)} overlap "
            f"({distance[overlap[0]]:.3f} Å apart); check the positions and their unit"
        )


def bonds(system: System) -> Ints:
    """Find the bonds of a molecule from its geometry, with `BOND_FACTOR`.

    Args:
        system: a molecule, without periodic directions.

    Returns:
        (B, 2) atom pairs i < j in rising order.

    Raises:
        ValueError: a periodic system, or two atoms closer than `OVERLAP_FACTOR` allows.
    """
    if system.pbc.any():
        raise ValueError("bonds: the system is periodic, so bonds join images; `network` finds them")
    distance, sums = pdist(system.positions), radii_sums(system.numbers)
    pairs = np.stack(np.triu_indices(len(system), 1), axis=1)
    _refuse_overlap(system.numbers, pairs, distance, sums)
    found: Ints = pairs[distance < BOND_FACTOR * sums]
    return found


def network(system: System, bonded: ArrayLike | None = None) -> Network:
    """Find the bonds of any structure; in a periodic one each atom may be bonded to several images.

    Args:
        system: a molecule, slab or crystal.
        bonded: (B, 2) the bonds of a molecule where they are known; None: from the geometry.

    Returns:
        The bonds, in rising order.

    Raises:
        ValueError: overlapping atoms; a bond of impossible atoms; a bond list for a periodic system.
    """
    if not system.pbc.any():
        from_geometry = bonds(system)
        pairs = from_geometry if bonded is None else checked_bonds(len(system), bonded)
        return Network(pairs, np.zeros((len(pairs), 3), dtype=np.int64))
    if bonded is not None:
        raise ValueError("network: a list of bonds does not say which images they join; leave it out")
    radii = covalent_radii[system.numbers]
    found = neighbor_pairs(system, BOND_FACTOR * 2 * float(radii.max()))
    later = (found.j > found.i) | ((found.j == found.i) & (_sign(found.shift) > 0))
    pairs, shift = np.stack([found.i, found.j], axis=1)[later], found.shift[later]
    ends = system.positions[pairs]
    distance = np.linalg.norm(ends[:, 1] + shift @ system.cell - ends[:, 0], axis=1)
    sums = radii[pairs].sum(axis=1)
    _refuse_overlap(system.numbers, pairs, distance, sums)
    near = distance < BOND_FACTOR * sums
    return Network(pairs[near], shift[near])


def _sign(shift: Ints) -> Ints:
    """The sign of the first cell vector that is not zero, so that of S and −S one is positive."""
    first = np.argmax(shift != 0, axis=1)
    return np.sign(np.take_along_axis(shift, first[:, None], axis=1)[:, 0])


def checked_bonds(n_atoms: int, bonded: ArrayLike) -> Ints:
    """Return bonds as (B, 2) pairs i < j in rising order, each once.

    Raises:
        ValueError: a bond that names no atom or one atom twice.
    """
    pairs: Ints = np.unique(np.sort(np.asarray(bonded, dtype=np.int64).reshape(-1, 2), axis=1), axis=0)
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= n_atoms or (pairs[:, 0] == pairs[:, 1]).any()):
        raise ValueError(f"bridge_bonds: a bond must join two different atoms of 0…{n_atoms - 1}")
    return pairs


def require_one_piece(n_atoms: int, pairs: Ints) -> None:
    """Raise ValueError for a molecule in several pieces, for which "two fragments" has no meaning."""
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_atoms, n_atoms))
    pieces = int(connected_components(graph, directed=False)[0])
    if n_atoms and pieces != 1:
        raise ValueError(f"bridge_bonds: the molecule is in {pieces} pieces; give each piece separately")


def links(n_atoms: int, net: Network) -> list[list[Link]]:
    """Return the bonds of every atom."""
    found: list[list[Link]] = [[] for _ in range(n_atoms)]
    for b, ((i, j), shift) in enumerate(zip(net.pairs.tolist(), net.shift)):
        found[i].append(Link(b, j, shift))
        found[j].append(Link(b, i, -shift))
    return found


@dataclass(frozen=True, eq=False)
class _Forest:
    """Spanning trees of a network: (N,) parent and bond to it, −1 at roots; (N, 3) images; atoms in order."""

    parent: list[int]
    bond: list[int]
    images: Ints
    order: list[int]


def _forest(n_atoms: int, net: Network) -> _Forest:
    adjacent = links(n_atoms, net)
    parent, bond, order = [-1] * n_atoms, [-1] * n_atoms, []
    images = np.zeros((n_atoms, 3), dtype=np.int64)
    seen = [False] * n_atoms
    for root in range(n_atoms):
        queue = deque([] if seen[root] else [root])
        seen[root] = True
        while queue:
            at = queue.popleft()
            order.append(at)
            for b, to, shift in adjacent[at]:
                if not seen[to]:
                    seen[to] = True
                    parent[to], bond[to], images[to] = at, b, images[at] + shift
                    queue.append(to)
    return _Forest(parent, bond, images, order)


def _closed(net: Network, forest: _Forest) -> set[int]:
    """Return the atoms whose bond to their parent lies on a ring, also one that closes on an image."""
    depth: dict[int, int] = {}
    for atom in forest.order:
        depth[atom] = depth.get(forest.parent[atom], -1) + 1
    closed: set[int] = set()
    for b, ends in enumerate(net.pairs.tolist()):
        high, low = sorted(ends, key=depth.__getitem__)
        while high != low and forest.bond[low] != b:
            closed.add(low)
            high, low = sorted((high, forest.parent[low]), key=depth.__getitem__)
    return closed


def cuts(n_atoms: int, net: Network) -> list[Cut]:
    """Find every bond whose removal separates its atoms, in both directions.

    With a bond its images are removed too, so in a crystal the two sides must be different atoms of the cell;
    a side is finite if no path within it leads from an atom to that atom's image.

    Args:
        n_atoms: number of atoms N.
        net: the bonds.

    Returns:
        Two cuts for each such bond, in rising order of j, then k.
    """
    forest = _forest(n_atoms, net)
    closed = _closed(net, forest)
    ends = forest.images[net.pairs] if len(net.pairs) else np.zeros((0, 2, 3), dtype=np.int64)
    winding = net.pairs[(ends[:, 1] - ends[:, 0] != net.shift).any(axis=1), 0]
    piece = np.arange(n_atoms)
    for atom in forest.order:
        piece[atom] = atom if forest.parent[atom] < 0 else piece[forest.parent[atom]]
    found = []
    for child in forest.order:
        if forest.parent[child] < 0 or child in closed:
            continue
        below = np.zeros(n_atoms, dtype=bool)
        below[child] = True
        for atom in forest.order[forest.order.index(child) + 1 :]:
            below[atom] = forest.parent[atom] >= 0 and below[forest.parent[atom]]
        above = (piece == piece[child]) & ~below
        for k, side in ((child, below), (forest.parent[child], above)):
            j = forest.parent[child] if k == child else child
            images = np.where(side[:, None], forest.images - forest.images[j], 0)
            found.append(Cut(j, k, side, not side[winding].any(), images))
    return sorted(found, key=lambda cut: (cut.j, cut.k))


def bridge_bonds(n_atoms: int, bonds: ArrayLike) -> list[Bridge]:
    """Find the bonds that split a molecule into two fragments, neither a single atom.

    Args:
        n_atoms: number of atoms N.
        bonds: (B, 2) bonded pairs.

    Returns:
        The bridges, in rising order of their atoms; ring bonds and bonds to terminal atoms never.

    Raises:
        ValueError: a bond that names no atom or one atom twice, or a molecule in several pieces, for
            which "two fragments" has no meaning: scan each piece on its own.

    Source: Liu et al. 2026, App. A, step 1.
    """
    pairs = checked_bonds(n_atoms, bonds)
    require_one_piece(n_atoms, pairs)
    net = Network(pairs, np.zeros((len(pairs), 3), dtype=np.int64))
    return [
        Bridge(cut.j, cut.k, np.where(cut.side, 1, -1))
        for cut in cuts(n_atoms, net)
        if cut.j < cut.k and 1 < np.count_nonzero(cut.side) < n_atoms - 1
    ]
