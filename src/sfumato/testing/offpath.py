"""Checks that nothing jumps where no graph is known to change: pairs, angles, coordination, random paths."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols

from sfumato.metrics.jumps import LIMITS, STENCIL
from sfumato.reference.paths import Line, Path, Turn
from sfumato.systems import System
from sfumato.testing import structures
from sfumato.testing.bench import Bench
from sfumato.testing.jumps import UNITS, Trip, jump_at, measured, searched
from sfumato.testing.paths import flight, push, span
from sfumato.testing.result import Measured, NotApplicableError
from sfumato.testing.smoothness import cutoffs_of

ANGLES = (math.radians(55), math.radians(176))
"""Between which an angle is opened."""

FEWEST = 13
"""Points of a path, so that what stands out has surroundings."""

DILATED = 1.9
"""Times its size to which a lump is dilated where it cannot be taken apart."""

APPROACH = (4.5, 1.15)
"""Å from the center where a fifth neighbor begins, and bonds where it ends."""

WANDER = {"molecule": 0.35, "cluster": 0.3, "crystal": 0.25, "own": 0.3}
"""Å that the farthest atom is moved to either side on a random path."""

BENT = np.array([-0.3, 0.9, 0.3])
"""Bonds, where an atom lies beside a bond along x: on no axis when that is on one."""

LINED_UP = 0.01
"""Å, width of the stencil across three atoms in line."""

MIDDLE = np.array([3, -25, 150, 150, -25, 3]) / 256
"""Weights of a stencil's points for the value in the middle."""


def all_pairs(bench: Bench) -> Iterator[Measured]:
    """A lump of all elements is dilated until every pair of atoms is far apart."""
    bench.require_molecules()
    base = structures.lump(bench.elements, bench.rng("lump"))
    centered = structures.moved(base, base.positions - base.positions.mean(axis=0))
    nearest = min(structures.distances(base))
    count = bench.count + 6
    grow = (bench.settings.reach / nearest) ** (np.arange(count) / (count - 1))
    short = DILATED ** (np.arange(count // 2) / (count // 2 - 1))
    path = Line(centered, centered.positions)
    trip = Trip("dilated lump", path, grow - 1, bench.reference, short - 1)
    yield from searched(bench, [trip], cutoffs_of)


def angle(bench: Bench) -> Iterator[Measured]:
    """An angle opens from 55° to 176°, a torsion turns once around, and so do three atoms as a whole."""
    bench.require_molecules()
    count = bench.count
    trips = [turned(bench)]
    for a, b, c in structures.triples(bench.elements)[: 1 if bench.few else 3]:
        near, far = (1.05 * structures.bond(b, z) for z in (a, c))
        positions = np.array([[near, 0, 0], [0, 0, 0], [far, 0, 0]])
        path = Turn(structures.system([a, b, c], positions), np.array([2]), np.zeros(3), np.eye(3)[2], far)
        name = "angle " + "–".join(chemical_symbols[z] for z in (a, b, c))
        trips.append(
            Trip(
                name,
                path,
                np.linspace(ANGLES[0] * far, ANGLES[1] * far, max(FEWEST, count * 2 // 3)),
                bench.reference,
            )
        )
    if not bench.few:
        base = structures.chain(bench.elements)
        axis = base.positions[2] - base.positions[1]
        radius = float(
            np.linalg.norm(np.cross(base.positions[3] - base.positions[2], axis / np.linalg.norm(axis)))
        )
        turn = Turn(base, np.array([3]), base.positions[2], axis / np.linalg.norm(axis), radius)
        trips.append(
            Trip(
                "torsion",
                turn,
                radius * np.radians(np.linspace(3, 363, max(FEWEST, count // 2))),
                bench.reference,
            )
        )
    yield from searched(bench, trips, cutoffs_of)


def turned(bench: Bench) -> Trip:
    """Return a trip of three atoms once around the diagonal of x, y and z.

    A bond points exactly along each axis on its way: where angles or frames are measured from an axis,
    nothing may jump there, nor where the bond crosses the plane across that axis. The energy may change.
    """
    a, b, c = structures.triples(bench.elements)[0]
    near, far = (1.05 * structures.bond(b, z) for z in (a, c))
    base = structures.system([a, b, c], np.array([near * BENT, np.zeros(3), [far, 0, 0]]))
    path = Turn(base, np.arange(3), np.zeros(3), np.ones(3) / math.sqrt(3), far)
    angles = np.radians(np.linspace(0, 360, 13 if bench.few else 37))
    return Trip("three atoms that turn", path, far * angles, bench.reference)


def coordination(bench: Bench) -> Iterator[Measured]:
    """A fifth neighbor comes to an atom that has four."""
    bench.require_molecules()
    base, direction = structures.four_neighbors(bench.elements)
    z, center = int(base.numbers[-1]), int(base.numbers[0])
    start, end = APPROACH[0], APPROACH[1] * structures.bond(z, center)
    positions = base.positions.copy()
    positions[-1] = start * direction
    arms = np.zeros_like(positions)
    arms[-1] = -direction
    places = np.linspace(0, start - end, bench.count * 2 // 3)
    path = Line(structures.moved(base, positions), arms)
    trip = Trip(f"fifth neighbor of {chemical_symbols[center]}", path, places, bench.reference)
    yield from searched(bench, [trip], cutoffs_of)


def random_paths(bench: Bench) -> Iterator[Measured]:
    """All atoms move in random directions, and as they would in dynamics at 1000 K."""
    trips = []
    for kind, base in bench.available("molecule", "cluster", "crystal").items():
        times = 2 if kind == "molecule" else 1
        for k in range(times):
            trips.append(
                _wander(bench, f"{kind}, random direction", base, push(base, bench.rng(f"{kind} {k}")), kind)
            )
        if kind != "cluster":  # large: one path is enough
            flying = flight(base, bench.point(base).forces, bench.rng(f"{kind} flight"))
            trips.append(_wander(bench, f"{kind}, dynamics", base, flying, kind))
    yield from searched(bench, trips, cutoffs_of)


def _wander(bench: Bench, name: str, base: System, path: Path, kind: str) -> Trip:
    length = span(path, WANDER[kind])
    return Trip(name, path, np.linspace(-length, length, max(FEWEST, bench.count // 3)), base)


def own_structures(bench: Bench) -> Iterator[Measured]:
    """The user's structures: forces are the gradient and add up to zero, nothing jumps around them."""
    trips = []
    for k, base in bench.own:  # those that cannot be evaluated fail the check
        name = f"structure {k} of the file"
        point = bench.point(base)
        yield Measured(
            float(np.abs(point.forces.sum(axis=0)).max()),
            bench.tolerances(base)[1] * float(np.sqrt(len(base))),
            "eV/Å",
            f"{name}, net force",
        )
        yield bench.gradient(base, 0, name)
        trips.append(
            _wander(bench, f"{name}, random direction", base, push(base, bench.rng(f"own {k}")), "own")
        )
        flying = flight(base, point.forces, bench.rng(f"own flight {k}"))
        trips.append(_wander(bench, f"{name}, dynamics", base, flying, "own"))
    yield from searched(bench, trips, cutoffs_of)


def in_line(bench: Bench) -> Iterator[Measured]:
    """Three atoms exactly in line, and four: finite, and the limit of what is nearly so."""
    bench.require_molecules()
    left_out = []
    bases = structures.lines(bench.elements, bench.rng("line"))[: 1 if bench.few else None]
    for base, name in bases:
        try:
            yield from _lined_up(bench, base, f"{name} in line")
        except RuntimeError as error:
            left_out.append(f"{name} raised {error}")
    if len(left_out) == len(bases):
        raise NotApplicableError("; ".join(left_out))


def _lined_up(bench: Bench, base: System, name: str) -> Iterator[Measured]:
    along = base.positions[1] - base.positions[0]
    across = np.cross(along, [0.3, 0.5, -0.8])
    direction = np.zeros_like(base.positions)
    direction[1] = across / np.linalg.norm(across)
    path = Line(base, direction)
    energy, forces = bench.tolerances(bench.reference)
    try:
        (exact,) = bench.points([base])
    except ValueError as error:
        yield Measured(np.nan, LIMITS[0], UNITS[0], f"{name}: {error}")
        return
    beside = bench.points([path.at(LINED_UP * s) for s in STENCIL])
    stiff = max(1.0, float(np.abs([p.forces for p in beside]).max()))
    expected = float(MIDDLE @ [p.energy for p in beside])
    yield Measured(abs(exact.energy - expected), energy + 1e-7 * stiff, "eV", f"{name}, energy")
    limit = np.tensordot(MIDDLE, np.array([p.forces for p in beside]), 1)
    size = float(np.abs(exact.forces - limit).max())
    yield Measured(size, forces + 1e-6 * stiff, "eV/Å", f"{name}, force")
    yield from measured(jump_at(bench, path, 0.0, bench.reference), name)
