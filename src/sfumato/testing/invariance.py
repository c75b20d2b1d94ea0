"""Checks of what must not matter: order, place, cell choice, company, repetition; and of what must add up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sfumato.systems import Floats, System
from sfumato.testing import structures
from sfumato.testing.bench import MARGIN, SYMMETRY, Bench, Point
from sfumato.testing.result import Measured, NotApplicableError

FAR = (1000.0, 40.0)
"""Å between what must not interact; the second for potentials that see molecules in a box."""

FAR_TOLERANCE = 1e-8
"""eV and eV/Å; multipoles of real atoms interact by 1e-10 eV at 1000 Å."""

SUPERCELLS = {"crystal": ((3, 2, 1), (3, 3, 3)), "slab": ((2, 3, 1),)}


def compare(
    bench: Bench, base: System, other: Point, expected: tuple[float, Floats], where: str
) -> Iterator[Measured]:
    """Yield how far energy and forces are from what is expected, against the tolerance for symmetry."""
    energy, forces = expected
    yield Measured(abs(other.energy - energy), bench.energy_tolerance(base), "eV", where)
    difference = float(np.abs(other.forces - forces).max())
    yield Measured(difference, bench.force_tolerance(base), "eV/Å", where)


def permutation(bench: Bench) -> Iterator[Measured]:
    """Atoms in another order."""
    rng = bench.rng("permutation")
    for kind, base in bench.available("molecule", "cluster", "crystal").items():
        for order in (np.arange(len(base))[::-1], rng.permutation(len(base))):
            point = bench.point(base)
            (found,) = bench.points([structures.reordered(base, order)])
            yield from compare(bench, base, found, (point.energy, point.forces[order]), kind)


def translation(bench: Bench) -> Iterator[Measured]:
    """Everything moved by up to 10 Å."""
    rng = bench.rng("translation")
    for kind, base in bench.available("molecule", "crystal", "slab").items():
        shifts = rng.uniform(-10, 10, (2, 3))
        point = bench.point(base)
        for found in bench.points([structures.moved(base, base.positions + shift) for shift in shifts]):
            yield from compare(bench, base, found, (point.energy, point.forces), kind)


def wrap(bench: Bench) -> Iterator[Measured]:
    """Atoms moved by lattice vectors, and the same lattice by other vectors."""
    rng = bench.rng("wrap")
    for kind, base in bench.available("crystal", "slab").items():
        point = bench.point(base)
        unwrapped = structures.moved(base, base.positions + structures.lattice_shifts(base, rng))
        skewed = base.cell.copy()
        skewed[1] += 2 * skewed[0]
        others = [unwrapped, structures.moved(base, base.positions, skewed)]
        for found, what in zip(bench.points(others), ("images", "cell vectors"), strict=True):
            yield from compare(bench, base, found, (point.energy, point.forces), f"{kind}, other {what}")


def supercell(bench: Bench) -> Iterator[Measured]:
    """Per cell, a supercell has the energy and forces of its cell."""
    for kind, base in bench.available("crystal", "slab").items():
        point = bench.point(base)
        for times in SUPERCELLS[kind]:
            n = int(np.prod(times))
            (found,) = bench.points([structures.repeated(base, times)])
            per_cell = Point(found.energy / n, found.forces, None)
            expected = (point.energy, np.tile(point.forces, (n, 1)))
            yield from compare(bench, base, per_cell, expected, f"{kind} {'×'.join(map(str, times))}")


def isolated(bench: Bench) -> Iterator[Measured]:
    """An atom alone has a finite energy and no force; things far apart do not feel each other."""
    base = bench.structure("molecule")
    for z in dict.fromkeys(bench.elements):
        atom = structures.system([z], np.full((1, 3), 0.3))
        point = bench.point(atom)
        yield Measured(_size(point), bench.force_tolerance(base), "eV/Å", f"{_symbol(z)} alone, force")
        yield from _additive(bench, atom, atom, f"{_symbol(z)} and {_symbol(z)}")
    fragment = structures.fragment(bench.elements)
    yield from _additive(bench, base, fragment, "molecule and fragment")


def _size(point: Point) -> float:
    return float(np.abs(point.forces).max()) + 0 * point.energy  # NaN if either is


def _symbol(z: int) -> str:
    from ase.data import chemical_symbols

    return str(chemical_symbols[z])


def _additive(bench: Bench, first: System, second: System, where: str) -> Iterator[Measured]:
    one, two = bench.point(first), bench.point(second)
    for distance in FAR:
        try:
            (found,) = bench.points([structures.apart(first, second, distance)])
        except ValueError:
            if distance == FAR[-1]:
                raise
            continue
        floor = bench.floor(bench.reference)
        low = FAR_TOLERANCE if bench.precision == "double" else SYMMETRY["single"]
        apart = f"{where}, {distance:g} Å apart"
        excess = abs(found.energy - one.energy - two.energy)
        yield Measured(excess, low + MARGIN * floor.energy, "eV", apart)
        force = np.abs(found.forces - np.concatenate([one.forces, two.forces])).max()
        yield Measured(float(force), low + MARGIN * floor.roughness, "eV/Å", apart)
        return


def batching(bench: Bench) -> Iterator[Measured]:
    """Structures of all kinds in one batch have the energies and forces they have alone."""
    kinds = bench.available("molecule", "crystal", "cluster")
    systems = [*kinds.values(), *reversed(kinds.values())]
    if "molecule" in kinds:
        systems.insert(1, structures.system([bench.elements[0]], np.zeros((1, 3))))
    alone = [bench.points([system], together=True)[0] for system in systems]
    for system, one, found in zip(systems, alone, bench.points(systems, together=True), strict=True):
        where = f"structure of {len(system)} atoms in a batch of {len(systems)}"
        base = system if len(system) > 1 else bench.reference
        yield from compare(bench, base, found, (one.energy, one.forces), where)


def repeatable(bench: Bench) -> Iterator[Measured]:
    """The same input again, and after another one, gives the same output."""
    base = bench.reference
    other = structures.moved(base, base.positions + 0.1 * bench.direction(base, 7))
    first, *later = [bench.points([system])[0] for system in (base, base, other, base)]
    tolerance = SYMMETRY[bench.precision]
    for point, where in ((later[0], "at once"), (later[2], "after another structure")):
        yield Measured(abs(point.energy - first.energy), tolerance, "eV", where)
        yield Measured(float(np.abs(point.forces - first.forces).max()), tolerance, "eV/Å", where)


def untouched(bench: Bench) -> Iterator[Measured]:
    """The arrays handed in are unchanged afterwards; looks at every evaluation so far."""
    if not bench.evaluations:
        raise NotApplicableError("nothing was evaluated")
    yield Measured(bench.mutated, 0, "calls", f"{bench.evaluations} evaluations")


def net_force(bench: Bench) -> Iterator[Measured]:
    """The forces add up to zero: momentum is conserved."""
    for kind, base in bench.available("molecule", "cluster", "crystal", "slab").items():
        total = float(np.abs(bench.point(base).forces.sum(axis=0)).max())
        yield Measured(total, bench.force_tolerance(base) * np.sqrt(len(base)), "eV/Å", kind)


def rotation(bench: Bench) -> Iterator[Measured]:
    """Energy unchanged and forces turned with the structure, mirror images included."""
    base = bench.structure("molecule")
    point, rng = bench.point(base), bench.rng("rotation")
    turns = [structures.rotation(rng) for _ in range(4)]
    turns[-1] = -turns[-1]
    for turn, found in zip(turns, _turned(bench, base, turns), strict=True):
        where = "rotated" if np.linalg.det(turn) > 0 else "mirrored"
        yield from compare(bench, base, found, (point.energy, point.forces @ turn.T), where)


def _turned(bench: Bench, base: System, turns: Sequence[Floats]) -> list[Point]:
    return bench.points([structures.moved(base, base.positions @ turn.T) for turn in turns])


def torque(bench: Bench) -> Iterator[Measured]:
    """The torques add up to zero: angular momentum is conserved."""
    for kind, base in bench.available("molecule", "cluster").items():
        arms = base.positions - base.positions.mean(axis=0)
        total = np.abs(np.cross(arms, bench.point(base).forces).sum(axis=0)).max()
        tolerance = bench.force_tolerance(base) * float(np.linalg.norm(arms))
        yield Measured(float(total), tolerance, "eV", kind)
