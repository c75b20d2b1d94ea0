"""What is probed: every task of a run with its names for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from ase.data import chemical_symbols

from sfumato.graph.neighbors import neighbor_pairs
from sfumato.jobs.approach import Approached
from sfumato.jobs.frames import Frame
from sfumato.jobs.gradient import Gradient
from sfumato.jobs.job import Task
from sfumato.jobs.search import Search
from sfumato.jobs.tracks import Approach
from sfumato.metrics.compression import CORE, wall_start
from sfumato.metrics.diatomics import window
from sfumato.protocols.probes import paths
from sfumato.protocols.probes.data import Structures, reference_curves
from sfumato.protocols.probes.elements import REACH
from sfumato.protocols.probes.settings import Settings
from sfumato.systems import Floats, System
from sfumato.testing import structures

WALL = 24
"""Distances between where two atoms begin to repel each other and 0.30 Å."""

CLOSER = 0.85
"""Of the distance between two neighbors in a molecule, from which they are compressed."""

FARTHEST = 4.0
"""Å; a nearest neighbor farther away is none."""

RATTLED = 0.05
"""Å, root mean square displacement of a coordinate of the structures at which forces are examined."""

DIATOMIC = 40
"""Distances of the curve of an element without a reference."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One task.

    Args:
        part: "jumps", "pairs", "places", "gradient" or "diatomics".
        kind: of path, for jumps; elements, for places; otherwise as `part`.
        name: of what is probed, unique within a part.
        task: what is to be computed.
        group: the molecule it belongs to.
    """

    part: str
    kind: str
    name: str
    task: Task
    group: str = ""


@lru_cache(maxsize=8)
def probes(data: Structures, settings: Settings) -> tuple[Probe, ...]:
    """Return everything that is probed.

    Args:
        data: of the run.
        settings: with the elements settled.
    """
    rows = data.of_elements(settings.numbers)
    known = [(data.names[k], data.systems[k], data.groups[k]) for k in rows]
    return (
        *_jumps(known, settings),
        *_pairs(settings),
        *_places(known, settings),
        *_gradients(known, settings),
        *_diatomics(settings),
    )


Named = Sequence[tuple[str, System, str]]
"""Structures with their names and molecules."""


def spread(known: Named, most: int) -> Named:
    """Return at most so many structures, evenly spaced."""
    count = min(most, len(known))
    return [known[k] for k in np.linspace(0, len(known) - 1, count).round().astype(int).tolist()]


def _jumps(known: Named, settings: Settings) -> Iterator[Probe]:
    size, elements, seed = settings.counts, settings.numbers, settings.seed
    reach = settings.reach or REACH[False]
    bare = [(name, system) for name, system, _ in known]
    job = Search(seed)
    for way in (
        *paths.pulled(elements, reach, size.pairs),
        *paths.third(elements, reach, size.triples),
        *paths.bent(elements, size.bends),
        *paths.lumps(elements, reach, size.lumps, seed),
        *paths.clustered(elements, size.clusters, size.centers, seed),
        *paths.stretched(bare, size.bonds),
        *paths.walks([pair[:2] for pair in spread(known, size.walks)], seed),
    ):
        yield Probe("jumps", way.kind, way.name, Task(job, way.track))


def _pairs(settings: Settings) -> Iterator[Probe]:
    scales = {
        z: float(curve.distances[np.argmin(curve.energy)]) / structures.bond(z, z)
        for z, curve in reference_curves().items()
    }
    for a, b in paths.pairs_of(settings.numbers, settings.counts.squeezed):
        scale = min(scales[a], scales[b]) if a in scales and b in scales else None
        start = wall_start(structures.bond(a, b), scale, a == b)
        system = paths.couple(a, b, np.array([[1.0, 0, 0], [0, 0, 0]]))
        track = Approach.between(system, (0, 1), _inward(start))
        yield Probe("pairs", "pairs", paths.name_of(a, b), Task(Approached(), track))


def _inward(start: float) -> Floats:
    """Return the distances of a compression: down the wall, then those at which it is judged."""
    wall = np.linspace(max(start, CORE[0] + 0.02), CORE[0], WALL + 1)[:-1]
    return np.round(np.concatenate([wall, CORE]), 6)


def _places(known: Named, settings: Settings) -> Iterator[Probe]:
    """Yield pairs of atoms in molecules, of as many kinds as there are, in turn from every molecule."""
    most = settings.counts.places
    some = spread(known, most)
    left = [_places_of(*entry, settings.seed) for entry in some]
    counts: Counter[str] = Counter()
    found: list[Probe] = []
    while len(found) < most and any(left):
        for places in (places for places in left if places):
            best = min(places, key=lambda probe: counts[probe.kind])
            places.remove(best)
            counts[best.kind] += 1
            found.append(best)
    yield from found[:most]


def _places_of(name: str, system: System, group: str, seed: int) -> list[Probe]:
    """Return how each atom of a structure is pressed onto its nearest neighbor."""
    near = neighbor_pairs(system, FARTHEST)
    shift = near.shift @ system.cell
    distance = np.linalg.norm(system.positions[near.i] - system.positions[near.j] - shift, axis=1)
    found = []
    for atom in paths.rng(seed, f"places {name}").permutation(len(system)).tolist():
        rows = np.flatnonzero((near.i == atom) & (near.j != atom))
        if not len(rows):
            continue
        k = int(rows[np.argmin(np.round(distance[rows], 6))])
        other = int(near.j[k])
        track = Approach.between(system, (atom, other), _inward(CLOSER * float(distance[k])), shift[k])
        track = replace(track, arm=np.round(track.arm, 12))
        kind = paths.name_of(int(system.numbers[atom]), int(system.numbers[other]))
        found.append(
            Probe("places", kind, f"{kind} {atom}–{other} in {name}", Task(Approached(), track), group)
        )
    return found


def _gradients(known: Named, settings: Settings) -> Iterator[Probe]:
    job = Gradient(seed=settings.seed)
    if not known:
        base = paths.rounded(structures.molecule(settings.numbers[:4]))
        known = [(f"molecule of {', '.join(chemical_symbols[z] for z in np.unique(base.numbers))}", base, "")]
    for name, system, group in spread(known, settings.counts.gradients):
        draw = paths.rng(settings.seed, f"rattled {name}")
        moved = np.round(system.positions + RATTLED * draw.normal(size=system.positions.shape), 6)
        yield Probe(
            "gradient", "gradient", name, Task(job, Frame.of(replace(system, positions=moved))), group
        )


def _diatomics(settings: Settings) -> Iterator[Probe]:
    curves = reference_curves()
    for z in settings.numbers[: settings.counts.diatomics]:
        if z in curves:
            low, high = window(z, float(curves[z].distances[-1]))
            distances = curves[z].distances
            distances = distances[(distances >= low) & (distances <= high)]
        else:
            distances = np.geomspace(*window(z, 6.0), DIATOMIC)
        system = paths.couple(z, z, np.array([[1.0, 0, 0], [0, 0, 0]]))
        track = Approach.between(system, (0, 1), np.round(distances, 6))
        yield Probe("diatomics", "diatomics", chemical_symbols[z], Task(Approached(), track))
