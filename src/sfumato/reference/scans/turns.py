"""Angle and torsion scans: one side of a bond turns as a rigid body."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike

from sfumato.reference.scans.candidate import Candidate, _order, laid_out, movers
from sfumato.reference.scans.clashes import moving_clashes
from sfumato.reference.scans.measure import angle, distance_to_axis, torsion, type_name
from sfumato.reference.scans.network import Cut, Link, Network, cuts, links, named
from sfumato.systems import Bools, Floats, System

ANGLES = (60.0, 180.0)
"""Degrees, first and last of an angle scan: from an equilateral triangle of equal arms to a straight line."""

LINEAR = 5.0
"""Degrees; three atoms closer than this to a line have no plane to bend in, and no torsion around it."""

MULTIPLE = 0.9
"""A bond shorter than this times its radii sum is a multiple bond: C=C lies at 0.88, amide C–N at 0.91."""


def turned(positions: Floats, moving: Bools, pivot: ArrayLike, axis: ArrayLike, turn: ArrayLike) -> Floats:
    """Turn some atoms about an axis, right-handed, as a rigid body.

    Args:
        positions: (N, 3) Å.
        moving: (N,) the atoms that turn.
        pivot: (3,) Å, a point of the axis.
        axis: (3,) its direction, of any length.
        turn: (F,) rad.

    Returns:
        (F, N, 3) Å.
    """
    unit = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    arm = positions[moving] - np.asarray(pivot)
    along = np.outer(arm @ unit, unit)
    phase = np.asarray(turn, dtype=float)[:, None, None]
    frames = np.repeat(positions[None], len(phase), axis=0)
    frames[:, moving] = pivot + along + np.cos(phase) * (arm - along) + np.sin(phase) * np.cross(unit, arm)
    return frames


def angle_candidates(system: System, net: Network, frames: int) -> list[Candidate]:
    """List the angles i–j–k at heavy atoms j whose bond j–k divides the structure, so that k's side can bend.

    For each such bond i is the heaviest other neighbour of j, of equals the lowest; an angle that two bonds
    give is scanned once, with the smaller side moving, and of several single atoms of one element on one j
    only the lowest moves. A single atom may bend, hydrogen too: a stretched bond isolates it, no angle does.

    Args:
        system: molecule, slab or crystal.
        net: its bonds.
        frames: F.

    Returns:
        Candidates in rising order of j, then k; not judged by type.
    """
    adjacent = links(len(system), net)
    chosen: dict[tuple[int, frozenset[int]], tuple[Link, Cut]] = {}
    singles: set[tuple[int, int]] = set()
    for cut in cuts(len(system), net):
        kind = (cut.j, int(system.numbers[cut.k]))
        single = np.count_nonzero(cut.side) == 1
        if not cut.finite or system.numbers[cut.j] == 1 or (single and kind in singles):
            continue
        if single:
            singles.add(kind)
        for end in _ends(system, adjacent[cut.j], cut)[:1]:
            key = (cut.j, frozenset((end.atom, cut.k)))
            if key not in chosen or _order(cut) < _order(chosen[key][1]):
                chosen[key] = (end, cut)
    found = sorted(chosen.values(), key=lambda choice: (choice[1].j, choice[1].k))
    return [_angle(system, end, cut, frames) for end, cut in found]


def torsion_candidates(system: System, net: Network, frames: int) -> list[Candidate]:
    """List the torsions i–j–k–l around bonds j–k that divide the structure into two sides of several atoms.

    Each bond gives one: i and l are the heaviest neighbours off its line, of equals the lowest.

    Args:
        system: molecule, slab or crystal.
        net: its bonds.
        frames: F.

    Returns:
        Candidates in rising order of their bonds; not judged by type.
    """
    adjacent = links(len(system), net)
    return [
        _torsion(system, adjacent, cut, frames)
        for cut in movers(cuts(len(system), net))
        if len(adjacent[cut.j]) > 1 and len(adjacent[cut.k]) > 1
    ]


def _ends(system: System, around: list[Link], cut: Cut) -> list[Link]:
    """Neighbours of j that stay, the heaviest and lowest first; j's own images are no partners."""
    ends = [link for link in around if not cut.side[link.atom] and link.atom != cut.j]
    return sorted(ends, key=lambda link: (-system.numbers[link.atom], link.atom, tuple(link.shift)))


def _in_line(points: Floats) -> bool:
    return bool(np.sin(angle(points)) < np.sin(np.radians(LINEAR)))


def _none(system: System, atoms: list[int], cut: Cut, exclusion: str) -> Candidate:
    """A candidate that has no path."""
    kind, fragment = type_name(system.numbers, atoms), np.where(cut.side, 1, -1)
    nothing = np.zeros((0, len(system), 3))
    return Candidate(np.array(atoms), fragment, kind, np.zeros(0), nothing, exclusion)


def _judged(rest: System, atoms: list[int], cut: Cut, lengths: Floats, positions: Floats) -> Candidate:
    clash = moving_clashes(rest, positions, cut.side, atoms)
    return Candidate(
        atoms=np.array(atoms),
        fragment=np.where(cut.side, 1, -1),
        type=type_name(rest.numbers, atoms),
        lengths=lengths,
        positions=positions,
        exclusion=clash.told(rest.numbers) if clash else None,
    )


def _angle(system: System, end: Link, cut: Cut, frames: int) -> Candidate:
    rest = laid_out(system, cut, end)
    atoms = [end.atom, cut.j, cut.k]
    points = rest.positions[atoms]
    now = float(angle(points))
    if _in_line(points):
        told = f"linear: the angle of atoms {_listed(system, atoms)} is {np.degrees(now):.1f}°"
        return _none(system, atoms, cut, f"{told} and has no plane")
    first, second = points[[0, 2]] - points[1]
    wanted = np.radians(np.linspace(*ANGLES, frames))
    positions = turned(rest.positions, cut.side, points[1], np.cross(first, second), wanted - now)
    return _judged(rest, atoms, cut, np.linalg.norm(second) * wanted, positions)


def _torsion(system: System, adjacent: list[list[Link]], cut: Cut, frames: int) -> Candidate:
    j, k, numbers = cut.j, cut.k, system.numbers
    rest = laid_out(system, cut)
    lasts = [link.atom for link in adjacent[k] if link.atom != j]
    lasts = [
        a for a in sorted(lasts, key=lambda a: (-numbers[a], a)) if not _in_line(rest.positions[[j, k, a]])
    ]
    rests = [(end.atom, laid_out(system, cut, end)) for end in _ends(system, adjacent[j], cut)]
    rests = [(i, at) for i, at in rests if not _in_line(at.positions[[i, j, k]])]
    pair = _listed(system, [j, k])
    if not (rests and lasts):
        told = f"linear: atoms {pair} have no neighbours off their line on both sides"
        return _none(system, [j, k], cut, told)
    i, rest = rests[0]
    atoms = [i, j, k, lasts[0]]
    points = rest.positions[atoms]
    length = float(np.linalg.norm(points[2] - points[1]))
    limit = MULTIPLE * float(covalent_radii[numbers[[j, k]]].sum())
    if length < limit:
        told = f"multiple bond: atoms {pair} are {length:.3f} Å apart, closer than {limit:.3f} Å"
        return _none(system, atoms, cut, f"{told}, and half a turn would break their bond")
    now = float(torsion(points)) % (2 * np.pi)
    turn = 2 * np.pi * np.arange(frames) / frames
    positions = turned(rest.positions, cut.side, points[1], points[2] - points[1], turn)
    return _judged(rest, atoms, cut, distance_to_axis(points) * (now + turn), positions)


def _listed(system: System, atoms: list[int]) -> str:
    *first, last = (named(system.numbers, k) for k in atoms)
    return f"{', '.join(first)} and {last}"
