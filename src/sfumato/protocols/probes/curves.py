"""Curves of two like atoms, and how far they are from PBE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from sfumato.execution.records import Record, array
from sfumato.jobs.tracks import Approach
from sfumato.metrics.compression import repulsion
from sfumato.metrics.diatomics import (
    energy_flips,
    energy_jump,
    force_flips,
    tortuosity,
    well,
    window,
)
from sfumato.protocols.probes.data import Curve, reference_curves
from sfumato.protocols.probes.plan import Probe
from sfumato.systems import Floats
from sfumato.words import plain

NUMBERS = ("tortuosity", "energy_jump", "energy_flips", "force_flips", "bond_error", "depth_error")
"""Of every curve; the last two against the reference."""

JUMPY = (1.5, 3)
"""eV of energy jump and flips of the energy from which a reference is too rough to compare with, as
Matbench-Discovery has it: eight lanthanides."""


@dataclass(frozen=True, eq=False)
class Diatomic:
    """The curve of one element.

    Args:
        element: symbol.
        numbers: by name of `NUMBERS`; nan where it does not exist.
        distances: (P,) Å, rising; energy: (P,) eV; push: (P,) eV/Å.
        reference: within the same window; None where there is none, or it is too rough.
        reference_numbers: the same numbers of the reference.
    """

    element: str
    numbers: dict[str, float]
    distances: Floats
    energy: Floats
    push: Floats
    reference: Curve | None
    reference_numbers: dict[str, float]


def own_numbers(distances: Floats, energy: Floats, push: Floats) -> dict[str, float]:
    """Return the numbers of a curve that need no reference."""
    return {
        "tortuosity": tortuosity(energy),
        "energy_jump": energy_jump(energy),
        "energy_flips": float(energy_flips(energy)),
        "force_flips": float(force_flips(push)),
    }


def reference_of(z: int) -> Curve | None:
    """Return the reference curve of an element within its window; None where there is none to use."""
    curve = reference_curves().get(z)
    if curve is None:
        return None
    low, high = window(z, float(curve.distances[-1]))
    inside = (curve.distances >= low) & (curve.distances <= high)
    r, e, f = curve.distances[inside], curve.energy[inside], curve.force[inside]
    rough = energy_jump(e) >= JUMPY[0] and energy_flips(e) >= JUMPY[1]
    return None if rough or len(r) < 5 else Curve(r, e, f)


def diatomics_of(
    probes: Sequence[Probe], records: Sequence[Record | None]
) -> tuple[list[Diatomic], list[tuple[str, str]]]:
    """Return the curves of the elements, and (name, reason) of those that do not count.

    Args:
        probes: of the part "diatomics".
        records: of each; None where there is none, or where it failed.
    """
    found, lost = [], []
    for probe, record in zip(probes, records, strict=True):
        if record is None:
            continue
        if record.get("lost"):
            reason = f"{record['lost']} distances failed: {record['reason']}"
            lost.append((probe.name, reason))
            continue
        found.append(_diatomic(probe, record))
    return found, lost


def _diatomic(probe: Probe, record: Record) -> Diatomic:
    track = probe.task.frame
    assert isinstance(track, Approach)
    r, points = track.distances, len(track.distances)
    energy = array(record, "energy", (points,))
    push = repulsion(array(record, "forces", (points, 2, 3)), track.arm)
    numbers, reference = own_numbers(r, energy, push), reference_of(atomic_numbers[probe.name])
    numbers |= {"bond_error": math.nan, "depth_error": math.nan}
    reference_numbers: dict[str, float] = {}
    if reference is not None:
        own, real = well(r, energy), well(reference.distances, reference.energy)
        numbers |= {"bond_error": own.place - real.place, "depth_error": own.depth - real.depth}
        reference_numbers = own_numbers(reference.distances, reference.energy, reference.force)
    return Diatomic(probe.name, numbers, r, energy, push, reference, reference_numbers)


def diatomics_json(found: Sequence[Diatomic]) -> dict[str, Any]:
    """Return curves in JSON types: means over elements, and every element."""
    means = {}
    for name in NUMBERS:
        values = np.array([one.numbers[name] for one in found])
        values = values[np.isfinite(values)]
        sized = np.abs(values) if name.endswith("error") else values
        means[name] = {"mean": plain(float(sized.mean())) if len(sized) else None, "n": len(sized)}
    return {
        "mean": means,
        "elements": {
            one.element: {name: plain(value) for name, value in one.numbers.items()} for one in found
        },
        "reference": "PBE (Matbench-Discovery)",
    }
