"""Point defects of elemental crystals: vacancies, interstitials of diamond lattices, and their hops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase.geometry import get_distances

from sfumato.systems import Floats, System

DIAMOND = np.array(
    [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]], dtype=float
)
"""Quarters of a cubic cell at which the atoms of a diamond lattice lie."""

INTERSTITIALS = ("split", "tetrahedral", "hexagonal")

KINDS = ("vacancy", *INTERSTITIALS)

HOPS = ("vacancy", "interstitial")

NEAR = 0.02
"""Of a cell, by which an atom may be off its place in a diamond lattice."""

DUMBBELL, SUNK = 0.225, 0.12
"""Edges of a cubic cell: half the length of a ⟨110⟩ pair, and how far it lies below its site along ⟨001⟩,
away from the two neighbors that its atoms point at, before it relaxes."""

BROKEN = 0.05
"""Å, root mean square displacement of a coordinate that frees a vacancy from a symmetry it would not keep."""


def supercell(crystal: System, repeat: int) -> System:
    """Return a crystal repeated as often along each axis; its own atoms come first."""
    steps = np.stack(np.meshgrid(*[np.arange(repeat)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = (crystal.positions[None] + (steps @ crystal.cell)[:, None]).reshape(-1, 3)
    return replace(
        crystal, numbers=np.tile(crystal.numbers, len(steps)), positions=positions, cell=crystal.cell * repeat
    )


def is_diamond(crystal: System) -> bool:
    """Return whether a structure is the cubic cell of a diamond lattice, wherever its origin is."""
    if len(crystal) != len(DIAMOND) or len(set(crystal.numbers.tolist())) > 1:
        return False
    share = (crystal.positions - crystal.positions[0]) @ np.linalg.inv(crystal.cell)
    return any(_same(share, sign * DIAMOND / 4) for sign in (1, -1))


def _same(share: Floats, expected: Floats) -> bool:
    off = share[:, None] - expected[None]
    nearest = np.abs(off - np.rint(off)).max(axis=2).min(axis=1)
    return bool((nearest < NEAR).all())


def kinds_of(crystal: System) -> tuple[str, ...]:
    """Return the defects that can be made in a crystal."""
    return KINDS if is_diamond(crystal) else KINDS[:1]


def hops_of(crystal: System) -> tuple[str, ...]:
    """Return the hops that can be made in a crystal."""
    return HOPS if is_diamond(crystal) else HOPS[:1]


def with_defect(crystal: System, repeat: int, kind: str) -> System:
    """Return a supercell with one defect, not relaxed.

    Args:
        crystal: the perfect crystal of one element; for interstitials the cubic cell of a diamond lattice.
        repeat: of the crystal along each axis.
        kind: one of `KINDS`.

    Raises:
        ValueError: an unknown defect, or an interstitial in another lattice.
    """
    _require(crystal, kind, KINDS)
    perfect = supercell(crystal, repeat)
    if kind == "vacancy":
        return _without(_displaced(perfect), 0)
    if kind != "split":
        return _with(perfect, _place(crystal, {"tetrahedral": 0.5, "hexagonal": 0.625}[kind]))
    along = DUMBBELL * (crystal.cell[0] + crystal.cell[1]) / np.sqrt(2)
    middle = perfect.positions[0] - _side(crystal) * SUNK * crystal.cell[2]
    positions = perfect.positions.copy()
    positions[0] = middle + along
    return _with(replace(perfect, positions=positions), middle - along)


def hop_ends(crystal: System, repeat: int, hop: str) -> tuple[System, System]:
    """Return a supercell before and after a hop, not relaxed; the atoms are in the same order.

    Args:
        crystal: as for `with_defect`.
        repeat: of the crystal along each axis.
        hop: "vacancy", into which a nearest neighbor goes, or "interstitial", which goes from a tetrahedral
            site through a hexagonal one to the next.

    Raises:
        ValueError: an unknown hop, or an interstitial in another lattice.
    """
    _require(crystal, hop, HOPS)
    perfect = supercell(crystal, repeat)
    if hop == "interstitial":
        return _with(perfect, _place(crystal, 0.5)), _with(perfect, _place(crystal, 0.75))
    vectors, distances = get_distances(
        perfect.positions[:1], perfect.positions[1:], cell=perfect.cell, pbc=True
    )
    mover = 1 + int(np.argmin(np.round(distances[0], 6)))
    first = _displaced(perfect)
    moved = first.positions.copy()
    moved[mover] -= vectors[0, mover - 1]
    return _without(first, 0), _without(replace(first, positions=moved), 0)


def _displaced(perfect: System) -> System:
    """Return a structure with small displacements, always the same, and no symmetry left."""
    off = np.random.default_rng(0).normal(0.0, BROKEN, size=perfect.positions.shape)
    return replace(perfect, positions=perfect.positions + off)


def _require(crystal: System, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise ValueError(f"no defect {word!r}; there are {', '.join(known)}")
    if word != "vacancy" and not is_diamond(crystal):
        raise ValueError(f"{word}: interstitials are known for the cubic cell of a diamond lattice only")


def _side(crystal: System) -> int:
    """Return 1 where the first atom has a neighbor along [111], −1 where it has one along the opposite."""
    share = (crystal.positions - crystal.positions[0]) @ np.linalg.inv(crystal.cell)
    return 1 if _same(share, DIAMOND / 4) else -1


def _place(crystal: System, share: float) -> Floats:
    """Return a place on the diagonal of the cell, seen from its first atom towards its neighbor."""
    return np.asarray(crystal.positions[0] + _side(crystal) * share * crystal.cell.sum(axis=0))


def _with(system: System, place: Floats) -> System:
    numbers = np.append(system.numbers, system.numbers[0])
    return replace(system, numbers=numbers, positions=np.vstack([system.positions, place]))


def _without(system: System, atom: int) -> System:
    keep = np.arange(len(system)) != atom
    return replace(system, numbers=system.numbers[keep], positions=system.positions[keep])
