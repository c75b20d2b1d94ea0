"""The paths on which jumps are looked for: each changes what a graph of neighbors may be made of.

Everything drawn is rounded, so that the same settings give the same structures on every machine.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from ase.data import chemical_symbols

from sfumato.jobs.tracks import Exchange, Trip
from sfumato.reference.paths import Line, Path, Turn
from sfumato.reference.scans.candidate import movers
from sfumato.reference.scans.network import cuts, network
from sfumato.reference.swaps import chosen_swaps, groups_of
from sfumato.systems import Floats, System
from sfumato.testing import structures
from sfumato.testing.paths import push, sliding, span

POINTS = 61
"""Samples of a path to start with; more are added where the energy asks for them."""

NEAREST = 0.7
"""Å; no two atoms are brought closer on a path that is searched for jumps."""

ANGLES = (55.0, 176.0)
"""Degrees between which an angle is opened."""

CROWD = 0.95
"""Of a bond, the least distance in a lump."""

TRIED = 400
"""Places tried for each atom of a lump."""

DILATED = 8.0
"""Times its size to which a lump grows at most."""

SHORT, LONG = 0.85, 2.2
"""Of its length, between which a bond of a molecule is stretched."""

WALK = 0.35
"""Å that the farthest atom is moved to either side on a random walk."""

ESCAPE = 8.0
"""Å by which an atom leaves a cluster."""


@dataclass(frozen=True, eq=False)
class Way:
    """A path or an exchange of neighbors, with its names for people.

    Args:
        kind: a key of `KINDS`.
        name: of what moves.
        track: for the job.
    """

    kind: str
    name: str
    track: Trip | Exchange


VALENCE = {1: 1} | {
    z: electrons
    for row in (5, 13, 31, 49)
    for z, electrons in zip(range(row, row + 5), range(3, 8), strict=True)
}
"""Valence electrons of hydrogen and of the groups of boron to fluorine."""

KINDS = {
    "pair": "two atoms pulled apart",
    "third": "a third atom pulled away",
    "angle": "an angle opened",
    "torsion": "a torsion turned",
    "coordination": "a fifth neighbor comes",
    "lump": "a lump of atoms dilated",
    "slide": "a part slides through a cluster",
    "escape": "an atom leaves a cluster",
    "exchange": "neighbors exchange places",
    "bond": "a bond of a molecule stretched",
    "walk": "all atoms moved at random",
}
"""Kinds of paths, in the order in which they are searched."""


def rng(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator that depends on the seed and the purpose, not on the order of calls."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def rounded(system: System) -> System:
    """Return a structure whose positions have six decimals."""
    return replace(system, positions=np.round(system.positions, 6))


def name_of(*numbers: int) -> str:
    """Return the symbols of some elements, "C–H"."""
    return "–".join(chemical_symbols[z] for z in numbers)


def _trip(path: Path, places: Floats) -> Trip:
    if isinstance(path, Line):
        path = Line(rounded(path.base), np.round(path.direction, 12))
    elif isinstance(path, Turn):
        path = replace(
            path, base=rounded(path.base), pivot=np.round(path.pivot, 6), axis=np.round(path.axis, 12)
        )
    return Trip.along(path, np.round(places, 9))


def pairs_of(elements: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Return pairs of elements: like ones, then those that are next to each other in the list, and so on.

    Args:
        elements: the most important first.
        most: pairs; where there are more, half are of the first elements, half of all others with themselves.
    """
    every = _all_pairs(elements)
    if len(every) <= most:
        return every
    if len(elements) <= most:
        return every[:most]
    first = max((k for k in range(1, len(elements)) if k * (k + 1) <= most), default=1)
    found = _all_pairs(elements[:first])
    rest = np.linspace(first, len(elements) - 1, most - len(found)).round().astype(int).tolist()
    return found + [(elements[k], elements[k]) for k in rest]


def _all_pairs(elements: Sequence[int]) -> list[tuple[int, int]]:
    n = len(elements)
    return [(elements[k], elements[k + d]) for d in range(n) for k in range(n - d)]


def couple(a: int, b: int, positions: Floats) -> System:
    """Return two atoms with the spin of their ground state, where it is known not to be the lowest one.

    Twelve valence electrons, as in O₂, SO and NF, form a triplet; so do six, as in NH, B₂ and PH, and eight
    of silicon and below. A singlet of these has solutions that cross when it is pulled apart.
    """
    base = structures.system([a, b], positions)
    electrons = sum(VALENCE.get(z, 0) for z in (a, b))
    heavy = min(a, b) > 10 and VALENCE.get(a) == VALENCE.get(b) == 4
    known = a in VALENCE and b in VALENCE
    return replace(base, multiplicity=3) if known and (electrons in (6, 12) or heavy) else base


def growing(start: float, end: float) -> Floats:
    """Return distances in equal ratios, with two more at each end: close atoms are steep."""
    places: Floats = start * (end / start) ** ((np.arange(POINTS) - 2) / (POINTS - 5))
    return places


def pulled(elements: Sequence[int], reach: float, most: int) -> Iterator[Way]:
    """Yield pairs of elements that are pulled apart."""
    for a, b in pairs_of(elements, most):
        base = couple(a, b, np.zeros((2, 3)))
        path = Line(base, np.array([[0, 0, 0], [0, 1.0, 0]]))
        start = max(NEAREST, 0.9 * structures.bond(a, b))
        yield Way("pair", f"{name_of(a, b)} pulled apart", _trip(path, growing(start, reach)))


def third(elements: Sequence[int], reach: float, most: int) -> Iterator[Way]:
    """Yield triples of elements of which the last is pulled away from the other two."""
    n = len(elements)
    every = [(elements[k], elements[(k + 1) % n], elements[(k + d) % n]) for d in (0, 2) for k in range(n)]
    for a, b, c in list(dict.fromkeys(every))[:most]:
        bond = 1.1 * structures.bond(a, b)
        positions = np.array([[-0.4 * bond, 0, 0], [0.6 * bond, 0, 0.1], [0, 0, 0]])
        path = Line(structures.system([a, b, c], positions), np.array([[0, 0, 0], [0, 0, 0], [0, 1.0, 0]]))
        start = max(NEAREST, 1.1 * max(structures.bond(a, c), structures.bond(b, c)))
        yield Way(
            "third", f"{name_of(c)} pulled away from {name_of(a, b)}", _trip(path, growing(start, reach))
        )


def bent(elements: Sequence[int], most: int) -> Iterator[Way]:
    """Yield angles, torsions and coordinations of different elements."""
    found: list[Way] = []
    for shift in range(max(len(elements), most)):
        four = [elements[(shift + k) % len(elements)] for k in range(4)]
        found += (_angle(four), _torsion(four), _coordination(four))
        if len({way.name for way in found}) >= most:
            break
    yield from list({way.name: way for way in found}.values())[:most]


def _angle(elements: Sequence[int]) -> Way:
    a, b, c = structures.triples(elements)[0]
    near, far = 1.05 * structures.bond(b, a), 1.05 * structures.bond(b, c)
    base = structures.system([a, b, c], np.array([[near, 0, 0], [0, 0, 0], [far, 0, 0]]))
    path = Turn(base, np.array([2]), np.zeros(3), np.eye(3)[2], far)
    return Way("angle", f"{name_of(a, b, c)} opened", _trip(path, far * np.radians(np.linspace(*ANGLES, 41))))


def _torsion(elements: Sequence[int]) -> Way:
    base = structures.chain(elements)
    axis = base.positions[2] - base.positions[1]
    axis = axis / np.linalg.norm(axis)
    radius = float(np.linalg.norm(np.cross(base.positions[3] - base.positions[2], axis)))
    path = Turn(base, np.array([3]), base.positions[2], axis, radius)
    places = radius * np.radians(np.linspace(3, 363, 41))
    return Way("torsion", f"{name_of(*base.numbers.tolist())} turned", _trip(path, places))


def _coordination(elements: Sequence[int]) -> Way:
    base, direction = structures.four_neighbors(elements)
    center, end = int(base.numbers[0]), int(base.numbers[-1])
    start, stop = 4.5, 1.15 * structures.bond(end, center)
    positions, arms = base.positions.copy(), np.zeros_like(base.positions)
    positions[-1], arms[-1] = start * direction, -direction
    path = Line(structures.moved(base, positions), arms)
    name = f"a fifth {name_of(end)} comes to {name_of(center)}"
    return Way("coordination", name, _trip(path, np.linspace(0, start - stop, 41)))


def fours(elements: Sequence[int], most: int, seed: int) -> list[tuple[int, ...]]:
    """Return groups of four elements that together hold as many pairs of elements as they can."""
    draw, missing = rng(seed, "fours"), set(combinations(sorted(elements), 2))
    found = [tuple(elements[:4])]
    while len(found) < most and (missing := missing - set(combinations(sorted(found[-1]), 2))):
        tried = [tuple(draw.permutation(elements)[:4].tolist()) for _ in range(100)]
        found.append(max(tried, key=lambda four: len(missing & set(combinations(sorted(four), 2)))))
    return found


def lumps(elements: Sequence[int], reach: float, most: int, seed: int) -> Iterator[Way]:
    """Yield lumps of eight atoms that are dilated until they are apart."""
    for four in fours(elements, most, seed)[:most]:
        base = rounded(lump(four, rng(seed, f"lump {four}")))
        centered = structures.moved(base, base.positions - base.positions.mean(axis=0))
        largest = min(DILATED, reach / float(structures.distances(base).min()))
        grow = largest ** ((np.arange(POINTS) - 2) / (POINTS - 5)) - 1
        path = Line(centered, centered.positions)
        yield Way(
            "lump", f"lump of {', '.join(name_of(z) for z in dict.fromkeys(four))} dilated", _trip(path, grow)
        )


def lump(elements: Sequence[int], draw: np.random.Generator) -> System:
    """Return eight atoms as close together as they fit, each element as often as the others."""
    numbers = np.array([elements[k % len(elements)] for k in range(8)])
    positions = np.zeros((1, 3))
    widest = max(structures.bond(a, b) for a in elements for b in elements)
    for k in range(1, len(numbers)):
        bonds = np.array([structures.bond(int(numbers[k]), int(z)) for z in numbers[:k]])
        places = draw.uniform(-2 * widest, 2 * widest, (TRIED, 3))
        gaps = np.linalg.norm(places[:, None] - positions, axis=2)
        free = (gaps > CROWD * bonds).all(axis=1)
        crowding = np.where(free, (gaps / bonds).sum(axis=1), np.inf)
        positions = np.concatenate([positions, places[[int(np.argmin(crowding))]]])
    return structures.system(numbers, positions)


def clustered(elements: Sequence[int], most: int, centers: int, seed: int) -> Iterator[Way]:
    """Yield what moves in dense clusters: a part slides, another escapes, neighbors exchange places."""
    for k, four in enumerate((fours(elements, most, seed) * most)[:most]):
        base = rounded(structures.cluster(four, rng(seed, f"cluster {k}")))
        parts = structures.fragments(base, four)
        words = f"cluster {k + 1} of {', '.join(name_of(z) for z in four)}"
        path, length = sliding(base, parts, rng(seed, f"slide {k}"))
        yield Way("slide", f"a part slides through {words}", _trip(path, np.linspace(0, length, 41)))
        yield Way("escape", f"an atom leaves {words}", _escape(base, parts[-1]))
        swaps = chosen_swaps(base, max(1, centers // most))
        for number, group in enumerate(groups_of(base, swaps)):
            center = group[0].center
            half = "even" if number % 2 else "odd"
            name = f"neighbors of {name_of(int(base.numbers[center]))} atom {center} of {words}, {half} ranks"
            yield Way("exchange", name, Exchange.among(base, group))


def _escape(base: System, part: np.ndarray) -> Trip:
    arm = base.positions[part].mean(axis=0) - base.positions.mean(axis=0)
    direction = np.zeros_like(base.positions)
    direction[part] = arm / np.linalg.norm(arm)
    return _trip(Line(base, direction), np.linspace(0, ESCAPE, POINTS))


def stretched(systems: Sequence[tuple[str, System]], most: int) -> Iterator[Way]:
    """Yield bonds of molecules that are stretched, of as many kinds as there are."""
    found: dict[str, list[Way]] = {}
    for name, system in systems:
        for bond, way in _bonds(name, system):
            found.setdefault(bond, []).append(way)
    rounds = max(map(len, found.values()), default=0)
    turns = [ways[k] for k in range(rounds) for ways in found.values() if k < len(ways)]
    yield from turns[:most]


def _bonds(name: str, system: System) -> Iterator[tuple[str, Way]]:
    if system.pbc.any() or len(system) < 4:
        return
    try:
        sides = movers(cuts(len(system), network(system)))
    except ValueError:  # overlapping atoms
        return
    for cut in sides:
        arm = system.positions[cut.k] - system.positions[cut.j]
        length = float(np.linalg.norm(arm))
        path = Line(system, cut.side[:, None] * arm / length)
        places = length * (np.linspace(SHORT, LONG, POINTS) - 1)
        kind = name_of(*sorted(system.numbers[[cut.j, cut.k]].tolist()))
        yield kind, Way("bond", f"{kind} {cut.j}–{cut.k} of {name} stretched", _trip(path, places))


def walks(systems: Sequence[tuple[str, System]], seed: int) -> Iterator[Way]:
    """Yield random walks of all atoms of some structures."""
    for name, system in systems:
        path = push(system, rng(seed, f"walk {name}"))
        length = span(path, WALK)
        yield Way("walk", f"{name}, all atoms moved", _trip(path, np.linspace(-length, length, 31)))


def arc(track: Trip, s: float) -> str:
    """Return where on a turn something is, in degrees; empty for a straight line."""
    return "" if track.direction is not None else f"{math.degrees(s / track.radius):.2f}°"
