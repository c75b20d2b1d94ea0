"""The search for jumps of a surface: along a path, and where neighbors exchange places."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.jobs.surface import (
    DOUBLE_NOISE,
    INEXACT,
    RELATIVE,
    VARIES,
    OffPathError,
    Surface,
    UnpredictedError,
    finest,
    random_direction,
    sample,
)
from sfumato.jobs.tracks import Exchange, TrackJob, Trip
from sfumato.metrics import jumps
from sfumato.metrics.balance import balance
from sfumato.metrics.jumps import Curve, ForceHunt, Jump, Sample
from sfumato.metrics.noise import MARGIN
from sfumato.potentials.potential import Potential
from sfumato.reference.paths import Path
from sfumato.reference.swaps import Swap, swap_path
from sfumato.systems import Floats, System

LEAST = 1e-8
"""eV that may stay unexplained in an interval of a path: a thousandth of the smallest step looked for."""

MOST_ADDED = 800
"""Samples that are added to a path until its energy is explained."""

SUSPECTS = {"energy": 3, "force": 5}
"""Intervals that are halved for other reasons: of the energy where samples ran out, of the force always."""

FEWEST = 8
"""Samples that a path is searched with at least; where a potential fails the path is cut."""

MOST = 8
"""Places of one path that are measured; more add nothing to what is known of a potential."""

PROFILES = 3
"""Places of which the jump is also kept for intervals of all widths."""

WIDEST, WIDTHS = 0.02, 9
"""Å and number of these widths."""

BESIDE = 0.02
"""Å from a jump, where the noise is measured that it must exceed."""

LEAST_FELT = (1e-7, 1e-5, 1e-2)
"""eV, eV/Å and eV/Å²; smaller jumps nobody feels, and a self-consistent field, which is converged to 1e-6 or
so, scatters by as much where it is difficult."""

OFF = 3.0
"""Widths of the last stencil by which a place may be off, along the steepest of the directions in which atoms
move: a force that jumps there looks like a step of the energy by as much times its jump."""

Rough = tuple[float, float]
"""eV and eV/Å, how rough energy and force are without any jump."""


@dataclass(frozen=True)
class Search(TrackJob):
    """Jumps of energy, force and slope of the force, in double precision where the potential offers it.

    The payload of an item is a `Trip`, which is searched, or an `Exchange`, where it is known beforehand at
    which place something may jump.

    Args:
        seed: of the directions in which noise is measured.
    """

    seed: int = 0
    name: ClassVar[str] = "search"
    version: ClassVar[int] = 1

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """See `Job`."""
        surface = Surface(finest(potential))

        def one(item: Item) -> Record:
            start, track = time.perf_counter(), item.payload
            surface.evaluations = 0
            try:
                if isinstance(track, Exchange):
                    found = _exchange(surface, track, self.seed)
                else:
                    found = _trip(surface, track, self.seed)
            except UnpredictedError as error:
                return failed(item.key, str(error), seconds=time.perf_counter() - start)
            found |= {"dtype": surface.potential.abilities.dtype, "evaluations": surface.evaluations}
            return ok(item.key, seconds=time.perf_counter() - start, **found)

        return each(chunk, one)


def _trip(surface: Surface, trip: Trip, seed: int) -> dict[str, Any]:
    """Search a path, or the longest part of it on which the potential has an answer everywhere."""
    path = trip.path()
    grid, reason = _sampled(surface, path, trip.places)
    while True:
        try:
            found = _searched(surface, path, grid, seed)
        except OffPathError as error:
            reason = str(error)
            sides = [s for s in grid if s.place < error.place], [s for s in grid if s.place > error.place]
            grid = max(sides, key=len)
            if len(grid) < FEWEST:
                raise
        else:
            return found | {"lost": len(trip.places) - len(grid), "reason": reason}


def _searched(surface: Surface, path: Path, grid: list[Sample], seed: int) -> dict[str, Any]:
    noise, inexact = _roughness(surface, path, grid, seed)
    rough = max(noise[0], VARIES * inexact), max(noise[1], inexact)
    facts = {"noise": list(noise), "inexact": inexact}
    facts |= {"floor": list(jumps.tolerances_of(rough, 4 * jumps.narrow(rough[1])))}
    if not _responds(grid, noise):
        return facts | {"responds": False, "jumps": [], "samples": encode(_columns(grid))}
    curve = surface.curve(path)
    places, samples, left_over, exhausted = _suspicious(curve, grid, rough)
    found = [(s, _measured(surface, curve, path, s, rough, seed)) for s in places[:MOST]]
    real = sorted((pair for pair in found if any(pair[1].stays)), key=lambda pair: _weight(pair[1]))
    return facts | {
        "responds": True,
        "samples": encode(_columns(samples)),
        "left_over": left_over,
        "exhausted": exhausted,
        "suspected": len(places),
        "measured": len(found),
        "jumps": [_entry(curve, s, jump, k < PROFILES) for k, (s, jump) in enumerate(real)],
    }


def _sampled(surface: Surface, path: Path, places: Floats) -> tuple[list[Sample], str]:
    """Return the longest run of samples without a failure, and why it does not have all places."""
    energy, forces, failures = surface.ask([path.at(float(s)) for s in places])
    fine = np.array([k not in failures for k in range(len(places))])
    runs = np.split(np.arange(len(places)), np.flatnonzero(np.diff(fine)) + 1)
    best = max((run for run in runs if fine[run[0]]), key=len, default=np.zeros(0, dtype=int))
    reason = next(iter(failures.values())).reason if failures else ""
    if len(best) < FEWEST:
        raise UnpredictedError(reason or f"a path needs {FEWEST} places")
    grid = [sample(path, float(places[k]), float(energy[k]), forces[k]) for k in best]
    return grid, reason


def _roughness(
    surface: Surface, path: Path, grid: Sequence[Sample], seed: int
) -> tuple[tuple[float, float], float]:
    """Return the noise in eV and eV/Å at two places of a path, and eV/Å by which the force is inexact."""
    noise, inexact, error = (0.0, 0.0), 0.0, None
    for part in (1, 3):
        base = path.at(grid[part * len(grid) // 4].place)
        direction = random_direction(base, seed, "noise")
        try:
            here = surface.noise(base, direction)
            inexact = max(inexact, _inexact(surface, base, direction, here))
        except UnpredictedError as raised:  # beside the path; the other place will do
            if error is not None:
                raise
            error = raised
        else:
            noise = max(noise[0], here[0]), max(noise[1], here[1])
    return noise, inexact


def _inexact(surface: Surface, base: System, direction: Floats, noise: Rough) -> float:
    """Return eV/Å by which, beyond noise, the force misses the gradient; a wrong force counts as little."""
    slope = surface.slope(base, direction, max(noise) <= DOUBLE_NOISE)
    _, (force,) = surface.values([base])
    work = float((force * direction).sum())
    miss = abs(slope.value + work) - MARGIN * (noise[0] / slope.step + noise[1])
    scale = max(float(np.abs(force).max()), abs(slope.value), 1e-3)
    return float(np.clip(miss, 0.0, min(INEXACT, RELATIVE * scale)))


def _responds(grid: Sequence[Sample], noise: Rough) -> bool:
    energy = float(np.ptp([s.energy for s in grid]))
    forces = float(np.ptp([s.forces for s in grid], axis=0).max())
    return energy > MARGIN * noise[0] or forces > MARGIN * noise[1]


def _columns(samples: Sequence[Sample]) -> Floats:
    """Return (M, 3) place, energy and power."""
    return np.array([[s.place, s.energy, s.power] for s in samples])


def _suspicious(
    curve: Curve, grid: list[Sample], rough: Rough
) -> tuple[list[float], list[Sample], float, bool]:
    """Return the places where something may jump, all samples, and how far the energy is explained."""
    narrowest = jumps.narrow(rough[1]) / 16
    limit, drift = LEAST + 2 * MARGIN * rough[0], MARGIN * rough[1]
    books = balance(curve, grid, limit, drift, narrowest, MOST_ADDED)
    force_limit = jumps.LIMITS[1] + 2 * MARGIN * rough[1]
    deep = [_hunt_at(books.samples, place, force_limit) for place in books.deep]
    jumps.narrowed(curve, [hunt for hunt in deep if hunt], narrowest)
    most = (SUSPECTS["energy"] if books.exhausted else 0, SUSPECTS["force"])
    found = [hunt for hunt in deep if hunt] + jumps.hunts(curve, grid, rough, drift, most)
    places = books.open + [hunt.middle for hunt in found if not hunt.smooth]
    apart: list[float] = []
    for place in places:
        if all(abs(place - other) > 16 * narrowest for other in apart):
            apart.append(place)
    return apart, books.samples, books.left_over, books.exhausted


def _hunt_at(samples: Sequence[Sample], place: float, limit: float) -> ForceHunt | None:
    """Return a hunt that starts around a place; None too near an end of the path."""
    k = int(np.searchsorted([sample.place for sample in samples], place)) - 1
    return ForceHunt(samples, k, limit) if 2 <= k <= len(samples) - 5 else None


def _measured(surface: Surface, curve: Curve, path: Path, s: float, rough: Rough, seed: int) -> Jump:
    """Return what jumps at a place, judged also by the noise just beside it."""
    jump = jumps.jump_at(curve, s, rough)
    if any(jump.stays):
        base = path.at(s - BESIDE)
        try:
            here = surface.noise(base, random_direction(base, seed, "noise"), BESIDE)
        except UnpredictedError:
            return jump
        if here[0] > rough[0] or here[1] > rough[1]:
            jump = jumps.jump_at(curve, s, (max(here[0], rough[0]), max(here[1], rough[1])))
    return replace(jump, stays=_felt(jump))


def _felt(jump: Jump) -> tuple[bool, bool, bool]:
    """Return which sizes of a jump are large enough to be felt, and no artifacts of its place."""
    energy, force, slope = jump.sizes
    large = (
        energy >= LEAST_FELT[0] and energy > OFF * force * jump.width,
        force >= LEAST_FELT[1],
        slope >= LEAST_FELT[2] and slope * jump.width >= LEAST_FELT[1] / 10,
    )
    stays = tuple(a and b for a, b in zip(jump.stays, large, strict=True))
    return stays  # type: ignore[return-value]


def _weight(jump: Jump) -> tuple[int, float]:
    """Return by what jumps are sorted: the lowest order first, the largest first within one."""
    order = jump.stays.index(True)
    return order, -jump.sizes[order]


def _entry(curve: Curve, s: float, jump: Jump, profile: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "place": s,
        "sizes": list(jump.sizes),
        "tolerances": list(jump.tolerances),
        "stays": list(jump.stays),
    }
    if not profile:
        return entry
    widths = np.geomspace(WIDEST, 1e-5, WIDTHS)
    try:
        sizes = [jumps.sizes_at(curve, s, float(width)) for width in widths]
    except UnpredictedError:
        return entry
    return entry | {"widths": widths.tolist(), "profile": [list(size) for size in sizes]}


def _exchange(surface: Surface, track: Exchange, seed: int) -> dict[str, Any]:
    base = track.system()
    path = swap_path(base, track.swaps)
    direction = random_direction(base, seed, "noise")
    noise = surface.noise(base, direction)
    inexact = _inexact(surface, base, direction, noise)
    rough = max(noise[0], VARIES * inexact), max(noise[1], inexact)
    found = _culprits(surface, base, list(track.swaps), rough, seed)
    return {
        "noise": list(noise),
        "inexact": inexact,
        "floor": list(jumps.tolerances_of(rough, 4 * jumps.narrow(rough[1]))),
        "responds": bool(np.abs(path.direction).max() > 0),
        "jumps": [
            _entry(surface.curve(swap_path(base, some)), 0.0, jump, k < PROFILES)
            | {"swaps": [track.swaps.index(swap) for swap in some]}
            for k, (some, jump) in enumerate(found)
        ],
    }


def _culprits(
    surface: Surface, base: System, swaps: list[Swap], rough: Rough, seed: int
) -> list[tuple[list[Swap], Jump]]:
    """Return which of some swaps jump, by halving; several together where none of them does so alone."""
    path = swap_path(base, swaps)
    jump = _measured(surface, surface.curve(path), path, 0.0, rough, seed)
    if not any(jump.stays):
        return []
    if len(swaps) == 1:
        return [(swaps, jump)]
    half = len(swaps) // 2
    parts = [
        found
        for part in (swaps[:half], swaps[half:])
        for found in _culprits(surface, base, part, rough, seed)
    ]
    return parts or [(swaps, jump)]
