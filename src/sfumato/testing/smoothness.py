"""Checks that energy, force and the slope of the force do not jump: at a swap, a cutoff, a changed rank.

Where a swap of neighbors happens is known beforehand, so the stencil is put across it. Where an edge of
the graph ends is not: a path is searched, the most suspicious intervals are bisected, and the stencil is put
across what is left. A jump is what stays while the stencil shrinks; what is merely steep goes away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.models.pair import bond_length
from sfumato.systems import Floats, Ints, System
from sfumato.testing import structures
from sfumato.testing.bench import MARGIN, Bench, along
from sfumato.testing.numerics import JUMP_NOISE, SLOPE_NOISE, STENCIL, bisect, jumps, suspects
from sfumato.testing.result import Measured, NotApplicableError

LIMITS = (1e-10, 1e-8, 1e-5)
"""Jumps of the energy in eV, of a force in eV/Å, of its slope along the path in eV/Å²."""

WHAT = ("energy", "force", "slope of the force")
UNITS = ("eV", "eV/Å", "eV/Å²")

HALVINGS = 6
"""Times the stencil is halved before what is left counts as a jump."""

SETTLED = 0.05
"""A jump that changes by less than this while the stencil is quartered need not be looked at more closely."""

STAYS = 0.3
"""A jump stays when the stencil is quartered; a kink leaves 0.25 of itself, a smooth function less."""

CURVATURE = 1e3
"""eV/Å⁴, third derivative of a stiff bond's force: sets the width at which noise and curvature balance."""

BESIDE = 0.02
"""Å from a jump, where the noise is measured that it must exceed."""

CLOSE = 0.3
"""Å; a neighbor is moved by no more than this to exchange places with the one before it."""

ROOM = 0.85
"""Of a bond; no atom is moved closer to another than this."""

CENTRES = 4
"""Atoms whose neighbors are exchanged, chosen so that together they cover most ranks."""

SUSPECTS = 2
"""Intervals that are looked at closely because of the forces; one more because of the energy."""

ZOOM = 21
"""Points on five intervals around a suspect: a kink shows in a fine grid before it can be bisected."""

FREE, LONGEST = 1.2, 2.0
"""Å; a part of a cluster is moved by this much at least, if any has the room, and at most."""

DIRECTIONS = 64
"""Tried for each part."""

NEAREST = 1.5
"""Å; no closer than this to another part that was farther away, for electrons that have to converge."""

EXPLAINED = 1e-3
"""Å; a jump with a pair at a known cutoff, to within this, is that cutoff's."""

START = 1.6
"""Å, or 1.1 bonds where that is longer: the search for cutoffs begins there."""


@dataclass(frozen=True)
class Path:
    """A straight line through structures: base + s · direction.

    Args:
        base: the structure at s = 0.
        direction: (N, 3); every atom that moves does so by one Å for each Å of s.
    """

    base: System
    direction: Floats

    def at(self, s: float) -> System:
        """Return the structure at s."""
        return along(self.base, self.direction, s)


@dataclass(frozen=True)
class Jump:
    """What is left of the discontinuity at one place.

    Args:
        sizes: of energy, force and slope of the force.
        tolerances: of the same.
        stays: which of them neither vanish with the stencil nor are within the tolerance.
    """

    sizes: tuple[float, float, float]
    tolerances: tuple[float, float, float]
    stays: tuple[bool, bool, bool]

    def measured(self, where: str) -> Iterator[Measured]:
        """Yield the three sizes; what fades with the stencil is no jump, its limit is zero."""
        for k, (size, tolerance) in enumerate(zip(self.sizes, self.tolerances, strict=True)):
            fades = size > tolerance and not self.stays[k]
            yield Measured(0.0 if fades else size, tolerance, UNITS[k], f"{where}: jump of the {WHAT[k]}")


def narrow(force_noise: float) -> float:
    """Return the width in Å at which noise and curvature contribute alike to a jump of the force."""
    return float(np.clip((force_noise / CURVATURE) ** (1 / 3), 1e-5, 1e-2))


def jump_at(bench: Bench, path: Path, s: float, reference: System) -> Jump:
    """Measure the jump of energy, force and slope of the force at one place of a path.

    Args:
        bench: the potential.
        path: the structures.
        s: the place.
        reference: structure whose noise counts; before a jump is found, also the noise just beside it.
    """
    rough = bench.floor(reference).roughness
    jump = _jump(bench, path, s, rough)
    if any(jump.stays):
        here = bench.floor(path.at(s - BESIDE)).roughness
        if here[0] > rough[0] or here[1] > rough[1]:
            jump = _jump(bench, path, s, (max(here[0], rough[0]), max(here[1], rough[1])))
    return jump


def _jump(bench: Bench, path: Path, s: float, rough: tuple[float, float]) -> Jump:
    """Return the jump judged by a roughness of energy (eV) and force (eV/Å)."""
    width = 4 * narrow(rough[1])
    history: list[tuple[float, float, float]] = []
    for _ in range(HALVINGS + 1):
        points = bench.points([path.at(s + width * offset) for offset in STENCIL])
        energy, _ = jumps(np.array([p.energy for p in points]), width)
        force, slope = jumps(np.array([p.forces for p in points]), width)
        history.append((energy, force, slope))
        noise = (JUMP_NOISE * rough[0], JUMP_NOISE * rough[1], SLOPE_NOISE * rough[1] / width)
        tolerances = tuple(low + MARGIN * sigma for low, sigma in zip(LIMITS, noise, strict=True))
        over = [not size <= limit for size, limit in zip(history[-1], tolerances, strict=True)]
        if not any(over) or _settled(history, over):
            break
        width /= 2
    before = history[-3] if len(history) > 2 else (0.0,) * 3
    stays = tuple(o and not size <= STAYS * old for o, size, old in zip(over, history[-1], before))
    return Jump(history[-1], tolerances, stays)  # type: ignore[arg-type]


def _settled(history: Sequence[tuple[float, float, float]], over: Sequence[bool]) -> bool:
    """Return whether a jump that matters was the same for three widths of the stencil."""
    last = np.array(history[-3:])[:, list(over)]
    return len(last) == 3 and bool((np.ptp(last, axis=0) <= SETTLED * last.max(axis=0)).any())


# --- a swap of neighbors


@dataclass(frozen=True)
class Swap:
    """Two neighbors of one atom about to exchange places: `mover` goes out past `other`.

    Args:
        center: the atom that ranks them.
        mover: the nearer one, which moves since a stretched bond is softer than a compressed one.
        other: the next one out, which stays.
        rank: of the mover, from 1.
    """

    center: int
    mover: int
    other: int
    rank: int


def swaps_of(base: System, center: int) -> list[Swap]:
    """Return the neighboring ranks of one atom that a small move exchanges."""
    distance = np.linalg.norm(base.positions - base.positions[center], axis=1)
    order: Ints = np.argsort(distance)
    every = [Swap(center, int(order[k]), int(order[k + 1]), k) for k in range(1, len(order) - 1)]
    near = [swap for swap in every if distance[swap.other] - distance[swap.mover] < CLOSE]
    return [swap for swap in near if _has_room(swap_path(base, [swap]).base, swap.mover)]


def _has_room(system: System, atom: int) -> bool:
    others = np.arange(len(system)) != atom
    distance = np.linalg.norm(system.positions[others] - system.positions[atom], axis=1)
    return bool((distance > ROOM * bond_length(system.numbers[others], system.numbers[atom])).all())


def chosen_swaps(base: System) -> list[Swap]:
    """Return the swaps of a few atoms that together cover the most ranks."""
    every = [swaps_of(base, center) for center in range(len(base))]
    chosen: list[Swap] = []
    for _ in range(CENTRES):
        covered = {swap.rank for swap in chosen}
        best = max(every, key=lambda swaps: len({swap.rank for swap in swaps} - covered))
        if {swap.rank for swap in best} <= covered:
            break
        chosen += best
    return chosen


def swap_path(base: System, swaps: Sequence[Swap]) -> Path:
    """Return the path on which every mover is as far out as the other at s = 0."""
    positions, direction = base.positions.copy(), np.zeros_like(base.positions)
    for swap in swaps:
        center = base.positions[swap.center]
        goal = np.linalg.norm(base.positions[swap.other] - center)
        arm = base.positions[swap.mover] - center
        arm /= np.linalg.norm(arm)
        positions[swap.mover] = center + goal * arm
        direction[swap.mover] = arm
    return Path(structures.moved(base, positions), direction)


def neighbor_swap(bench: Bench) -> Iterator[Measured]:
    """Two neighbors of an atom exchange their order: every rank at once, one by one if that jumps."""
    base = bench.structure("cluster")
    swaps = chosen_swaps(base)
    if not swaps:
        raise NotApplicableError("no two neighbors are close enough in distance to be exchanged")
    ranks = sorted({swap.rank for swap in swaps})
    for center in dict.fromkeys(swap.center for swap in swaps):
        for parity in (0, 1):  # no atom may be mover of one swap and partner of the next
            group = [swap for swap in swaps if swap.center == center and swap.rank % 2 == parity]
            group = [swap for swap in group if _has_room(swap_path(base, group).base, swap.mover)]
            if not group:
                continue
            jump = jump_at(bench, swap_path(base, group), 0.0, base)
            where = f"{len(ranks)} ranks from {ranks[0]}/{ranks[0] + 1} to {ranks[-1]}/{ranks[-1] + 1}"
            if any(jump.stays):
                swap, jump = _culprit(bench, base, group, jump)
                where = _describe(base, swap)
            yield from jump.measured(where)
            if any(jump.stays):
                return


def _culprit(bench: Bench, base: System, swaps: Sequence[Swap], jump: Jump) -> tuple[Swap, Jump]:
    """Return the one swap of several that jumps, by halving; the first if it takes several together."""
    while len(swaps) > 1:
        half = len(swaps) // 2
        for part in (swaps[:half], swaps[half:]):
            found = jump_at(bench, swap_path(base, part), 0.0, base)
            if any(found.stays):
                swaps, jump = part, found
                break
        else:
            break
    return swaps[0], jump


def _describe(base: System, swap: Swap) -> str:
    from ase.data import chemical_symbols

    distance = np.linalg.norm(base.positions[swap.other] - base.positions[swap.center])
    return (
        f"neighbors {swap.rank} and {swap.rank + 1} of {chemical_symbols[base.numbers[swap.center]]} atom "
        f"{swap.center} exchange places at {distance:.3f} Å"
    )


# --- paths that are searched


def search(bench: Bench, path: Path, places: Floats, reference: System) -> Iterator[tuple[float, Jump]]:
    """Yield the most suspicious places of a path and what jumps there.

    Args:
        bench: the potential.
        path: the structures.
        places: (M,) values of s, equidistant or a smooth function of something that is.
        reference: structure whose noise counts.
    """
    scale = np.add(LIMITS[:2], bench.floor(reference).roughness)

    def evaluate(at: Sequence[float]) -> list[Floats]:
        points = bench.points([path.at(s) for s in at])
        return [np.concatenate([[p.energy / scale[0]], p.forces.ravel() / scale[1]]) for p in points]

    values = evaluate(list(places))
    grid = np.array(values)
    if not np.isfinite(grid).all():
        first = int(np.argmin(np.isfinite(grid).all(axis=1)))
        yield float(places[first]), Jump((np.nan,) * 3, LIMITS, (True,) * 3)
        return
    chosen = [*suspects(grid[:, 1:], 1.0, SUSPECTS), *suspects(grid[:, :1], 1.0, 1)]
    width = narrow(bench.floor(reference).roughness[1])
    for n, k in enumerate(chosen):
        if all(abs(k - other) > 2 for other in chosen[:n]):
            finer = np.linspace(places[k - 2], places[k + 3], ZOOM)
            near = [values[k - 2], *evaluate(finer[1:-1].tolist()), values[k + 3]]
            (best,) = suspects(np.array(near)[:, 1:], 1.0, 1)
            s = bisect(evaluate, finer, near, best, width / 16)
            yield s, jump_at(bench, path, s, reference)


def cutoff(bench: Bench) -> Iterator[Measured]:
    """Atoms of a pair, or one of three atoms, pulled apart: no step where the graph loses an edge."""
    left_out: list[str] = []
    searched = False
    for base, name in _few_atoms(bench.elements):
        start = max(START, 1.1 * structures.bond(*base.numbers[-2:].tolist()))
        grid = (np.arange(bench.settings.points) - 2) / (bench.settings.points - 5)
        direction = np.zeros_like(base.positions)
        direction[-1, 1] = 1.0
        path = Path(base, direction)
        # In equal ratios, since potentials are steep where atoms are close; two points at each end only help.
        places = start * (bench.settings.reach / start) ** grid
        try:
            found = list(search(bench, path, places, bench.reference))
        except RuntimeError as error:  # a self-consistent field that fails for loose atoms has no jump
            left_out.append(f"{name} raised {error}")
            continue
        for s, jump in found:
            pairs = _moving_distances(path, s)
            if any(jump.stays):
                bench.cutoffs += pairs.tolist()
            distances = " and ".join(f"{r:.6g}" for r in pairs)
            yield from jump.measured(f"{name} at {distances} Å")
            searched = True
    if not searched:
        raise NotApplicableError("; ".join(left_out))


def _few_atoms(elements: Sequence[int]) -> Iterator[tuple[System, str]]:
    """Yield pairs and triples of like atoms; the last one, at the origin, is to be pulled along y."""
    from ase.data import chemical_symbols

    for z in dict.fromkeys(elements[:2]):
        symbol = chemical_symbols[z]
        yield structures.system([z, z], np.zeros((2, 3))), f"{symbol}–{symbol}"
    z, symbol = elements[0], chemical_symbols[elements[0]]
    pair = 1.1 * structures.bond(z, z)
    triple = np.array([[-0.4 * pair, 0, 0], [0.6 * pair, 0, 0.1], [0, 0, 0]])
    yield structures.system([z] * 3, triple), f"{symbol}₂–{symbol}"


def _moving_distances(path: Path, s: float) -> Floats:
    """Return the distances in Å between what moves on a path and what does not."""
    moves = np.abs(path.direction).any(axis=1)
    positions = path.at(s).positions
    gaps = positions[moves][:, None] - positions[~moves][None]
    distances: Floats = np.linalg.norm(gaps, axis=-1).ravel()
    return distances


def third_atom(bench: Bench) -> Iterator[Measured]:
    """A fragment slides through a cluster and changes the ranks of others, which lose and gain edges."""
    base = bench.structure("cluster")
    path, length = sliding(base, structures.fragments(base, bench.elements), bench.rng("slide"))
    explained = 0
    for s, jump in search(bench, path, np.linspace(0, length, 2 * bench.settings.points // 3), base):
        distances = _moving_distances(path, s)
        if any(jump.stays) and any((np.abs(distances - r) < EXPLAINED).any() for r in bench.cutoffs):
            explained += 1
            continue
        atom = int(np.argmax(np.abs(path.direction).any(axis=1)))
        yield from jump.measured(f"atom {atom} moved by {s:.4f} Å")
    if explained:
        yield Measured(0, LIMITS[0], UNITS[0], f"{explained} jumps, each at a cutoff found before")


def sliding(base: System, parts: Sequence[Ints], rng: np.random.Generator) -> tuple[Path, float]:
    """Return a path on which one part of a cluster has room to move, and its length in Å.

    The innermost part that can go `FREE` is taken, since the order of many neighbors changes around it.
    """
    arms = rng.normal(size=(DIRECTIONS, 3))
    arms /= np.linalg.norm(arms, axis=1)[:, None]
    best: tuple[float, Ints, Floats] = (-1.0, parts[0], arms[0])
    for part in parts:
        length, arm = max(((_room(base, part, arm), arm) for arm in arms), key=lambda found: found[0])
        if length > best[0]:
            best = (length, part, arm)
        if length >= FREE:
            break
    direction = np.zeros_like(base.positions)
    direction[best[1]] = best[2]
    return Path(base, direction), best[0]


def _room(base: System, part: Ints, arm: Floats) -> float:
    """Return how far in Å some atoms can go before they come too close to another, at most `LONGEST`."""
    others = np.setdiff1d(np.arange(len(base)), part)
    bonds = bond_length(base.numbers[part][:, None], base.numbers[others][None])
    steps = np.linspace(0, LONGEST, 21)[:, None, None]
    going = (base.positions[part] + steps * arm)[:, :, None]
    distance = np.linalg.norm(going - base.positions[others], axis=-1)
    nearest = min(NEAREST, 0.9 * float(distance[0].min()))
    blocked = (distance < np.maximum(ROOM * bonds, nearest)).any(axis=(1, 2))
    return LONGEST if not blocked.any() else float(steps[max(int(np.argmax(blocked)) - 1, 0), 0, 0])
