"""Jumps of energy, force and slope of the force on the bench: at a place, and searched for on paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.metrics import jumps
from sfumato.metrics.jumps import LIMITS, Curve, Jump, Sample, narrow, unexplained
from sfumato.metrics.noise import MARGIN
from sfumato.reference.paths import Path, image_distances, moving_distances, pair_name
from sfumato.systems import Floats, System
from sfumato.testing.bench import Bench
from sfumato.testing.result import Measured, NotApplicableError

WHAT = ("energy", "force", "slope of the force")
UNITS = ("eV", "eV/Å", "eV/Å²")

BESIDE = 0.02
"""Å from a jump, where the noise is measured that it must exceed."""

SUSPECTS = {"energy": 3, "force": 2}
"""Intervals of a path that are halved because of the energy, and of the force."""

EXPLAINED = 1e-3
"""Å; a jump with a pair at a known cutoff, to within this, is that cutoff's."""


def measured(jump: Jump, where: str) -> Iterator[Measured]:
    """Yield the three sizes of a jump; what fades with the stencil is not a jump, its limit is zero."""
    for k, (size, tolerance) in enumerate(zip(jump.sizes, jump.tolerances, strict=True)):
        fades = size > tolerance and not jump.stays[k]
        yield Measured(0.0 if fades else size, tolerance, UNITS[k], f"{where}: jump of the {WHAT[k]}")


def jump_at(bench: Bench, path: Path, s: float, reference: System) -> Jump:
    """Measure the jump of energy, force and slope of the force at one place of a path.

    Args:
        bench: the potential.
        path: the structures.
        s: the place.
        reference: structure whose noise counts; before a jump is found, also the noise just beside it.
    """
    curve, rough = _curve(bench, path), bench.floor(reference).roughness
    jump = jumps.jump_at(curve, s, rough)
    if any(jump.stays):
        here = bench.floor(path.at(s - BESIDE), BESIDE).roughness
        if here[0] > rough[0] or here[1] > rough[1]:
            jump = jumps.jump_at(curve, s, (max(here[0], rough[0]), max(here[1], rough[1])))
    return jump


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
    width, curve = narrow(rough[1]), _curve(bench, path)
    grid = curve(places.tolist())
    _require_response(grid, np.array([sample.forces for sample in grid]), rough)
    drift = MARGIN * rough[1] * float(np.linalg.norm(path.tangent(float(places[0]))))
    most = (SUSPECTS["energy"] - bench.few, SUSPECTS["force"] - bench.few)
    work = [abs(unexplained(grid, k)) for k in range(len(grid) - 1)]
    yield float(places[int(np.argmax(work))]), Measured(0.0, LIMITS[0], UNITS[0], f"{len(places)} points")
    seen: list[float] = []
    for hunt in jumps.hunts(curve, grid, rough, drift, most):
        if hunt.smooth:
            yield hunt.middle, _explained(hunt)
        elif all(abs(hunt.middle - place) > width for place in seen):
            seen.append(hunt.middle)
            yield hunt.middle, jump_at(bench, path, hunt.middle, reference)


def _explained(hunt: jumps.EnergyHunt | jumps.ForceHunt) -> Measured:
    """Return how well a smooth interval agrees with the work, or with what surrounds it."""
    energy = isinstance(hunt, jumps.EnergyHunt)
    against = "energy against work" if energy else "force against its surroundings"
    where = f"smooth around {hunt.middle:.4g} Å, {against}"
    return Measured(hunt.left_over, hunt.limit, UNITS[0 if energy else 1], where)


def _curve(bench: Bench, path: Path) -> Curve:
    def curve(places: Sequence[float]) -> list[Sample]:
        points = bench.points([path.at(float(s)) for s in places])
        return [
            Sample(float(s), p.energy, float((p.forces * path.tangent(float(s))).sum()), p.forces.ravel())
            for s, p in zip(places, points, strict=True)
        ]

    return curve


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


def searched(
    bench: Bench, trips: Sequence[Trip], cutoffs: Callable[[Bench], list[float]]
) -> Iterator[Measured]:
    """Yield what jumps on some paths; a jump with a pair at a cutoff that has a check is left to that check.

    Args:
        bench: the potential.
        trips: the paths.
        cutoffs: returns the distances in Å at which pairs alone jump; called where something does.

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
            elif any(jump.stays) and is_explained(cutoffs(bench), trip.path, s):
                explained += 1
            else:
                yield from measured(jump, f"{trip.name} {_place(trip.path, s)}")
    if explained:
        yield Measured(0, LIMITS[0], UNITS[0], f"{explained} jumps, each at a cutoff of pairs")
    if len(left_out) == len(trips):
        raise NotApplicableError("; ".join(left_out))


def _found(bench: Bench, trip: Trip) -> list[tuple[float, Jump | Measured]]:
    try:
        return list(search(bench, trip.path, trip.places, trip.reference))
    except RuntimeError:
        if trip.shorter is None:
            raise
        return list(search(bench, trip.path, trip.shorter, trip.reference))


def is_explained(cutoffs: Sequence[float], path: Path, s: float) -> bool:
    """Return whether a pair that moves is at a cutoff."""
    distances = image_distances(path, s)
    return any((np.abs(distances - r) < EXPLAINED).any() for r in cutoffs)


def _place(path: Path, s: float) -> str:
    """Say where on a path something is: by the distances of few atoms, or by how far it has gone."""
    here = path.at(s)
    distances, i, j = moving_distances(path, s)
    if len(here) > 4:
        return f"after {s:.4f} Å"
    pairs = (f"{pair_name(here, a, b)} {r:.6g} Å" for r, a, b in zip(distances, i, j, strict=True))
    return "at " + ", ".join(pairs)
