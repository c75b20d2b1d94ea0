"""Jumps of energy, force and slope of the force: how they are measured at a place, and searched on a path.

A path is evaluated on a grid. Where energy changes by what the force does not show, or a force by what its
surroundings do not predict, the interval is halved: a smooth function soon agrees, a jump never does. A
stencil is put across what is left. A jump is what stays while the stencil shrinks; what is steep goes away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.systems import Floats, System
from sfumato.testing.bench import MARGIN, Bench
from sfumato.testing.numerics import (
    JUMP_NOISE,
    SLOPE_NOISE,
    STENCIL,
    EnergyHunt,
    ForceHunt,
    Sample,
    fifth,
    jumps,
    suspects,
    unexplained,
)
from sfumato.testing.paths import Path, image_distances, moving_distances, pair_name
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

SUSPECTS = {"energy": 3, "force": 2}
"""Intervals of a path that are halved because of the energy, and of the force."""

EXPLAINED = 1e-3
"""Å; a jump with a pair at a known cutoff, to within this, is that cutoff's."""


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
        """Yield the three sizes; what fades with the stencil is not a jump, its limit is zero."""
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
        here = bench.floor(path.at(s - BESIDE), BESIDE).roughness
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


def search(
    bench: Bench, path: Path, places: Floats, reference: System
) -> Iterator[tuple[float, Jump | Measured]]:
    """Yield the suspicious places of a path with what jumps there, or with how well they turned out smooth.

    Args:
        bench: the potential.
        path: the structures.
        places: (M,) values of s, M ≥ 8, equidistant or a smooth function of something that is.
        reference: structure whose noise counts.

    Raises:
        NotApplicableError: energy and forces do not respond to the path.
    """
    rough = bench.floor(reference).roughness
    width = narrow(rough[1])
    grid = _samples(bench, path, places)
    forces = np.array([sample.forces for sample in grid])
    _require_response(grid, forces, rough)
    limits = tuple(low + 2 * MARGIN * sigma for low, sigma in zip(LIMITS[:2], rough, strict=True))
    work = np.abs([unexplained(grid, k) for k in range(len(grid) - 1)])
    drift = (limits[0], MARGIN * rough[1] * float(np.linalg.norm(path.tangent(float(places[0])))))
    hunts: list[EnergyHunt | ForceHunt] = [
        EnergyHunt(grid, k, drift)
        for k in suspects(work, limits[0], SUSPECTS["energy"] - bench.few)
        if work[k] > limits[0]
    ]
    change = fifth(forces)
    hunts += [
        ForceHunt(grid, k + 2, limits[1])
        for k in suspects(change, limits[1], SUSPECTS["force"] - bench.few)
        if change[k] > limits[1]
    ]
    while active := [hunt for hunt in hunts if not hunt.smooth and hunt.width > width / 16]:
        for hunt, sample in zip(active, _samples(bench, path, [h.middle for h in active]), strict=True):
            hunt.take(sample)
    yield float(places[int(np.argmax(work))]), Measured(0.0, LIMITS[0], UNITS[0], f"{len(places)} points")
    seen: list[float] = []
    for hunt in hunts:
        if hunt.smooth:
            yield hunt.middle, hunt.measured
        elif all(abs(hunt.middle - place) > width for place in seen):
            seen.append(hunt.middle)
            yield hunt.middle, jump_at(bench, path, hunt.middle, reference)


def _samples(bench: Bench, path: Path, places: Sequence[float] | Floats) -> list[Sample]:
    points = bench.points([path.at(float(s)) for s in places])
    return [
        Sample(float(s), p.energy, float((p.forces * path.tangent(float(s))).sum()), p.forces.ravel())
        for s, p in zip(places, points, strict=True)
    ]


def _require_response(grid: Sequence[Sample], forces: Floats, rough: tuple[float, float]) -> None:
    """Refuse a path on which nothing changes: it would pass whatever the potential is."""
    energies = np.ptp([sample.energy for sample in grid])
    if not (energies > MARGIN * rough[0] or np.ptp(forces, axis=0).max() > MARGIN * rough[1]):
        raise NotApplicableError("energy and forces do not respond")


@dataclass(frozen=True)
class Trip:
    """A path to search.

    Args:
        name: of what moves, for people.
        path: the structures.
        places: (M,) values of s.
        reference: structure whose noise counts.
        shorter: places to go back to where electrons do not converge on all of them.
    """

    name: str
    path: Path
    places: Floats
    reference: System
    shorter: Floats | None = None


def searched(bench: Bench, trips: Sequence[Trip]) -> Iterator[Measured]:
    """Yield what jumps on some paths; a jump with a pair at a cutoff known before is left to that check.

    Raises:
        NotApplicableError: no path could be searched.
    """
    left_out: list[str] = []
    explained = 0
    for trip in trips:
        try:
            found = _found(bench, trip)
        except NotApplicableError as error:
            left_out.append(f"{trip.name}: {error}")
            continue
        except RuntimeError as error:  # a self-consistent field that fails for loose atoms has no jump
            left_out.append(f"{trip.name} raised {error}")
            continue
        for s, jump in found:
            if isinstance(jump, Measured):
                yield Measured(jump.value, jump.tolerance, jump.unit, f"{trip.name}: {jump.where}")
            elif any(jump.stays) and is_explained(bench, trip.path, s):
                explained += 1
            else:
                yield from jump.measured(f"{trip.name} {_place(trip.path, s)}")
    if explained:
        yield Measured(0, LIMITS[0], UNITS[0], f"{explained} jumps, each at a cutoff found before")
    if len(left_out) == len(trips):
        raise NotApplicableError("; ".join(left_out))


def _found(bench: Bench, trip: Trip) -> list[tuple[float, Jump | Measured]]:
    try:
        return list(search(bench, trip.path, trip.places, trip.reference))
    except RuntimeError:
        if trip.shorter is None:
            raise
        return list(search(bench, trip.path, trip.shorter, trip.reference))


def is_explained(bench: Bench, path: Path, s: float) -> bool:
    """Return whether a pair that moves is at a cutoff that was found before."""
    distances = image_distances(path, s)
    return any((np.abs(distances - r) < EXPLAINED).any() for r in bench.cutoffs)


def _place(path: Path, s: float) -> str:
    """Say where on a path something is: by the distances of few atoms, or by how far it has gone."""
    here = path.at(s)
    distances, i, j = moving_distances(path, s)
    if len(here) > 4:
        return f"after {s:.4f} Å"
    pairs = (f"{pair_name(here, a, b)} {r:.6g} Å" for r, a, b in zip(distances, i, j, strict=True))
    return "at " + ", ".join(pairs)
