"""What the probes answer: is the surface continuous, the force its gradient, the wall free of holes?"""

from __future__ import annotations

import math

from sfumato.protocols.probes.analysis import ModelProbes
from sfumato.protocols.probes.forces import LIMIT, Forces
from sfumato.protocols.probes.jumps import ORDERS, UNITS, Found, Jumps
from sfumato.protocols.probes.walls import Squeezed
from sfumato.protocols.verdict import Answer, Evidence, lacking
from sfumato.report.numbers import number
from sfumato.words import count

CURVED = 0.1
"""eV/Å²; a smaller jump of the curvature is shown, but no fault: it is a hundredth of the stiffness of the
softest bonds, and changes a vibration by half a percent at most."""

BLUNT = 1e-3
"""eV; where noise hides steps of this size, nothing is known of smaller ones."""

THERMAL = 0.025
"""eV, kT at room temperature: a shallower hole holds no atoms."""

SHOWN = 3
"""Pieces of evidence that are named."""

CONTINUOUS = (
    f"no proven jump of energy or force, of the curvature none of {CURVED:g} eV/Å² or more",
    "a jump that does not shrink with the interval is no rounding: dynamics gains or loses that energy each "
    "time it is crossed; a curvature that jumps by a hundredth of a soft bond's stiffness is hardly felt",
)
GRADIENT = (
    f"relative mismatch of force and energy below {LIMIT:g}",
    "what an unconverged field leaves is below 1e-5, and a wrong force heats or cools dynamics without end",
)
HOLES = (
    f"no hole of {1e3 * THERMAL:g} meV or more between where atoms begin to repel each other and 0.03 Å",
    "less than kT at room temperature holds no atoms; out of deeper ones neither dynamics nor samplers come",
)


def answers(model: ModelProbes) -> tuple[Answer, ...]:
    """Judge a model by its probes."""
    return (_continuous(model), _gradient(model), _holes(model))


def _part(model: ModelProbes, *parts: str) -> str:
    """Return what is missing of some parts, in words."""
    lost = sum(part in parts for part, _, _ in model.failed)
    what = {"jumps": "paths", "gradient": "structures", "pairs": "compressions"}[parts[0]]
    total = (
        lost
        + {
            "jumps": sum(model.jumps.paths.values()),
            "gradient": len(model.forces.names),
            "pairs": len(model.pairs.squeezed) + len(model.places.squeezed),
        }[parts[0]]
    )
    if model.missing:
        return f"{count(model.missing, 'probe')} not evaluated yet"
    return lacking((total - lost, total), what)


def _continuous(model: ModelProbes) -> Answer:
    jumps, part = model.jumps, _part(model, "jumps")
    searched = sum(jumps.paths.values()) - len(jumps.silent)
    faults = [found for found in jumps.found if found.order < 2 or found.size >= CURVED]
    if faults:
        return Answer(
            "continuous", "no", *CONTINUOUS, tuple(map(_jump, faults[:SHOWN])), _fault(faults), part
        )
    if not searched:
        return Answer(
            "continuous", "unknown", *CONTINUOUS, (Evidence("no path could be searched"),), lacking=part
        )
    floor = 1e3 * jumps.floor[0]
    where = f"on {count(searched, 'path')}"
    if not floor < 1e3 * BLUNT:
        blunt = Evidence("noise hides steps of the energy up to", floor, UNITS[0], where, "-jumps")
        return Answer("continuous", "unknown", *CONTINUOUS, (blunt,), lacking=part)
    shown = _curvature(jumps) or Evidence("no step of the energy above", floor, UNITS[0], where, "-jumps")
    return Answer("continuous", "yes", *CONTINUOUS, (shown,), lacking=part)


def _curvature(jumps: Jumps) -> Evidence | None:
    found = jumps.largest(2)
    return None if found is None else _jump(found)


def _jump(found: Found) -> Evidence:
    where = f"{found.cause.words} ({found.probe.name})"
    return Evidence(
        f"jump of the {ORDERS[found.order]}", 1e3 * found.size, UNITS[found.order], where, "-jumps"
    )


def _fault(found: list[Found]) -> str:
    """Return the largest jump of the lowest order, and what changed there."""
    first = min(found, key=lambda f: (f.order, -f.size))
    return f"the {first.in_words().replace(' by ', ' jumps by up to ', 1)} ({first.cause.words})"


def _gradient(model: ModelProbes) -> Answer:
    forces, part = model.forces, _part(model, "gradient")
    if not forces.names:
        none = (Evidence("no structure could be examined"),)
        return Answer("gradient", "unknown", *GRADIENT, none, lacking=part)
    if forces.blame != "none":
        return Answer("gradient", "no", *GRADIENT, _mismatches(forces), forces.in_words(), part)
    noise = forces.largest_noise["mismatch"]
    if noise > 10 * LIMIT:
        blunt = Evidence("noise hides a relative mismatch up to", noise, "", "", "-forces")
        return Answer("gradient", "unknown", *GRADIENT, (blunt,), lacking=part)
    return Answer("gradient", "yes", *GRADIENT, _mismatches(forces), lacking=part)


def _mismatches(forces: Forces) -> tuple[Evidence, ...]:
    rows = sorted(zip(forces.names, forces.mismatch, strict=True), key=lambda row: -row[1].value)
    found = [
        Evidence("relative mismatch of force and energy", level.value, "", name, "-forces")
        for name, level in rows
        if not level.below and level.value >= LIMIT
    ]
    top = max(level.value if not level.below else level.noise for level in forces.mismatch)
    none = Evidence("relative mismatch of force and energy below", top, "", "", "-forces")
    return tuple(found[:SHOWN]) or (none,)


def _holes(model: ModelProbes) -> Answer:
    part = _part(model, "pairs", "places")
    every = [*model.pairs.squeezed, *model.places.squeezed]
    if not every:
        none = (Evidence("no two atoms could be compressed"),)
        return Answer("holes", "unknown", *HOLES, none, lacking=part)
    deep = sorted(
        (one for one in every if one.hole and one.hole.depth >= THERMAL),
        key=lambda one: -one.hole.depth if one.hole else math.nan,
    )
    if not deep:
        shown = Evidence("no hole", where=f"in {count(len(every), 'compression')}", anchor="-walls")
        return Answer("holes", "yes", *HOLES, (shown,), lacking=part)
    fault = f"holes up to {number(_depth(deep[0]))} eV deep in {len(deep)} of {len(every)} compressions"
    return Answer("holes", "no", *HOLES, tuple(map(_hole, deep[:SHOWN])), fault, part)


def _depth(one: Squeezed) -> float:
    return one.hole.depth if one.hole else 0.0


def _hole(one: Squeezed) -> Evidence:
    assert one.hole is not None
    behind = f"{one.name} at {number(one.hole.place)} Å, behind {number(one.hole.barrier)} eV"
    return Evidence("hole", one.hole.depth, "eV", behind, "-walls")
