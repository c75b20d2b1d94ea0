"""The jumps that were proven, and what changed where they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from sfumato.execution.records import Record, decode
from sfumato.jobs.tracks import Exchange, Trip
from sfumato.protocols.probes.paths import arc, name_of
from sfumato.protocols.probes.plan import Probe
from sfumato.reference.paths import image_distances, moving_distances
from sfumato.reference.swaps import swap_path
from sfumato.report.numbers import number
from sfumato.systems import Floats, System

ORDERS = ("energy", "force", "curvature")
"""What jumps: the energy, its first derivative, its second."""

UNITS = ("meV", "meV/Å", "meV/Å²")
"""Of the sizes that are shown."""

SAME = 1e-4
"""Å; two distances that differ by less are the same cutoff. Places are known to 1e-5."""

EXCHANGED = 2e-5
"""Å; two neighbors as far away as this from each other's distance are about to exchange places: of the
thousand pairs of distances around an atom one is this close by chance once in a hundred structures."""

COMMON = 3
"""Jumps that share an otherwise unknown distance, before it counts as their cause."""


@dataclass(frozen=True)
class Cause:
    """What changed where something jumps.

    Args:
        kind: "cutoff", "rank", "angle", "torsion", "coordination" or "unknown".
        words: for people.
        distance: Å; nan where it is none.
        elements: symbols of the atoms.
        neighbors: of the first atom within this distance, before the other comes; −1 where this says nothing.
        rank: of the nearer neighbor, for "rank"; 0 for others.
    """

    kind: str
    words: str
    distance: float = math.nan
    elements: str = ""
    neighbors: int = -1
    rank: int = 0


@dataclass(frozen=True, eq=False)
class Found:
    """A jump that did not shrink with the interval.

    Args:
        probe: on which path.
        place: Å along it.
        order: of the lowest derivative that jumps, 0 for the energy.
        sizes: of the jumps of energy (eV), force (eV/Å) and its slope (eV/Å²).
        stays: which of them are proven.
        cause: what changed.
        widths: Å, of the intervals of `profile`; empty where it was not kept.
        profile: (W, 3) the sizes seen in intervals of these widths.
    """

    probe: Probe
    place: float
    order: int
    sizes: tuple[float, float, float]
    stays: tuple[bool, bool, bool]
    cause: Cause
    widths: Floats = field(default_factory=lambda: np.zeros(0))
    profile: Floats = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def size(self) -> float:
        """Of the lowest derivative that jumps, in eV, eV/Å or eV/Å²."""
        return self.sizes[self.order]

    def in_words(self) -> str:
        """Return what jumps and by how much."""
        return f"{ORDERS[self.order]} by {number(1e3 * self.size)} {UNITS[self.order]}"

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {
            "path": self.probe.name,
            "kind": self.probe.kind,
            "place": self.place,
            "order": ORDERS[self.order],
            "size_meV": 1e3 * self.size,
            "unit": UNITS[self.order],
            "sizes": dict(zip(ORDERS, self.sizes, strict=True)),
            "proven": [what for what, stays in zip(ORDERS, self.stays, strict=True) if stays],
            "cause": {
                "kind": self.cause.kind,
                "words": self.cause.words,
                "distance": self.cause.distance if math.isfinite(self.cause.distance) else None,
                "elements": self.cause.elements,
                "neighbors": self.cause.neighbors if self.cause.neighbors >= 0 else None,
                "rank": self.cause.rank or None,
            },
        }


@dataclass(frozen=True, eq=False)
class Jumps:
    """What the search for jumps found.

    Args:
        found: the proven ones, energy before force before curvature, the largest first.
        paths: searched, and of each kind how many.
        silent: names of paths on which nothing changes.
        floors: (P, 3) up to which size jumps are below the noise on each path; eV, eV/Å, eV/Å².
        refuted: suspicious places that turned out smooth.
        left: suspicious places that were not looked at, on paths with many jumps.
    """

    found: tuple[Found, ...]
    paths: Mapping[str, int]
    silent: tuple[str, ...]
    floors: Floats
    refuted: int
    left: int

    @property
    def floor(self) -> tuple[float, float, float]:
        """The median over paths of the sizes that are below the noise; nan without a path."""
        if not len(self.floors):
            return (math.nan,) * 3
        energy, force, slope = np.median(self.floors, axis=0).tolist()
        return energy, force, slope

    def largest(self, order: int) -> Found | None:
        """Return the largest jump of an order."""
        return next((found for found in self.found if found.order == order), None)

    def causes(self) -> list[tuple[Cause, list[Found]]]:
        """Return the jumps by what causes them, the largest first."""
        groups: dict[tuple[Any, ...], list[Found]] = {}
        for found in self.found:
            cause = found.cause
            key = (
                cause.kind,
                cause.rank,
                round(cause.distance, 3) if cause.kind == "cutoff" else cause.words,
            )
            groups.setdefault(key, []).append(found)
        return [(_together([f.cause for f in some]), some) for some in groups.values()]

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        largest = {what: self.largest(k) for k, what in enumerate(ORDERS)}
        return {
            "paths": dict(self.paths),
            "proven": len(self.found),
            "refuted": self.refuted,
            "not_measured": self.left,
            "no_response": list(self.silent),
            "largest": {what: found.as_json() if found else None for what, found in largest.items()},
            "below_noise": dict(zip(ORDERS, self.floor, strict=True)),
            "causes": [
                {"kind": cause.kind, "words": cause.words, "jumps": len(some), "largest": some[0].in_words()}
                for cause, some in self.causes()
            ],
            "list": [found.as_json() for found in self.found],
        }


def _together(causes: Sequence[Cause]) -> Cause:
    """Return one cause for jumps that have the same: of which elements it is, if not of one pair."""
    first = causes[0]
    if first.kind != "cutoff":
        return first
    kinds = list(dict.fromkeys(cause.elements for cause in causes))
    words = kinds[0] if len(kinds) == 1 else f"{len(kinds)} pairs of elements"
    return replace(first, words=f"{words} at {first.distance:.4f} Å", elements=", ".join(kinds))


def jumps_of(probes: Sequence[Probe], records: Sequence[Record]) -> Jumps:
    """Return what the records of searched paths say.

    Args:
        probes: of the part "jumps".
        records: of each, finished.
    """
    raw = [(probe, entry) for probe, record in zip(probes, records, strict=True) for entry in record["jumps"]]
    causes = _causes(raw)
    found = [_found(probe, entry, cause) for (probe, entry), cause in zip(raw, causes, strict=True)]
    pairs = list(zip(probes, records, strict=True))
    return Jumps(
        tuple(sorted(found, key=lambda f: (f.order, -f.size))),
        Counter(probe.kind for probe in probes),
        tuple(probe.name for probe, record in pairs if not record["responds"]),
        np.array([record["floor"] for record in records]).reshape(-1, 3),
        sum(record.get("measured", 0) - len(record["jumps"]) for record in records if "measured" in record),
        sum(record.get("suspected", 0) - record.get("measured", 0) for record in records),
    )


def _found(probe: Probe, entry: Mapping[str, Any], cause: Cause) -> Found:
    stays = tuple(bool(stay) for stay in entry["stays"])
    return Found(
        probe,
        float(entry["place"]),
        stays.index(True),
        tuple(float(size) for size in entry["sizes"]),  # type: ignore[arg-type]
        stays,  # type: ignore[arg-type]
        cause,
        np.array(entry.get("widths", [])),
        np.array(entry.get("profile", [])).reshape(-1, 3),
    )


# --- what changed


@dataclass(frozen=True, eq=False)
class _Scene:
    """The structure where something jumps: distances that change there, and between which atoms."""

    probe: Probe
    place: float
    here: System
    distances: Floats
    pairs: list[tuple[int, int]]

    def elements(self, k: int) -> str:
        """Return the elements of the k-th pair, in the order of atomic numbers."""
        return name_of(*sorted(self.here.numbers[list(self.pairs[k])].tolist()))

    def neighbors(self, k: int) -> int:
        """Return how many other atoms are as near to the first atom of the k-th pair as the second."""
        i, _ = self.pairs[k]
        r = np.linalg.norm(self.here.positions - self.here.positions[i], axis=1)
        return int((r < self.distances[k] - SAME).sum()) - 1


def _scene(probe: Probe, entry: Mapping[str, Any]) -> _Scene:
    track, place = probe.task.frame, float(entry["place"])
    assert isinstance(track, Trip)
    path = track.path()
    distances, i, j = moving_distances(path, place)
    if path.at(
        place
    ).pbc.any():  # images of other cells may be the ones that matter; their atoms are not known
        every = image_distances(path, place)
        distances = np.concatenate([distances, every])
        i, j = (np.concatenate([one, np.resize(one, len(every))]) for one in (i, j))
    return _Scene(probe, place, path.at(place), distances, list(zip(i.tolist(), j.tolist(), strict=True)))


def _causes(raw: Sequence[tuple[Probe, Mapping[str, Any]]]) -> list[Cause]:
    """Return the cause of every jump.

    Two atoms alone can only cross a cutoff. A distance at which one was found explains jumps on other paths;
    where it does not, two neighbors that exchange places do, then a distance that several jumps share.
    """
    scenes = {k: _scene(*pair) for k, pair in enumerate(raw) if not isinstance(pair[0].task.frame, Exchange)}
    causes: dict[int, Cause] = {}
    for k, (probe, entry) in enumerate(raw):
        if k not in scenes:
            causes[k] = _exchanged(probe, entry)
        elif len(scenes[k].here) == 2:
            causes[k] = _cutoff(scenes[k], 0)
    known = [cause.distance for cause in causes.values() if cause.kind == "cutoff"]
    for k, scene in scenes.items():
        if k not in causes and (row := _at(scene, known)) is not None:
            causes[k] = _cutoff(scene, row)
    _find_ranks(scenes, causes)
    while (shared := _shared([s for k, s in scenes.items() if k not in causes])) is not None:
        for k, scene in scenes.items():
            if k not in causes and (row := _at(scene, [shared])) is not None:
                causes[k] = _cutoff(scene, row)
    return [causes[k] if k in causes else _otherwise(scenes[k]) for k in range(len(raw))]


def _cutoff(scene: _Scene, row: int) -> Cause:
    r, elements, neighbors = float(scene.distances[row]), scene.elements(row), scene.neighbors(row)
    return Cause("cutoff", f"{elements} at {r:.4f} Å", r, elements, neighbors)


def _at(scene: _Scene, distances: Sequence[float]) -> int | None:
    """Return the pair that is at one of some distances."""
    if not distances or not len(scene.distances):
        return None
    gaps = np.abs(scene.distances[:, None] - np.array(distances)).min(axis=1)
    row = int(np.argmin(gaps))
    return row if gaps[row] < SAME else None


def _find_ranks(scenes: Mapping[int, _Scene], causes: dict[int, Cause]) -> None:
    """Add the causes of jumps where two neighbors of an atom are equally far away.

    In a symmetric structure many are at once. Then it is the rank that most jumps have in common, those first
    that were found where it is known which neighbors exchange places.
    """
    certain = {cause.rank for cause in causes.values() if cause.kind == "rank"}
    crossing = {k: found for k, scene in scenes.items() if k not in causes and (found := _crossings(scene))}
    while crossing:
        votes = Counter(rank for found in crossing.values() for rank in found)
        best = max(votes, key=lambda rank: (rank in certain, votes[rank], -rank))
        for k in [k for k, found in crossing.items() if best in found]:
            causes[k] = crossing.pop(k)[best]


def _crossings(scene: _Scene) -> dict[int, Cause]:
    """Return the neighbors of an atom that are equally far away, by rank."""
    moving = {atom for pair in scene.pairs for atom in pair}
    everything = scene.here.positions
    found: dict[int, Cause] = {}
    for center in sorted(moving):
        r = np.linalg.norm(everything - everything[center], axis=1)
        order = np.argsort(r)[1:]
        for rank, (near, far) in enumerate(pairwise(order.tolist()), start=1):
            changes = {tuple(sorted((center, atom))) for atom in (near, far)} & set(scene.pairs)
            if changes and r[far] - r[near] < EXCHANGED:
                found.setdefault(rank, _rank(int(scene.here.numbers[center]), rank, float(r[near])))
    return found


def _rank(center: int, rank: int, distance: float) -> Cause:
    element = name_of(center)
    words = f"neighbors {rank} and {rank + 1} of {element} exchange places"
    return Cause("rank", words, distance, element, rank, rank)


def _exchanged(probe: Probe, entry: Mapping[str, Any]) -> Cause:
    track = probe.task.frame
    assert isinstance(track, Exchange)
    swap = track.swaps[entry["swaps"][0]]
    here = swap_path(track.system(), [swap]).base
    distance = float(np.linalg.norm(here.positions[swap.other] - here.positions[swap.center]))
    return _rank(int(here.numbers[swap.center]), swap.rank, distance)


def _shared(scenes: Sequence[_Scene]) -> float | None:
    """Return the distance that most jumps share; None if fewer than `COMMON` do."""
    rows = [(float(r), n) for n, scene in enumerate(scenes) for r in scene.distances]
    rows.sort()
    best, shared = COMMON - 1, None
    for k, (r, _) in enumerate(rows):
        near = {n for other, n in rows[k : k + 4 * len(scenes)] if other - r < SAME}
        if len({scenes[n].probe.name for n in near}) > best:
            best, shared = len(near), r
    return shared


def _otherwise(scene: _Scene) -> Cause:
    """Return what the path says, where no distance explains a jump."""
    track, kind = scene.probe.task.frame, scene.probe.kind
    assert isinstance(track, Trip)
    elements = name_of(*scene.here.numbers.tolist()) if len(scene.here) < 5 else ""
    if turned := arc(track, scene.place):
        r = float(scene.distances.max())
        how = "opened to" if kind == "angle" else "turned by"
        return Cause(kind, f"{kind} {elements} {how} {turned}, ends {r:.4f} Å apart", r, elements)
    if kind == "coordination":
        center, comer = int(scene.here.numbers[0]), int(scene.here.numbers[-1])
        r = float(np.linalg.norm(scene.here.positions[-1] - scene.here.positions[0]))
        words = f"a fifth {name_of(comer)} at {r:.4f} Å from {name_of(center)}"
        return Cause("coordination", words, r, name_of(*sorted((center, comer))), 4)
    if len(scene.here) == 3:
        r1, r2 = sorted(scene.distances[:2].tolist())
        return Cause("unknown", f"{elements}, third atom at {r1:.4f} and {r2:.4f} Å", r1, elements)
    return Cause("unknown", f"{scene.probe.name}: after {scene.place:.4f} Å")


def sampled(record: Record) -> Floats:
    """Return (M, 3) place (Å), energy (eV) and power (eV/Å) along a searched path."""
    return decode(record["samples"])
