"""What dynamics at constant energy answers: is energy conserved, the surface continuous, the force right?"""

from __future__ import annotations

import math
from collections.abc import Callable

from sfumato.protocols.nve.analysis import Conserved, ModelConservation
from sfumato.protocols.nve.blame import DRIFT, LEAST_JUMP, MISMATCH
from sfumato.protocols.verdict import Answer, Answered, Evidence, lacking
from sfumato.report.numbers import number

SHOWN = 3
"""Structures named as evidence."""

CONSERVES = (
    f"mean drift ≤ {DRIFT:g} meV/atom/ps and no culprit",
    "at this drift a run of 100 ps warms by 19 K",
)
CONTINUOUS = (
    f"{1e3 * LEAST_JUMP:g} meV unexplained in one interval at a quarter of the step",
    "there a smooth surface leaves less than a hundredth of this",
)
GRADIENT = (
    f"{MISMATCH:g} of the work",
    "smooth surfaces leave a millionth of the work of the force unexplained at a quarter of the step",
)


def answers(model: ModelConservation) -> tuple[Answer, ...]:
    """Judge a model by its dynamics at constant energy."""
    part = lacking(model.coverage, "structures")
    return _conserves(model, part), _continuous(model, part), _gradient(model, part)


def _conserves(model: ModelConservation, part: str) -> Answer:
    culprit, names, reason = model.blame
    drift = model.estimates["drift"]
    worst = sorted(model.done, key=lambda name: -_or(model.done[name].values["drift"], -1.0))[:SHOWN]
    evidence = tuple(
        Evidence("drift", model.done[name].values["signed_drift"], "meV/atom/ps", name, "-drift")
        for name in worst
    )
    if not model.done:
        return Answer(
            "conserves", "unknown", *CONSERVES, (Evidence("no structure has a result"),), lacking=part
        )
    if culprit != "none":
        where = f" in {len(names)} of {len(model.done)} structures" if names else ""
        fault = f"energy is not conserved{where}, to blame: {culprit} ({reason})"
        return Answer("conserves", "no", *CONSERVES, evidence, fault, part)
    if drift.low > DRIFT:
        fault = f"energy drifts by {number(drift.mean)} meV/atom/ps"
        return Answer("conserves", "no", *CONSERVES, evidence, fault, part)
    sure = drift.high <= DRIFT or (math.isnan(drift.high) and drift.mean <= DRIFT)
    if not sure:
        words = (
            f"the interval of the mean drift reaches {number(drift.high)} meV/atom/ps; run longer with --time"
        )
        evidence = (Evidence(words), *evidence)
    return Answer("conserves", "yes" if sure else "unknown", *CONSERVES, evidence, lacking=part)


def _continuous(model: ModelConservation, part: str) -> Answer:
    return _of_residuals(
        model,
        part,
        "continuous",
        CONTINUOUS,
        "surface",
        lambda one: Evidence(
            "largest unexplained change of the energy", one.values["unexplained_jump"], "meV"
        ),
    )


def _gradient(model: ModelConservation, part: str) -> Answer:
    return _of_residuals(
        model,
        part,
        "gradient",
        GRADIENT,
        "forces",
        lambda one: Evidence("part of the work that the energy does not know of", _number(one, "mismatch")),
    )


def _of_residuals(
    model: ModelConservation,
    part: str,
    question: str,
    rule: tuple[str, str],
    culprit: str,
    show: Callable[[Conserved], Evidence],
) -> Answer:
    """Answer a question about the surface from what work leaves unexplained."""
    blamed = {name: one.blame.culprit for name, one in model.done.items() if one.blame is not None}
    bad = [name for name, what in blamed.items() if what == culprit]
    names = bad or list(model.done)
    shown = [(show(model.done[name]), name) for name in names]
    shown.sort(key=lambda pair: -_or(pair[0].value, -1.0))
    evidence = tuple(Evidence(e.what, e.value, e.unit, name, "-drift") for e, name in shown[:SHOWN])
    if bad and not model.driver_failed:
        what = "jumps" if culprit == "surface" else "is not the gradient of the energy"
        subject = "the surface" if culprit == "surface" else "the force"
        fault = f"{subject} {what} in {len(bad)} of {len(blamed)} structures"
        return Answer(question, "no", *rule, evidence, fault, part)
    clear = bool(blamed) and all(what in ("none", "integrator") for what in blamed.values())
    answer: Answered = "yes" if clear and not model.driver_failed else "unknown"
    return Answer(question, answer, *rule, evidence or (Evidence("no structure has a result"),), lacking=part)


def _number(one: Conserved, name: str) -> float:
    return one.blame.numbers[name] if one.blame is not None else math.nan


def _or(value: float, other: float) -> float:
    return value if math.isfinite(value) else other
