"""Compression: whether atoms pressed together repel each other all the way, and how deep holes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.execution.records import Record, array
from sfumato.jobs.tracks import Approach
from sfumato.metrics.compression import CORE, Checks, Hole, checks, deepest_hole, repulsion
from sfumato.metrics.rates import pass_rate
from sfumato.metrics.stats import Estimate
from sfumato.protocols.probes.plan import Probe
from sfumato.systems import Floats
from sfumato.words import plain

RATES = ("energy", "force", "repulsive")
"""The three checks of a compression."""

LEAST = 1e-3
"""eV; a shallower hole is none."""


@dataclass(frozen=True, eq=False)
class Squeezed:
    """One compression.

    Args:
        probe: of which two atoms.
        checks: from 0.30 to 0.03 Å.
        hole: the deepest one of the whole wall, if there is one.
        distances: (P,) Å, falling; energy: (P,) eV; push: (P,) eV/Å.
    """

    probe: Probe
    checks: Checks
    hole: Hole | None
    distances: Floats
    energy: Floats
    push: Floats

    @property
    def name(self) -> str:
        """Of the two atoms."""
        return self.probe.name


@dataclass(frozen=True, eq=False)
class Walls:
    """All compressions of one kind.

    Args:
        squeezed: those that count.
        total: that were meant.
        rates: by check, the share that holds.
    """

    squeezed: tuple[Squeezed, ...]
    total: int
    rates: dict[str, Estimate]

    @property
    def holes(self) -> list[Squeezed]:
        """Those with a hole, the deepest first."""
        holed = [(one.hole.depth, one) for one in self.squeezed if one.hole]
        return [one for _, one in sorted(holed, key=lambda pair: -pair[0])]

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {
            "rates": {
                name: {
                    "value": plain(e.mean),
                    "interval95": [plain(e.low), plain(e.high)],
                    "coverage": [e.n, e.total],
                }
                for name, e in self.rates.items()
            },
            "failed": {
                name: [one.name for one in self.squeezed if not getattr(one.checks, name)] for name in RATES
            },
            "holes": [{"name": one.name, **_hole_json(one.hole)} for one in self.holes if one.hole],
        }


def _hole_json(hole: Hole) -> dict[str, Any]:
    return {
        "depth_eV": hole.depth,
        "distance": hole.place,
        "barrier_eV": hole.barrier,
        "barrier_distance": hole.barrier_place,
        "open": hole.open,
    }


def walls_of(
    probes: Sequence[Probe], records: Sequence[Record | None]
) -> tuple[Walls, list[tuple[str, str]]]:
    """Return what the records of compressions say, and (name, reason) of those that do not count.

    Args:
        probes: of the part "pairs" or "places".
        records: of each; None where there is none, or where it failed.
    """
    found: list[Squeezed] = []
    lost: list[tuple[str, str]] = []
    for probe, record in zip(probes, records, strict=True):
        if record is None:
            continue
        one = _squeezed(probe, record)
        if isinstance(one, str):
            lost.append((probe.name, one))
        else:
            found.append(one)
    rates = {
        name: pass_rate(
            [getattr(one.checks, name) for one in found],
            [one.probe.group or one.name for one in found],
            len(probes),
        )
        for name in RATES
    }
    return Walls(tuple(found), len(probes), rates), lost


def _squeezed(probe: Probe, record: Record) -> Squeezed | str:
    """Return one compression; a word why not, where the potential failed at distances that are judged."""
    track = probe.task.frame
    assert isinstance(track, Approach)
    points = len(track.distances)
    energy, forces = array(record, "energy", (points,)), array(record, "forces", (points, 2, 3))
    push, core = repulsion(forces, track.arm), slice(-len(CORE), None)
    if not np.isfinite(energy[core]).all():
        return f"{record['lost']} of {points} distances failed: {record['reason']}"
    hole = deepest_hole(track.distances, energy, LEAST)
    return Squeezed(probe, checks(energy[core], push[core]), hole, track.distances, energy, push)
