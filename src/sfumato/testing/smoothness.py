"""Checks that nothing jumps where a graph changes: at a swap of neighbors, a cutoff, a changed rank.

Where a swap of neighbors happens is known beforehand, so the stencil is put across it. Where an edge of
the graph ends is not: paths are searched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from sfumato.metrics.jumps import Jump
from sfumato.reference.paths import Line, moving_distances
from sfumato.reference.swaps import CENTERS, Swap, chosen_swaps, groups_of, swap_path
from sfumato.systems import System
from sfumato.testing import structures
from sfumato.testing.bench import Bench
from sfumato.testing.jumps import Trip, jump_at, measured, search, searched
from sfumato.testing.paths import sliding
from sfumato.testing.result import Measured, NotApplicableError

START = 1.6
"""Å, or 1.1 bonds where that is longer: the search for cutoffs begins there."""


def neighbor_swap(bench: Bench) -> Iterator[Measured]:
    """Two neighbors of an atom exchange their order: every rank at once, one by one if that jumps."""
    base = bench.structure("cluster")
    swaps = chosen_swaps(base, 2 if bench.few else CENTERS)
    if not swaps:
        raise NotApplicableError("no two neighbors are close enough in distance to be exchanged")
    ranks = sorted({swap.rank for swap in swaps})
    for group in groups_of(base, swaps):
        jump = jump_at(bench, swap_path(base, group), 0.0, base)
        where = f"{len(ranks)} ranks from {ranks[0]}/{ranks[0] + 1} to {ranks[-1]}/{ranks[-1] + 1}"
        if any(jump.stays):
            swap, jump = _culprit(bench, base, group, jump)
            where = _describe(base, swap)
        yield from measured(jump, where)
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


def cutoffs_of(bench: Bench) -> list[float]:
    """Return the distances in Å at which pairs jump; they are searched for if that was not done before."""
    if bench.cutoffs is None:
        with suppress(Exception):  # a finding of the check itself
            list(cutoff(bench))
    return bench.cutoffs or []


def cutoff(bench: Bench) -> Iterator[Measured]:
    """Atoms of a pair, or one of three atoms, pulled apart: no step where the graph loses an edge."""
    bench.require_molecules()
    bench.cutoffs = []
    left_out: list[str] = []
    searched_any = False
    every = list(_few_atoms(bench.elements))
    for base, name in every[-2:-1] if bench.few else every:
        trip = _pulled(bench, base, name)
        try:
            found = list(search(bench, trip.path, trip.places, bench.reference))
        except (RuntimeError, NotApplicableError) as error:  # a self-consistent field fails for loose atoms
            left_out.append(f"{name}: {error}")
            continue
        searched_any = True
        for s, jump in found:
            if isinstance(jump, Measured):
                yield Measured(jump.value, jump.tolerance, jump.unit, f"{name}: {jump.where}")
                continue
            pairs, _, _ = moving_distances(trip.path, s)
            if any(jump.stays):
                bench.cutoffs += pairs.tolist()
            distances = " and ".join(f"{r:.6g}" for r in pairs)
            yield from measured(jump, f"{name} at {distances} Å")
    if not searched_any:
        raise NotApplicableError("; ".join(left_out))


def _pulled(bench: Bench, base: System, name: str) -> Trip:
    """Return the path on which the last atom goes away along y, in equal ratios: close atoms are steep."""
    start = max(START, 1.1 * structures.bond(*base.numbers[-2:].tolist()))
    grid = (np.arange(bench.count) - 2) / (bench.count - 5)  # two more at each end
    direction = np.zeros_like(base.positions)
    direction[-1, 1] = 1.0
    return Trip(name, Line(base, direction), start * (bench.settings.reach / start) ** grid, bench.reference)


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


def third_atom(bench: Bench) -> Iterator[Measured]:
    """A fragment slides through a cluster and changes the ranks of others, which lose and gain edges."""
    base = bench.structure("cluster")
    path, length = sliding(base, structures.fragments(base, bench.elements), bench.rng("slide"))
    atom = int(np.argmax(np.abs(path.direction).any(axis=1)))
    places = np.linspace(0, length, 2 * bench.count // 3)
    yield from searched(bench, [Trip(f"atom {atom} moved", path, places, base)], cutoffs_of)
