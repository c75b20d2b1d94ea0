"""The structures of the contract: generic on purpose, no symmetry, no two distances alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from sfumato.models.pair import bond_length
from sfumato.systems import Bools, Floats, Ints, System

PALETTES: tuple[tuple[int, ...], ...] = (
    (1, 6, 7, 8),
    (1, 8),
    (6,),
    (14,),
    (13,),
    (29,),
    (18,),
    (11, 17),
    (1,),
    (2,),
)
"""Elements tried in turn for a potential that does not say which it knows."""

FORMAMIDE = np.array(
    [
        [0.00, 0.00, 0.00],
        [1.20, 0.10, 0.06],
        [-0.72, 1.15, 0.05],
        [-0.60, -0.93, 0.12],
        [-1.73, 1.13, -0.08],
        [-0.22, 2.03, 0.21],
    ]
)
"""Å: C O N H H H, bent a little out of its plane and away from its minimum."""

WATER = np.array([[0.00, 0.00, 0.00], [0.05, 0.78, 0.57], [0.02, -0.74, 0.66]])
"""Å: O H H, likewise."""

LUMP = np.array([[0, 0, 0], [1, 0.1, 0], [0.35, 0.98, 0.1], [0.45, 0.3, 0.93], [-0.55, 0.62, 0.71]])
"""Five places about one unit from each other."""

OFF_SITE = np.array([0.13, 0.065, 0.01])
"""Displacement of an atom in a crystal, in bonds, that makes its four bonds unlike by 0.1 Å and more."""

SHELL = 16
"""Hydrogen molecules around the molecule of a cluster."""

CLUSTER = 42
"""Atoms of a cluster without hydrogen: a close-packed sphere, one place beside the middle empty."""

JOINED = {(0, 4), (1, 5), (2, 6), (3, 7), (0, 1), (0, 2), (0, 3), (1, 6), (3, 5), (2, 7)}
"""Atoms of a lump that are neighbors: all ten pairs of four elements, k and k + 4 are of one element."""

LUMPED = 1.15
"""Bonds between those, and a little more between all others."""

TRIED, STRAINED = 10, 1e-4
"""Lumps that are relaxed from random places, until one has no more strain than this, in bonds²."""

FRAGMENT = 0.76
"""Å, bond of a hydrogen molecule."""


def system(numbers: Sequence[int] | Ints, positions: Floats, cell: Floats | None = None) -> System:
    """Return a neutral structure in its lowest spin state, periodic in three directions if it has a cell."""
    numbers = np.asarray(numbers)
    spin = 1 + int(numbers.sum()) % 2
    if cell is None:
        return System(numbers, positions, multiplicity=spin)
    return System(numbers, positions, cell, np.ones(3, dtype=bool), multiplicity=spin)


def moved(base: System, positions: Floats, cell: Floats | None = None) -> System:
    """Return a structure with other positions and, if given, another cell."""
    cell = base.cell if cell is None else cell
    return System(base.numbers, positions, cell, base.pbc, base.charge, base.multiplicity)


def reordered(base: System, order: Ints) -> System:
    """Return a structure with its atoms in another order."""
    fixed = (base.cell, base.pbc, base.charge, base.multiplicity)
    return System(base.numbers[order], base.positions[order], *fixed)


def charged(base: System, charge: int) -> System:
    """Return a structure with another total charge, in its lowest spin state."""
    spin = 1 + (int(base.numbers.sum()) - charge) % 2
    return System(base.numbers, base.positions, base.cell, base.pbc, charge, spin)


def apart(first: System, second: System, distance: float) -> System:
    """Return two molecules in one structure, the second moved away along x; their spins add up."""
    return System(
        np.concatenate([first.numbers, second.numbers]),
        np.concatenate([first.positions, second.positions + np.array([distance, 0, 0])]),
        multiplicity=first.multiplicity + second.multiplicity - 1,
    )


def bond(a: int, b: int) -> float:
    """Return the length of a typical bond in Å."""
    return float(bond_length(np.array(a), np.array(b)))


def molecule(elements: Sequence[int]) -> System:
    """Return formamide, water, or a lump of five atoms, from at most the elements given."""
    if {1, 6, 7, 8} <= set(elements):
        return system([6, 8, 7, 1, 1, 1], FORMAMIDE)
    if {1, 8} <= set(elements):
        return system([8, 1, 1], WATER)
    numbers = [elements[k % len(elements)] for k in range(len(LUMP))]
    return system(numbers, LUMP * 1.05 * max(bond(a, b) for a in elements for b in elements))


def fragment(elements: Sequence[int]) -> System:
    """Return something small and closed: a hydrogen molecule, or one atom."""
    if 1 in elements:
        return system([1, 1], np.array([[0, 0, 0], [FRAGMENT, 0, 0]]))
    return system([elements[0]], np.zeros((1, 3)))


def cluster(elements: Sequence[int], rng: np.random.Generator) -> System:
    """Return about forty atoms, each with most others as neighbors.

    Hydrogen molecules around a molecule where the elements allow it, since they stay what they are when
    moved; otherwise a close-packed sphere of atoms, each a little out of place.
    """
    if not {1, 8} <= set(elements):
        longest = max(bond(a, b) for a in elements for b in elements)
        steps = np.array(list(np.ndindex(7, 7, 7))) - 3
        sites = steps[steps.sum(axis=1) % 2 == 0] / np.sqrt(2)
        sites = sites[np.argsort(np.linalg.norm(sites, axis=1), kind="stable")]
        sites = np.delete(sites, 1, axis=0)[:CLUSTER]
        numbers = [elements[k % len(elements)] for k in range(CLUSTER)]
        return system(numbers, 1.12 * longest * (sites + rng.uniform(-0.06, 0.06, sites.shape)))
    core = molecule(elements)
    middle, centers = core.positions.mean(axis=0), np.zeros((0, 3))
    positions = core.positions
    while len(centers) < SHELL:
        place = middle + rng.uniform(-5, 5, 3)
        free = np.linalg.norm(core.positions - place, axis=1).min() > 2.7
        if free and (np.linalg.norm(centers - place, axis=1) > 2.6).all():
            centers = np.concatenate([centers, [place]])
    centers = centers[np.argsort(np.linalg.norm(centers - middle, axis=1))]
    for place in centers:
        half = FRAGMENT / 2 * rotation(rng)[0]
        positions = np.concatenate([positions, [place - half, place + half]])
    return system([*core.numbers.tolist(), *[1] * (2 * SHELL)], positions)


def fragments(base: System, elements: Sequence[int]) -> list[Ints]:
    """Return the atoms of each part of a cluster that can move by itself, innermost first."""
    size = len(fragment(elements))
    core = len(base) % size if not {1, 8} <= set(elements) else len(base) - 2 * SHELL
    parts = [np.arange(first, first + size) for first in range(core, len(base), size)]
    middle = base.positions.mean(axis=0)
    return sorted(parts, key=lambda part: float(np.linalg.norm(base.positions[part].mean(axis=0) - middle)))


def distances(base: System) -> Floats:
    """Return the distances in Å of all pairs of atoms."""
    i, j = np.triu_indices(len(base), 1)
    found: Floats = np.linalg.norm(base.positions[i] - base.positions[j], axis=1)
    return found


def lump(elements: Sequence[int], rng: np.random.Generator) -> System:
    """Return eight atoms, each element twice where there are four, in which any two elements are neighbors.

    So, dilated, it shows every pair of elements at every distance.
    """
    numbers = np.array([elements[k % 4 % len(elements)] for k in range(8)])
    i, j = np.triu_indices(len(numbers), 1)
    bonds = bond_length(numbers[i], numbers[j])
    joined = np.array([pair in JOINED for pair in zip(i.tolist(), j.tolist(), strict=True)])

    def strain(flat: Floats) -> tuple[float, Floats]:
        gaps = flat.reshape(-1, 3)[i] - flat.reshape(-1, 3)[j]
        r = np.linalg.norm(gaps, axis=1)
        off = np.where(joined, r / bonds - LUMPED, np.minimum(r / bonds - 1.1 * LUMPED, 0))
        gradient = np.zeros((len(numbers), 3))
        pull = (2 * off / bonds / r)[:, None] * gaps
        np.add.at(gradient, i, pull)
        np.add.at(gradient, j, -pull)
        return float((off**2).sum()), gradient.ravel()

    for _ in range(TRIED):
        found = minimize(strain, rng.normal(scale=1.5, size=3 * len(numbers)), jac=True, tol=1e-10)
        if found.fun < STRAINED:
            break
    return system(numbers, found.x.reshape(-1, 3))


def triples(elements: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return different elements of an angle: end, middle, end."""
    first, second, third, last = (elements[k % len(elements)] for k in range(4))
    return list(dict.fromkeys([(first, second, third), (first, last, first), (second, second, second)]))


def chain(elements: Sequence[int]) -> System:
    """Return four atoms, the ends of one element and the middle of another, with a torsion of 60°."""
    end, middle = elements[0], elements[-1]
    inner, outer = 1.05 * bond(middle, middle), 1.05 * bond(end, middle)
    arm = outer * np.array([-0.3, 0.954, 0.0])
    positions = [arm, [0, 0, 0], [inner, 0, 0], [inner - arm[0], 0.5 * arm[1], 0.866 * arm[1]]]
    return system([end, middle, middle, end], np.array(positions, dtype=float))


def four_neighbors(elements: Sequence[int]) -> tuple[System, Floats]:
    """Return an atom with four neighbors and one more, the last, and the direction from which that comes."""
    center, end = elements[1 % len(elements)], elements[0]
    corners = np.array([[1, 1, 1], [1, -1, -1.05], [-1, 1.04, -1], [-1.02, -1, 1]]) / np.sqrt(3)
    direction = np.array([0.62, 0.57, -0.54])  # through a face, a little beside its middle
    direction /= np.linalg.norm(direction)
    places = [np.zeros(3), *(1.03 * bond(center, end) * corners), 10 * direction]
    return system([center, *[end] * 5], np.array(places)), direction


def lines(elements: Sequence[int], rng: np.random.Generator) -> list[tuple[System, str]]:
    """Return three atoms exactly in line, with their names; the second is the middle one.

    The first three lie along an axis at whole eighths of an Å, so that not even rounding bends them.
    """
    from ase.data import chemical_symbols

    found = []
    askew = rotation(rng)[0]
    for (a, b, c), arm in zip(triples(elements), (np.array([1.0, 0, 0]), askew, askew), strict=False):
        near, far = (np.round(8 * stretch * bond(b, z)) / 8 for stretch, z in ((1.02, a), (1.07, c)))
        places = np.array([-near, 0.0, far])[:, None] * arm
        found.append((system([a, b, c], places), "–".join(chemical_symbols[z] for z in (a, b, c))))
    return found


def crystal(elements: Sequence[int], rng: np.random.Generator) -> System:
    """Return two atoms in a primitive zincblende cell, both out of place: smaller than any cutoff."""
    a, b = elements[1 % len(elements)], elements[-1]
    length = 1.02 * bond(a, b)
    side = 4 / np.sqrt(3) * length
    cell = side / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0.0]])
    positions = np.array([[0, 0, 0], side / 4 + length * OFF_SITE]) + rng.uniform(-0.02, 0.02, (2, 3))
    return system([a, b], positions, cell)


def slab(elements: Sequence[int], rng: np.random.Generator) -> System:
    """Return two layers of the crystal, periodic in two directions, with 15 Å along the third."""
    layers = repeated(crystal(elements, rng), (1, 1, 2))
    a, b = layers.cell[:2]
    normal = np.cross(a, b)
    cell = np.stack([a, b, 15 * normal / np.linalg.norm(normal)])
    positions = layers.positions + rng.uniform(-0.05, 0.05, layers.positions.shape)
    return System(
        layers.numbers, positions, cell, np.array([True, True, False]), multiplicity=layers.multiplicity
    )


def repeated(base: System, times: tuple[int, int, int]) -> System:
    """Return a supercell, image after image."""
    shifts = np.array(list(np.ndindex(*times))) @ base.cell
    positions = (shifts[:, None, :] + base.positions).reshape(-1, 3)
    numbers = np.tile(base.numbers, len(shifts))
    cell = base.cell * np.array(times)[:, None]
    return System(numbers, positions, cell, base.pbc, multiplicity=1 + int(numbers.sum()) % 2)


def rotation(rng: np.random.Generator) -> Floats:
    """Return a random rotation matrix; its rows are orthonormal."""
    matrix: Floats = Rotation.random(random_state=rng).as_matrix()
    return matrix


def lattice_shifts(base: System, rng: np.random.Generator) -> Floats:
    """Return (N, 3) a random lattice vector for every atom, of up to three cells along each direction."""
    periodic: Bools = base.pbc
    shifts: Floats = (rng.integers(-3, 4, (len(base), 3)) * periodic) @ base.cell
    return shifts
