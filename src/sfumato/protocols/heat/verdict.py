"""What hot dynamics answers: does it survive?"""

from __future__ import annotations

import math

from sfumato.dynamics.conditions import Exploded
from sfumato.protocols.heat.analysis import CHANCE, Hot, ModelHeat
from sfumato.protocols.verdict import Answer, Answered, Evidence, lacking

SHOWN = 3
"""Trajectories named as evidence."""

WARM = 0.8
"""Of the temperature of the bath, that the second half of a run must have to say anything about it."""

REASON = (
    "forces of a sound surface let no atom pass a repulsive wall and heat nothing faster than the bath does; "
    f"heat alone makes one trajectory in {1 / CHANCE:,.0f} look so. A bond that breaks is no fault"
)


def answers(model: ModelHeat) -> tuple[Answer, ...]:
    """Judge a model by the coolest of its temperatures; what happens at the others is evidence."""
    part = lacking(model.coverage, "trajectories")
    kelvin = model.temperatures[0]
    done = model.done(kelvin)
    threshold = (
        f"at {kelvin:g} K every trajectory of {model.time:g} ps reaches its end: no more than "
        f"{Exploded.factor:g} times this temperature, no atoms within half of their bond length, no missing "
        "answer, no change within 10 fs beyond what a bath allows"
    )
    bad = [one for one in done if one.left or one.spiked]
    evidence = tuple(map(_evidence, sorted(bad or done, key=_badness)[:SHOWN]))
    evidence += tuple(_at(model, other) for other in model.temperatures[1:])
    if bad:
        fault = f"{len(bad)} of {len(done)} trajectories at {kelvin:g} K do not survive"
        return (Answer("survives", "no", threshold, REASON, evidence, f"{fault} ({_why(bad)})", part),)
    warmth = model.warmth(kelvin)
    if done and warmth < WARM * kelvin:
        words = f"the bath heated to no more than {warmth:,.0f} K; run longer with --time"
        evidence = (Evidence(words), *evidence)
    answer: Answered = "yes" if done and warmth >= WARM * kelvin else "unknown"
    evidence = evidence if done else (Evidence("no trajectory has a result"),)
    return (Answer("survives", answer, threshold, REASON, evidence, lacking=part),)


def _badness(one: Hot) -> tuple[bool, float]:
    """Sorts those that left first, then the largest jump in parts of the limit."""
    jump = one.jump / one.limit if math.isfinite(one.jump) else 0.0
    return not one.left, -jump


def _evidence(one: Hot) -> Evidence:
    if one.left:
        return Evidence(
            f"left at {max(one.left_at, 0.0):.3g} ps: {one.left}", where=one.name, anchor="-survival"
        )
    what = f"largest change of the kinetic temperature within 10 fs (a bath allows {one.limit:,.0f} K)"
    return Evidence(what, one.jump, "K", one.name, "-jumps")


def _at(model: ModelHeat, kelvin: float) -> Evidence:
    share = model.survived(kelvin)
    return Evidence(f"{share.k} of {share.n} reach the end at {kelvin:g} K", anchor="-survival")


def _why(bad: list[Hot]) -> str:
    """Kinds of reasons, the most frequent first."""
    kinds = [one.kind or "spike" for one in bad]
    return ", ".join(sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind)))
