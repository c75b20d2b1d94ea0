"""Bond and site scans of slabs and crystals: a finite group, or one atom, moves along a bond.

In a periodic structure everything else stays, so what moves does so by the whole change of the bond length,
and its images in the other cells move with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from sfumato.reference.scans.bonds import SPAN
from sfumato.reference.scans.candidate import Candidate, laid_out, movers
from sfumato.reference.scans.clashes import pairs_across
from sfumato.reference.scans.measure import type_name
from sfumato.reference.scans.network import Network, cuts, links
from sfumato.systems import Bools, Floats, System

ROOM = 0.8
"""The range of a scan ends where another pair comes closer than this times its radii sum, or times its
distance at rest where that is less: in dense crystals atoms touch, and could not move at all otherwise."""

SHORTEST = 0.3
"""Å; a scan that has less room is none."""


@dataclass(frozen=True, eq=False)
class _Pull:
    """Atom k, and what moves with it, on the line from its neighbor j.

    Args:
        rest: the structure, images laid out so that j and k are neighbors but for `shift`.
        j: the neighbor that stays.
        k: the atom that moves.
        bond: (3,) Å, from the neighboring image of j to k.
        moving: (N,) the atoms that move.
    """

    rest: System
    j: int
    k: int
    bond: Floats
    moving: Bools


def crystal_candidates(system: System, net: Network, frames: int) -> list[Candidate]:
    """List the bond and site scans of a periodic structure.

    A bond whose removal frees a finite group of at least two atoms from at least two others is stretched by
    moving that group, of two groups the smaller. Besides, every atom that has a neighbor is moved out of
    its site along its shortest bond, in units of radii sums. Of bonds, or sites, of the same elements and
    the same length to 0.01 Å the first stands for all.

    Args:
        system: slab or crystal.
        net: its bonds.
        frames: F.

    Returns:
        Candidates, bonds first, in rising order; not judged by type.
    """
    found: dict[tuple[str, float], Candidate] = {}
    for pull in _groups(system, net):
        kind = type_name(system.numbers, [pull.j, pull.k])
        key = (kind, round(float(np.linalg.norm(pull.bond)), 2))
        if key not in found:
            found[key] = _pulled(pull, [pull.j, pull.k], frames)
    for pull in _sites(system, net):
        kind = f"{type_name(system.numbers, [pull.k])} at {type_name(system.numbers, [pull.j])}"
        key = (kind, round(float(np.linalg.norm(pull.bond)), 2))
        if key not in found:
            found[key] = _pulled(pull, [pull.k], frames)
    return list(found.values())


def _groups(system: System, net: Network) -> list[_Pull]:
    found = cuts(len(system), net)
    stay = {(cut.k, cut.j): np.count_nonzero(cut.side) for cut in found}
    pulls = []
    for cut in movers(found):
        if np.count_nonzero(cut.side) > 1 and stay[cut.j, cut.k] > 1:
            rest = laid_out(system, cut)
            bond = rest.positions[cut.k] - rest.positions[cut.j]
            pulls.append(_Pull(rest, cut.j, cut.k, bond, cut.side))
    return pulls


def _sites(system: System, net: Network) -> list[_Pull]:
    pulls = []
    for k, around in enumerate(links(len(system), net)):
        bonds = [(system.positions[k] - system.positions[n.atom] - n.shift @ system.cell, n) for n in around]
        ratios = [
            round(float(np.linalg.norm(r) / covalent_radii[system.numbers[[n.atom, k]]].sum()), 3)
            for r, n in bonds
        ]
        others = [(ratio, n.atom, tuple(n.shift), r) for ratio, (r, n) in zip(ratios, bonds) if n.atom != k]
        if others:
            _, j, _, bond = min(others, key=lambda other: other[:3])
            pulls.append(_Pull(system, j, k, bond, np.arange(len(system)) == k))
    return pulls


def free_way(pull: _Pull, span: tuple[float, float]) -> tuple[float, float]:
    """Return how far atoms may move until another pair comes too close.

    Args:
        pull: what moves where.
        span: Å, most negative and most positive displacement asked for; 0 lies between.

    Returns:
        Å, the part of the span around 0 in which no pair but the scanned one is closer than `ROOM` allows.
    """
    radii = covalent_radii[pull.rest.numbers]
    low, high = span
    reach = ROOM * 2 * float(radii.max()) + max(-low, high)
    stays, moves, image = pairs_across(pull.rest, pull.moving, reach)
    apart = pull.rest.positions[moves] + image - pull.rest.positions[stays]
    other = (stays != pull.j) | (moves != pull.k) | (np.abs(apart - pull.bond).max(axis=1) > 1e-6)
    stays, moves, apart = stays[other], moves[other], apart[other]
    distance = np.linalg.norm(apart, axis=1)
    limit = ROOM * np.minimum(radii[stays] + radii[moves], distance)
    along = apart @ (pull.bond / np.linalg.norm(pull.bond))
    # Moved by a, a pair is |apart + a·direction| away: too close within `half` of a = −along.
    half = np.sqrt(np.maximum(limit**2 - (distance**2 - along**2), 0.0))
    shut = half > 0
    behind, ahead = (-along + half)[shut & (along > 0)], (-along - half)[shut & (along < 0)]
    return float(max([low, *behind])), float(min([high, *ahead]))


def _pulled(pull: _Pull, atoms: list[int], frames: int) -> Candidate:
    length = float(np.linalg.norm(pull.bond))
    total = float(covalent_radii[pull.rest.numbers[[pull.j, pull.k]]].sum())
    low, high = free_way(pull, (min(SPAN[0] * total - length, 0.0), max(SPAN[1] * total - length, 0.0)))
    way = np.linspace(low, high, frames)
    step = np.where(pull.moving[:, None], pull.bond / length, 0.0)
    exclusion = None
    if high - low < SHORTEST:
        exclusion = f"no room: other atoms leave {high - low:.2f} Å along the bond, less than {SHORTEST} Å"
    return Candidate(
        atoms=np.array(atoms),
        fragment=np.where(pull.moving, 1, -1),
        type=type_name(pull.rest.numbers, atoms),
        lengths=length + way if len(atoms) == 2 else way - low,
        positions=pull.rest.positions + way[:, None, None] * step,
        exclusion=exclusion,
    )
