"""Checks of what must not matter: order, place, cell choice, company, repetition; and of what must add up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.noise import MARGIN
from sfumato.systems import System
from sfumato.testing import structures
from sfumato.testing.bench import SYMMETRY, Bench, Point
from sfumato.testing.result import Measured, NotApplicableError

FAR = (1000.0, 40.0)
"""Å between what must not interact; the second for potentials that see molecules in a box, or in single
precision."""

FAR_TOLERANCE = 1e-8
"""eV and eV/Å; multipoles of real atoms interact by 1e-10 eV at 1000 Å."""

SUPERCELLS = {"crystal": ((3, 2, 1), (3, 3, 3)), "slab": ((2, 3, 1),)}

VACUUMS = (0.6, 2.5)
"""Times the thickness of a slab: its third vector, which means nothing where it is not periodic."""


def compare(
    bench: Bench, base: System, other: System, expected: Point, where: str, cells: int = 1
) -> Iterator[Measured]:
    """Yield how far energy, forces and stress of a structure are from what symmetry says.

    The tolerance is that of the structure it is derived from; where that is not enough, the noise of the
    derived structure itself counts too, which in single precision grows with distance from the origin.

    Args:
        bench: the potential.
        base: structure the expectation comes from.
        other: structure that is evaluated.
        expected: energy and virial per cell and all forces.
        where: for the result.
        cells: in `other`.
    """
    (found,) = bench.points([other])
    energy = abs(found.energy / cells - expected.energy)
    force = float(np.abs(found.forces - expected.forces).max())
    allowed = bench.tolerances(base)
    if not (energy <= allowed[0] and force <= allowed[1]):
        here = bench.tolerances(other)
        allowed = max(allowed[0], here[0] / cells), max(allowed[1], here[1])
    yield Measured(energy, allowed[0], "eV", where)
    yield Measured(force, allowed[1], "eV/Å", where)
    if expected.stress is not None and found.stress is not None:
        stress = float(np.abs(found.stress - expected.stress).max())
        arm = float(np.linalg.norm(other.cell)) / abs(np.linalg.det(base.cell))
        yield Measured(stress, allowed[1] * max(1.0, arm), "eV/Å³", f"{where}, stress")


def permutation(bench: Bench) -> Iterator[Measured]:
    """Atoms in another order."""
    rng = bench.rng("permutation")
    kinds = ("molecule", "crystal") if bench.few else ("molecule", "cluster", "crystal")
    for kind, base in bench.available(*kinds).items():
        point = bench.point(base)
        for order in (np.arange(len(base))[::-1], rng.permutation(len(base))):
            other = structures.reordered(base, order)
            expected = Point(point.energy, point.forces[order], point.stress)
            yield from compare(bench, base, other, expected, kind)


def translation(bench: Bench) -> Iterator[Measured]:
    """Everything moved by up to 10 Å."""
    rng = bench.rng("translation")
    kinds = ("molecule", "crystal") if bench.few else ("molecule", "crystal", "slab")
    for kind, base in bench.available(*kinds).items():
        for shift in rng.uniform(-10, 10, (2, 3)):
            other = structures.moved(base, base.positions + shift)
            yield from compare(bench, base, other, bench.point(base), kind)


def wrap(bench: Bench) -> Iterator[Measured]:
    """Atoms moved by lattice vectors, and the same lattice by other vectors, left-handed ones included."""
    rng = bench.rng("wrap")
    for kind, base in bench.available("crystal", "slab").items():
        unwrapped = structures.moved(base, base.positions + structures.lattice_shifts(base, rng))
        vectors = base.cell.copy()
        vectors[1] += 2 * vectors[0]
        skewed = structures.moved(base, base.positions, vectors)
        mirrored = structures.moved(base, base.positions, base.cell[[1, 0, 2]])
        cases = ((unwrapped, "images"), (skewed, "cell vectors"), (mirrored, "order of cell vectors"))
        for other, what in cases:
            yield from compare(bench, base, other, bench.point(base), f"{kind}, other {what}")


def vacuum(bench: Bench) -> Iterator[Measured]:
    """A slab does not feel the vector along which it is not periodic, be it short, long, askew or zero."""
    base = bench.structure("slab")
    thickness = float(np.ptp(base.positions @ base.cell[2])) / float(np.linalg.norm(base.cell[2]))
    normal = base.cell[2] / np.linalg.norm(base.cell[2])
    third = {f"{times:g} thicknesses": times * thickness * normal for times in VACUUMS}
    third["askew"] = base.cell[2] + 0.7 * base.cell[0] - 0.4 * base.cell[1]
    third["zero"] = np.zeros(3)
    for name, vector in third.items():
        other = structures.moved(base, base.positions, np.stack([*base.cell[:2], vector]))
        try:
            yield from compare(bench, base, other, bench.point(base), f"slab, third vector {name}")
        except (ValueError, NotImplementedError) as error:
            if name != "zero":  # to want a vector is not a defect; to be changed by it is
                raise
            yield Measured(0, 0, "eV", f"slab, third vector zero is refused: {error}")


def charge(bench: Bench) -> Iterator[Measured]:
    """A potential that says that charge does not matter does not feel it, or refuses a charged molecule."""
    if bench.potential.abilities.charge:
        raise NotApplicableError(f"{bench.potential.name} says that it feels charge")
    base = bench.structure("molecule")
    for total in (1, -1):
        where = f"molecule with charge {total:+d}"
        try:
            yield from compare(bench, base, structures.charged(base, total), bench.point(base), where)
        except (ValueError, NotImplementedError) as error:
            yield Measured(0, 0, "eV", f"{where} is refused: {error}")


def charge_felt(bench: Bench) -> Iterator[Measured]:
    """A potential that says that charge matters to it gives a charged molecule another energy."""
    if not bench.potential.abilities.charge:
        raise NotApplicableError(f"{bench.potential.name} says that charge does not matter to it")
    base = bench.structure("molecule")
    energies = [bench.point(structures.charged(base, total)).energy for total in (0, 1, -1)]
    same = [total for total, e in zip((1, -1), energies[1:], strict=True) if e == energies[0]]
    yield Measured(
        len(same), 0, "ignored", f"molecule with charge {', '.join(f'{t:+d}' for t in same or (1, -1))}"
    )


def supercell(bench: Bench) -> Iterator[Measured]:
    """Per cell, a supercell has the energy and forces of its cell."""
    for kind, base in bench.available("crystal", "slab").items():
        point = bench.point(base)
        for times in SUPERCELLS[kind][: 1 if bench.few else None]:
            n = int(np.prod(times))
            expected = Point(point.energy, np.tile(point.forces, (n, 1)), point.stress)
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
    """Yield how far two things far apart are from adding up; far from the origin positions are rounded."""
    one, two = bench.point(first), bench.point(second)
    low = FAR_TOLERANCE if bench.precision == "double" else SYMMETRY["single"]
    for distance in FAR[bench.precision == "single" :]:
        both = structures.apart(first, second, distance)
        try:
            (found,) = bench.points([both])
        except ValueError:
            if distance == FAR[-1]:
                raise
            continue
        what = f"{where}, {distance:g} Å apart"
        energy = abs(found.energy - one.energy - two.energy)
        force = float(np.abs(found.forces - np.concatenate([one.forces, two.forces])).max())
        rough = bench.floor(bench.reference).roughness
        if not (energy <= low + MARGIN * rough[0] and force <= low + MARGIN * rough[1]):
            here = bench.floor(both).roughness
            rough = max(rough[0], here[0]), max(rough[1], here[1])
        yield Measured(energy, low + MARGIN * rough[0], "eV", what)
        yield Measured(force, low + MARGIN * rough[1], "eV/Å", what)
        return


def batching(bench: Bench) -> Iterator[Measured]:
    """Structures of all kinds in one batch have the energies and forces they have alone."""
    names = ("molecule", "crystal") if bench.few else ("molecule", "crystal", "cluster")
    kinds = bench.available(*names)
    systems = [*kinds.values(), *(() if bench.few else reversed(kinds.values()))]
    if "molecule" in kinds:
        systems.insert(1, structures.system([bench.elements[0]], np.zeros((1, 3))))
    together = bench.points(systems, together=True, failing=True)
    for system, found in zip(systems, together, strict=True):
        where = f"structure of {len(system)} atoms in a batch of {len(systems)}"
        base = system if len(system) > 1 else bench.reference
        (alone,) = bench.points([system], together=True, failing=True)
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
    for kind, base in bench.available("molecule", "crystal").items():  # also where this check is made alone
        far = structures.lattice_shifts(base, bench.rng("untouched")) if kind == "crystal" else 0.0
        bench.points([structures.moved(base, base.positions + far)])
    touched = bench.mutated + bench.potential.meddled
    yield Measured(touched, 0, "calls", f"{bench.evaluations} evaluations")


def net_force(bench: Bench) -> Iterator[Measured]:
    """The forces add up to zero: momentum is conserved."""
    kinds = ("molecule", "crystal") if bench.few else ("molecule", "cluster", "crystal", "slab")
    for kind, base in bench.available(*kinds).items():
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
        yield from compare(bench, base, other, Point(point.energy, point.forces @ turn.T, None), where)


def torque(bench: Bench) -> Iterator[Measured]:
    """The torques add up to zero: angular momentum is conserved."""
    kinds = ("molecule",) if bench.few else ("molecule", "cluster")
    for kind, base in bench.available(*kinds).items():
        arms = base.positions - base.positions.mean(axis=0)
        total = np.abs(np.cross(arms, bench.point(base).forces).sum(axis=0)).max()
        tolerance = bench.tolerances(base)[1] * float(np.linalg.norm(arms))
        yield Measured(float(total), tolerance, "eV", kind)
