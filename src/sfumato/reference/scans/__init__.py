"""Geometry of scans: which sites, bonds, angles and torsions a structure offers, and their frames.

Pure functions on arrays. For bonds of molecules the rules are those of Liu et al. 2026, Appendix A,
steps 1 to 4; for everything else they are stated in docs/protocols.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from numpy.typing import ArrayLike

from sfumato.reference.scans.bonds import SPAN, bond_type, displaced, scan_lengths, scan_positions
from sfumato.reference.scans.candidate import Candidate
from sfumato.reference.scans.clashes import CLASH_FACTOR, Clash, clashes, moving_clashes
from sfumato.reference.scans.crystal import ROOM, SHORTEST, crystal_candidates
from sfumato.reference.scans.measure import angle, degrees, lever, measured, torsion, type_name
from sfumato.reference.scans.network import (
    BOND_FACTOR,
    OVERLAP_FACTOR,
    Bridge,
    Network,
    bonds,
    bridge_bonds,
    cuts,
    network,
    require_one_piece,
)
from sfumato.reference.scans.turns import (
    ANGLES,
    LINEAR,
    MULTIPLE,
    angle_candidates,
    torsion_candidates,
    turned,
)
from sfumato.systems import COORDINATES, System
from sfumato.words import nearest

__all__ = [
    "ANGLES",
    "BOND_FACTOR",
    "BOND_TYPES",
    "CLASH_FACTOR",
    "LINEAR",
    "MULTIPLE",
    "OVERLAP_FACTOR",
    "ROOM",
    "SHORTEST",
    "SPAN",
    "Bridge",
    "Candidate",
    "Clash",
    "Network",
    "angle",
    "bond_type",
    "bonds",
    "bridge_bonds",
    "candidate_scans",
    "candidates",
    "clashes",
    "cuts",
    "degrees",
    "displaced",
    "lever",
    "measured",
    "moving_clashes",
    "network",
    "scan_lengths",
    "scan_positions",
    "torsion",
    "turned",
    "type_name",
]

BOND_TYPES = ("C-C", "C-N", "C-O", "C-P", "C-S", "N-N", "N-O", "N-P", "O-P")
"""The nine bond types of the published data set."""


def candidates(
    system: System,
    coordinate: str = "bond",
    *,
    bonds: ArrayLike | None = None,
    frames: int = 100,
    types: Collection[str] | None = None,
) -> list[Candidate]:
    """List every bond, angle or torsion of a structure with its scan, or the reason why it gives none.

    Args:
        system: molecule, slab or crystal. In a periodic one "bond" also gives the sites of single atoms.
        coordinate: "bond", "angle" or "torsion".
        bonds: (B, 2) the bonds of a molecule where they are known, for example from its SMILES; None: from
            the geometry.
        frames: frames of a scan.
        types: the types wanted, for example `BOND_TYPES` for the published ones; None for all.

    Returns:
        The candidates, in rising order of their atoms; none if no bond divides the structure.

    Raises:
        ValueError: an unknown coordinate, fewer than two frames, overlapping atoms, a molecule in several
            pieces, or a list of bonds that is impossible or for a periodic system.

    Source: Liu et al. 2026, App. A, steps 1 to 4, for bonds of molecules.
    """
    known = [kind for kind in COORDINATES.values() if kind != "site"]
    if coordinate not in known:
        raise ValueError(f"unknown coordinate {coordinate!r}; {nearest(coordinate, known)}")
    if frames < 2:
        raise ValueError(f"candidates: a scan needs at least 2 frames, got {frames}")
    net = network(system, bonds)
    periodic = bool(system.pbc.any())
    if not periodic:
        require_one_piece(len(system), net.pairs)
    if coordinate == "bond":
        found = crystal_candidates(system, net, frames) if periodic else _bonds(system, net, frames)
    else:
        make = angle_candidates if coordinate == "angle" else torsion_candidates
        found = make(system, net, frames)
    if types is None:
        return found
    told = f"is not among {', '.join(types)}"
    return [
        c if c.type in types else replace(c, exclusion=f"{coordinate} type: {c.type} {told}") for c in found
    ]


def _bonds(system: System, net: Network, frames: int) -> list[Candidate]:
    """Judge the bridge bonds of a molecule as published."""
    found = []
    for bridge in bridge_bonds(len(system), net.pairs):
        lengths = scan_lengths(system.numbers, bridge.bond, frames)
        positions = scan_positions(system, bridge, lengths)
        clash = clashes(system.numbers, positions, bridge.bond, fragment=bridge.fragment)
        exclusion = clash.told(system.numbers) if clash else None
        kind = bond_type(system.numbers, bridge.bond)
        found.append(Candidate(bridge.bond, bridge.fragment, kind, lengths, positions, exclusion))
    return found


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
    return candidates(system, "bond", bonds=bonds(system), frames=frames, types=bond_types)
