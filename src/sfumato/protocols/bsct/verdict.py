"""What the scans answer: do energy and force agree, are there false barriers or wells?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sfumato.metrics.work import LEAST
from sfumato.protocols.bsct.analysis import ModelResult
from sfumato.protocols.bsct.measure import residual_name
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.verdict import Answer, Answered, Evidence, lacking
from sfumato.report.numbers import number

THERMAL = 0.025
"""eV, kT at room temperature: a false barrier or well of this height changes what happens in a simulation."""

SHOWN = 3
"""Scans named as evidence."""

AGREE = (
    f"work–energy excess below {1e3 * LEAST:g} meV",
    "between two frames a force can do no more work than its change allows: smooth potentials have no excess "
    "in any scan, however steep; controls that are broken have 1 meV to 100 eV",
)

Scans = Mapping[str, Mapping[str, float]]


def answers(model: ModelResult, settings: Settings) -> tuple[Answer, ...]:
    """Judge a model by its scans.

    Args:
        model: its result.
        settings: it was measured with.
    """
    scans = {name: scan.values for name, scan in model.scans.items() if scan.status == "ok"}
    part = lacking(model.coverage, "scans")
    return (
        *_agreement(scans, residual_name(settings), part),
        _extrema(scans, "barrier", part),
        _extrema(scans, "well", part),
    )


def _agreement(scans: Scans, residual: str, part: str) -> Iterator[Answer]:
    """Whether the work explains the energy; where not, scans cannot tell which of the two is wrong."""
    key = residual.replace("residual", "excess")
    largest = sorted(scans, key=lambda name: -scans[name][key])[:SHOWN]
    some = [name for name in largest if scans[name][key]] or largest[:1]
    what = "largest work–energy excess"
    evidence = tuple(Evidence(what, scans[name][key], "eV", name, "-scan") for name in some)
    bad = sum(values[key] > 0 for values in scans.values())
    fault = f"energy and force disagree in {bad} of {len(scans)} scans" if bad else ""
    if not scans:
        evidence = (Evidence("no scan could be evaluated"),)
    answer: Answered = "unknown" if not scans else "no" if bad else "yes"
    yield Answer("consistent", answer, *AGREE, evidence, fault, part)
    for question in ("continuous", "gradient"):
        yield Answer(question, "yes" if answer == "yes" else "unknown", *AGREE, evidence, lacking=part)


def _extrema(scans: Scans, what: str, part: str) -> Answer:
    key = f"false_{what}"
    rule = (f"{1e3 * THERMAL:g} meV", "less than kT at room temperature changes nothing in a simulation")
    if not scans:
        return Answer(f"{what}s", "unknown", *rule, (Evidence("no scan could be evaluated"),), lacking=part)
    names = sorted(scans, key=lambda name: -scans[name][key])[:SHOWN]
    high = [name for name in names if scans[name][key] >= THERMAL] or names[:1]
    evidence = tuple(_height(name, what, scans[name]) for name in high)
    worst = scans[names[0]][key]
    if worst < THERMAL:
        return Answer(f"{what}s", "yes", *rule, evidence, lacking=part)
    bad = sum(values[key] >= THERMAL for values in scans.values())
    fault = f"false {what}s up to {number(worst)} eV in {bad} of {len(scans)} scans"
    return Answer(f"{what}s", "no", *rule, evidence, fault, part)


def _height(name: str, what: str, values: Mapping[str, float]) -> Evidence:
    height, place = values[f"false_{what}"], values[f"false_{what}_position"]
    if not height:
        return Evidence(f"no false {what} in any scan")
    return Evidence(f"largest false {what}", height, "eV", f"{name} at {number(place)} Å", "-scan")
