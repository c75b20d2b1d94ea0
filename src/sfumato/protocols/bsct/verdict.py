"""What the scans say of a model in plain words: does it hold together, and what is wrong if not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sfumato.protocols.bsct.analysis import ModelResult, residual_name
from sfumato.protocols.bsct.settings import Settings
from sfumato.report.numbers import number

LEAST_ORDER = 1.5
"""Of the work–energy residual: it falls with the third power of the step where energy and force are smooth,
with the first where the force jumps or is not a gradient, and not at all where the energy jumps. Measured:
2.1 to 2.9 for GFN1- and GFN2-xTB, Lennard-Jones, Morse and MinDScAIP, at most 0.8 for the broken controls."""

THERMAL = 0.025
"""eV, kT at room temperature: a false barrier or well of this height changes what happens in a simulation."""

Answered = Literal["yes", "no", "cannot be told"]


@dataclass(frozen=True)
class Answer:
    """One question about a model.

    Args:
        question: in words.
        answer: "yes" is good.
        reason: the worst case, with numbers.
        threshold: what the answer rests on.
        fault: what is wrong, in a few words; empty where nothing is.
    """

    question: str
    answer: Answered
    reason: str
    threshold: str
    fault: str = ""


@dataclass(frozen=True)
class Verdict:
    """All answers about a model.

    Args:
        answers: in the order of their weight.
        coverage: (scans that count, scans of the run).
    """

    answers: tuple[Answer, ...]
    coverage: tuple[int, int]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong and nothing is missing."""
        return all(answer.answer == "yes" for answer in self.answers)

    @property
    def broken(self) -> bool:
        """Whether energy and forces contradict each other."""
        return self.answers[0].answer == "no"

    def in_words(self, full: bool = True) -> str:
        """Return one line: what is wrong, or that nothing was; `full` with numbers and places."""
        n, total = self.coverage
        if not n:
            return "cannot be told: no scan could be evaluated"
        wrong = [a.reason if full else a.fault for a in self.answers if a.answer == "no"]
        part = "" if n == total else f" ({n} of {total} scans)"
        if not wrong:
            return f"no fault on these scans{part}"
        return ("broken: " if self.broken else "") + "; ".join(wrong) + part

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {
            "sound": self.sound,
            "in_words": self.in_words(),
            "answers": [asdict(answer) for answer in self.answers],
        }


def verdict(model: ModelResult, settings: Settings) -> Verdict:
    """Judge a model by its scans.

    Args:
        model: its result.
        settings: it was measured with.
    """
    scans = {name: scan.values for name, scan in model.scans.items() if scan.status == "ok"}
    answers = (
        _agreement(scans, residual_name(settings)),
        _extrema(scans, "barrier", "Is the energy free of false barriers?"),
        _extrema(scans, "well", "Is the energy free of false wells and holes?"),
    )
    return Verdict(answers, model.coverage)


def _agreement(scans: Mapping[str, Mapping[str, float]], residual: str) -> Answer:
    key = residual.replace("residual", "order") + "_full"
    question = "Is the force the gradient of a continuous energy?"
    threshold = (
        f"the work–energy residual falls with the step, order ≥ {LEAST_ORDER:g} (smooth: 3, a jump: 0)"
    )
    known = {name: values for name, values in scans.items() if math.isfinite(values[key])}
    if not known:
        return Answer(question, "cannot be told", "no scan with a residual that can be measured", threshold)
    worst = min(known, key=lambda name: known[name][key])
    order = known[worst][key]
    bad = sum(values[key] < LEAST_ORDER for values in known.values())
    if not bad:
        return Answer(question, "yes", f"lowest order {number(order)}, in {worst}", threshold)
    fault = "energy and force disagree"
    reason = f"{fault} in {bad} of {len(scans)} scans (order {number(order, 1)} in {worst}, smooth is 3)"
    return Answer(question, "no", reason, threshold, fault)


def _extrema(scans: Mapping[str, Mapping[str, float]], what: str, question: str) -> Answer:
    key = f"false_{what}"
    threshold = f"heights below {1e3 * THERMAL:g} meV, kT at room temperature"
    if not scans:
        return Answer(question, "cannot be told", "no scan could be evaluated", threshold)
    worst = max(scans, key=lambda name: scans[name][key])
    height, place = scans[worst][key], scans[worst][f"{key}_position"]
    if height < THERMAL:
        largest = f"largest {number(1e3 * height)} meV, in {worst}" if height else "none"
        return Answer(question, "yes", largest, threshold)
    bad = sum(values[key] >= THERMAL for values in scans.values())
    reason = (
        f"false {what}s in {bad} of {len(scans)} scans (largest {number(height)} eV in {worst} at "
        f"{number(place)} Å)"
    )
    return Answer(question, "no", reason, threshold, f"false {what}s")
