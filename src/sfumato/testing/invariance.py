"""Checks of what must not matter: order, place, cell choice, company, repetition; and of what must add up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from sfumato.systems import Floats, System
from sfumato.testing import structures
from sfumato.testing.bench import MARGIN, SYMMETRY, Bench
from sfumato.testing.result import Measured

FAR = (1000.0, 40.0)
"""Å between what must not interact; the second for potentials that see molecules in a box, or in single
precision."""

FAR_TOLERANCE = 1e-8
"""eV and eV/Å; multipoles of real atoms interact by 1e-10 eV at 1000 Å."""

SUPERCELLS = {"crystal": ((3, 2, 1), (3, 3, 3)), "slab": ((2, 3, 1),)}

Expected = tuple[float, Floats]
"""Energy and forces."""


def compare(
    bench: Bench, base: System, other: System, expected: Expected, where: str, cells: int = 1
) -> Iterator[Measured]:
    """Yield how far energy and forces of a structure are from what symmetry says.

    The tolerance is that of the structure it is derived from; where that is not enough, the noise of the
    derived structure itself counts too, which in single precision grows with distance from the origin.

    Args:
        bench: the potential.
        base: structure the expectation comes from.
        other: structure that is evaluated.
        expected: energy per cell and all forces.
        where: for the result.
        cells: in `other`.
    """
    (found,) = bench.points([other])
    energy = abs(found.energy / cells - expected[0])
    force = float(np.abs(found.forces - expected[1]).max())
    allowed = bench.tolerances(base)
    if not (energy <= allowed[0] and force <= allowed[1]):
        here = bench.tolerances(other)
        allowed = max(allowed[0], here[0] / cells), max(allowed[1], here[1])
    yield Measured(energy, allowed[0], "eV", where)
    yield Measured(force, allowed[1], "eV/Å", where)


def permutation(bench: Bench) -> Iterator[Measured]:
    """Atoms in another order."""
    rng = bench.rng("permutation")
    for kind, base in bench.available("molecule", "cluster", "crystal").items():
        point = bench.point(base)
        for order in (np.arange(len(base))[::-1], rng.permutation(len(base))):
            other = structures.reordered(base, order)
            yield from compare(bench, base, other, (point.energy, point.forces[order]), kind)


def translation(bench: Bench) -> Iterator[Measured]:
    """Everything moved by up to 10 Å."""
    rng = bench.rng("translation")
    for kind, base in bench.available("molecule", "crystal", "slab").items():
        point = bench.point(base)
        for shift in rng.uniform(-10, 10, (2, 3)):
            other = structures.moved(base, base.positions + shift)
            yield from compare(bench, base, other, (point.energy, point.forces), kind)


def wrap(bench: Bench) -> Iterator[Measured]:
    """Atoms moved by lattice vectors, and the same lattice by other vectors."""
    rng = bench.rng("wrap")
    for kind, base in bench.available("crystal", "slab").items():
        point = bench.point(base)
        unwrapped = structures.moved(base, base.positions + structures.lattice_shifts(base, rng))
        vectors = base.cell.copy()
        vectors[1] += 2 * vectors[0]
        skewed = structures.moved(base, base.positions, vectors)
        for other, what in ((unwrapped, "images"), (skewed, "cell vectors")):
            yield from compare(bench, base, other, (point.energy, point.forces), f"{kind}, other {what}")


def supercell(bench: Bench) -> Iterator[Measured]:
    """Per cell, a supercell has the energy and forces of its cell."""
    for kind, base in bench.available("crystal", "slab").items():
        point = bench.point(base)
        for times in SUPERCELLS[kind]:
            n = int(np.prod(times))
            expected = (point.energy, np.tile(point.forces, (n, 1)))
            where = f"{kind} {'×'.join(map(str, times))}"
            yield from compare(bench, base, structures.repeated(base, times), expected, where, cells=n)


def isolated(bench: Bench) -> Iterator[Measured]:
    """An atom alone has a finite energy and no force; things far apart do not feel each other."""
    base = bench.structure("molecule")
    for z in dict.fromkeys(bench.elements):
        atom = structures.system([z], np.full((1, 3), 0.3))
        point = bench.point(atom)
        size = float(np.abs(point.forces).max()) + 0 * point.energy  # NaN if either is
        yield Measured(size, bench.tolerances(base)[1], "eV/Å", f"{_symbol(z)} alone, force")
        yield from _additive(bench, atom, atom, f"{_symbol(z)} and {_symbol(z)}")
    yield from _additive(bench, base, structures.fragment(bench.elements), "molecule and fragment")


def _symbol(z: int) -> str:
    from ase.data import chemical_symbols

    return str(chemical_symbols[z])


def _additive(bench: Bench, first: System, second: System, where: str) -> Iterator[Measured]:
    one, two = bench.point(first), bench.point(second)
    low = FAR_TOLERANCE if bench.precision == "double" else SYMMETRY["single"]
    energy, force = (low + MARGIN * rough for rough in bench.floor(bench.reference).roughness)
    for distance in FAR[bench.precision == "single" :]:
        try:
            (found,) = bench.points([structures.apart(first, second, distance)])
        except ValueError:
            if distance == FAR[-1]:
                raise
            continue
        what = f"{where}, {distance:g} Å apart"
        yield Measured(abs(found.energy - one.energy - two.energy), energy, "eV", what)
        expected = np.concatenate([one.forces, two.forces])
        yield Measured(float(np.abs(found.forces - expected).max()), force, "eV/Å", what)
        return


def batching(bench: Bench) -> Iterator[Measured]:
    """Structures of all kinds in one batch have the energies and forces they have alone."""
    kinds = bench.available("molecule", "crystal", "cluster")
    systems = [*kinds.values(), *reversed(kinds.values())]
    if "molecule" in kinds:
        systems.insert(1, structures.system([bench.elements[0]], np.zeros((1, 3))))
    together = bench.points(systems, together=True)
    for system, found in zip(systems, together, strict=True):
        where = f"structure of {len(system)} atoms in a batch of {len(systems)}"
        base = system if len(system) > 1 else bench.reference
        (alone,) = bench.points([system], together=True)
        energy, force = bench.tolerances(base)
        yield Measured(_difference(found.energy, alone.energy), energy, "eV", where)
        yield Measured(_difference(found.forces, alone.forces), force, "eV/Å", where)


def _difference(first: ArrayLike, second: ArrayLike) -> float:
    """Return the largest difference; NaN in both is none, since it is another check's finding."""
    one, two = np.asarray(first), np.asarray(second)
    return float(np.abs(np.where(np.isnan(one) & np.isnan(two), 0.0, one - two)).max())


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
    yield Measured(bench.mutated, 0, "calls", f"{bench.evaluations} evaluations")


def net_force(bench: Bench) -> Iterator[Measured]:
    """The forces add up to zero: momentum is conserved."""
    for kind, base in bench.available("molecule", "cluster", "crystal", "slab").items():
        total = float(np.abs(bench.point(base).forces.sum(axis=0)).max())
        yield Measured(total, bench.tolerances(base)[1] * float(np.sqrt(len(base))), "eV/Å", kind)


def rotation(bench: Bench) -> Iterator[Measured]:
    """Energy unchanged and forces turned with the structure, mirror images included."""
    base = bench.structure("molecule")
    point, rng = bench.point(base), bench.rng("rotation")
    for k in range(4):
        turn = structures.rotation(rng) * (1 if k else -1)
        other = structures.moved(base, base.positions @ turn.T)
        where = "rotated" if k else "mirrored"
        yield from compare(bench, base, other, (point.energy, point.forces @ turn.T), where)


def torque(bench: Bench) -> Iterator[Measured]:
    """The torques add up to zero: angular momentum is conserved."""
    for kind, base in bench.available("molecule", "cluster").items():
        arms = base.positions - base.positions.mean(axis=0)
        total = np.abs(np.cross(arms, bench.point(base).forces).sum(axis=0)).max()
        tolerance = bench.tolerances(base)[1] * float(np.linalg.norm(arms))
        yield Measured(float(total), tolerance, "eV", kind)
