"""Geometry of bond scans: bonds, bridge bonds, displaced frames and the clash filter.

Pure functions on arrays. The rules are those of Liu et al. 2026, Appendix A, steps 1 to 4.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from sfumato.systems import Floats, Ints, System

BOND_TYPES = ("C-C", "C-N", "C-O", "C-P", "C-S", "N-N", "N-O", "N-P", "O-P")
"""The nine bond types of the published data set."""

BOND_FACTOR = 1.25
"""Two atoms closer than this times the sum of their covalent radii are bonded.

Over the 485 released molecules the longest bond of the SMILES lies at 1.242 and, but for one pair
at 0.998, the closest pair without a bond at 1.295: the factor sits in that gap.
"""

OVERLAP_FACTOR = 0.4
"""Two atoms closer than this times the sum of their covalent radii are an input error."""

CLASH_FACTOR = 0.9
"""A scan is rejected if any pair but the scanned one comes closer than this times its radii sum."""

SPAN = (0.5, 2.0)
"""First and last bond length of a scan, in sums of the two covalent radii."""


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


@dataclass(frozen=True)
class Clash:
    """The pair of atoms that comes closest, in units of its radii sum, and closer than allowed.

    Args:
        i: first atom.
        j: second atom.
        frame: the frame in which it happens.
        distance: Å.
        limit: the distance allowed, Å.
    """

    i: int
    j: int
    frame: int
    distance: float
    limit: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """One bridge bond of a molecule with the scan it would give.

    Args:
        bridge: the bond and its two fragments.
        bond_type: for example "C-O".
        lengths: (F,) bond lengths in Å.
        exclusion: why it is no scan, starting with "bond type:" or "clash:"; None if it is one.
    """

    bridge: Bridge
    bond_type: str
    lengths: Floats
    exclusion: str | None


def _radii_sums(numbers: Ints) -> Floats:
    """Return the sums of covalent radii (N(N−1)/2,) in Å, pairs ordered as in `pdist`."""
    radii = covalent_radii[np.asarray(numbers)]
    first, second = np.triu_indices(len(radii), 1)
    sums: Floats = radii[first] + radii[second]
    return sums


def _atom(numbers: Ints, k: int) -> str:
    return f"{k} ({chemical_symbols[numbers[k]]})"


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
        raise ValueError("bonds: the system is periodic; bond scans are defined for molecules")
    distance, sums = pdist(system.positions), _radii_sums(system.numbers)
    pairs = np.stack(np.triu_indices(len(system), 1), axis=1)
    overlap = np.flatnonzero(distance < OVERLAP_FACTOR * sums)
    if len(overlap):
        i, j = pairs[overlap[0]]
        raise ValueError(
            f"bonds: atoms {_atom(system.numbers, i)} and {_atom(system.numbers, j)} overlap "
            f"({distance[overlap[0]]:.3f} Å apart); check the positions and their unit"
        )
    found: Ints = pairs[distance < BOND_FACTOR * sums]
    return found


def _components(n_atoms: int, pairs: Ints) -> tuple[int, Ints]:
    """Return the number of connected components and (N,) the component of each atom."""
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_atoms, n_atoms))
    count, label = connected_components(graph, directed=False)
    return int(count), label


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
    pairs = np.unique(np.sort(np.asarray(bonds, dtype=np.int64).reshape(-1, 2), axis=1), axis=0)
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= n_atoms or (pairs[:, 0] == pairs[:, 1]).any()):
        raise ValueError(f"bridge_bonds: a bond must join two different atoms of 0…{n_atoms - 1}")
    if n_atoms and (pieces := _components(n_atoms, pairs)[0]) != 1:
        raise ValueError(f"bridge_bonds: the molecule is in {pieces} pieces; give each piece separately")
    degree = np.bincount(pairs.ravel(), minlength=n_atoms)
    found = []
    for k, (i, j) in enumerate(pairs):
        if degree[i] == 1 or degree[j] == 1:
            continue
        count, side = _components(n_atoms, np.delete(pairs, k, axis=0))
        if count == 2:
            found.append(Bridge(int(i), int(j), np.where(side == side[j], 1, -1)))
    return found


def bond_type(numbers: ArrayLike, bond: ArrayLike) -> str:
    """Name a bond by its two elements in alphabetical order.

    Args:
        numbers: (N,) atomic numbers.
        bond: (2,) the bonded atoms.

    Returns:
        For example "C-O".
    """
    i, j = np.asarray(bond)
    z = np.asarray(numbers)
    return "-".join(sorted((chemical_symbols[z[i]], chemical_symbols[z[j]])))


def displaced(positions: ArrayLike, fragment: ArrayLike, direction: ArrayLike, alpha: ArrayLike) -> Floats:
    """Move the two fragments of a molecule apart: x_i(α) = x_i + α h_i r̂.

    Args:
        positions: (N, 3) Å.
        fragment: (N,) ±1, the h_i.
        direction: (3,) the unit vector r̂.
        alpha: displacement of each fragment in Å, one number or (F,).

    Returns:
        (N, 3) or (F, N, 3) Å.

    Source: Liu et al. 2026, Eq. 1.
    """
    step = np.asarray(fragment, dtype=float)[:, None] * np.asarray(direction, dtype=float)
    moved: Floats = (
        np.asarray(positions, dtype=float) + np.asarray(alpha, dtype=float)[..., None, None] * step
    )
    return moved


def scan_lengths(numbers: ArrayLike, bond: ArrayLike, frames: int = 100) -> Floats:
    """Choose the bond lengths of a scan: evenly from 0.5 to 2 times the sum of covalent radii.

    Args:
        numbers: (N,) atomic numbers.
        bond: (2,) the bonded atoms.
        frames: number of frames F, at least 2.

    Returns:
        (F,) Å.

    Raises:
        ValueError: fewer than two frames.

    Source: Liu et al. 2026, App. A, step 2.
    """
    if frames < 2:
        raise ValueError(f"scan_lengths: a scan needs at least 2 frames, got {frames}")
    # The released ranges follow from the two-decimal radii; rounding removes the last bits of their sum.
    total = round(float(covalent_radii[np.asarray(numbers)[np.asarray(bond)]].sum()), 2)
    return np.linspace(SPAN[0] * total, SPAN[1] * total, frames)


def scan_positions(system: System, bridge: Bridge, lengths: ArrayLike) -> Floats:
    """Make the frames of a scan at given bond lengths.

    Args:
        system: the molecule.
        bridge: the bond to scan.
        lengths: (F,) bond lengths in Å.

    Returns:
        (F, N, 3) Å; the bond length changes by 2α, half of it on each side.

    Raises:
        ValueError: the two bonded atoms lie on one point.

    Source: Liu et al. 2026, Eq. 1.
    """
    r = system.positions[bridge.j] - system.positions[bridge.i]
    length = float(np.linalg.norm(r))
    if length == 0:
        raise ValueError(f"scan_positions: atoms {bridge.i} and {bridge.j} lie on one point")
    alpha = (np.asarray(lengths, dtype=float) - length) / 2
    return displaced(system.positions, bridge.fragment, r / length, alpha)


def clashes(numbers: Ints, positions: Floats, bond: ArrayLike, factor: float = CLASH_FACTOR) -> Clash | None:
    """Find the worst approach of any pair of atoms, the scanned bond apart, in the frames of a scan.

    Pairs inside one fragment count too, although they keep their distance: so it is in the source and in
    its data, whose closest pairs pile up just above 0.900. A molecule with a C=O or C≡C bond, shorter than
    0.9 times its radii sum at rest, therefore gives no scan at all.

    Args:
        numbers: (N,) atomic numbers.
        positions: (F, N, 3) Å.
        bond: (2,) the scanned bond, the one pair that is left out.
        factor: allowed distance in sums of covalent radii.

    Returns:
        The pair and frame with the smallest ratio of distance to radii sum, or None if all are allowed.

    Source: Liu et al. 2026, App. A, step 3.
    """
    sums = _radii_sums(numbers)
    first, second = np.triu_indices(len(numbers), 1)
    i, j = sorted(np.asarray(bond).tolist())
    ratio = np.array([pdist(frame) for frame in positions]) / sums
    ratio[:, (first == i) & (second == j)] = np.inf
    if not ratio.size or ratio.min() >= factor:
        return None
    frame, pair = np.unravel_index(int(ratio.argmin()), ratio.shape)
    return Clash(
        i=int(first[pair]),
        j=int(second[pair]),
        frame=int(frame),
        distance=float(ratio[frame, pair] * sums[pair]),
        limit=float(factor * sums[pair]),
    )


def candidate_scans(
    system: System, frames: int = 100, bond_types: Collection[str] | None = BOND_TYPES
) -> list[Candidate]:
    """List every bridge bond of a molecule with its scan, or the reason why it gives none.

    Args:
        system: the molecule.
        frames: frames of a scan.
        bond_types: the types wanted; None for all.

    Returns:
        One candidate per bridge bond, in rising order of its atoms; empty if there is no bridge bond.

    Raises:
        ValueError: a periodic system, overlapping atoms, or a molecule in several pieces.

    Source: Liu et al. 2026, App. A, steps 1 to 4.
    """
    found = []
    for bridge in bridge_bonds(len(system), bonds(system)):
        kind = bond_type(system.numbers, bridge.bond)
        lengths = scan_lengths(system.numbers, bridge.bond, frames)
        exclusion = None
        if bond_types is not None and kind not in bond_types:
            exclusion = f"bond type: {kind} is not among {', '.join(bond_types)}"
        elif clash := clashes(system.numbers, scan_positions(system, bridge, lengths), bridge.bond):
            exclusion = (
                f"clash: atoms {_atom(system.numbers, clash.i)} and {_atom(system.numbers, clash.j)} are "
                f"{clash.distance:.3f} Å apart in frame {clash.frame}, closer than {clash.limit:.3f} Å"
            )
        found.append(Candidate(bridge, kind, lengths, exclusion))
    return found
