"""What users ask of a potential, what protocols answer, and the verdict that all answers together give.

A protocol answers as many of `QUESTIONS` as its numbers can; "yes" is always good. One "no" outweighs any
"yes", since nobody looks everywhere, and "unknown" is never taken for "yes".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sfumato.report.numbers import number
from sfumato.words import nearest

Answered = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class Question:
    """What a user asks of a potential.

    Args:
        words: as a user would ask; "yes" is good.
        broken: whether a potential with the answer "no" is called broken, not only rough.
        ask: how to get an answer, where there is none yet.
    """

    words: str
    broken: bool
    ask: str


QUESTIONS: dict[str, Question] = {
    "continuous": Question("Is the surface continuous?", True, "sfumato run contract"),
    "gradient": Question("Is the force the gradient of the energy?", True, "sfumato run contract"),
    "consistent": Question("Does the work of the force explain the energy?", True, "sfumato run bsct"),
    "reliable": Question("Can its answers be relied on?", True, "sfumato run contract"),
    "symmetric": Question("Is it the same for equivalent structures?", True, "sfumato run contract"),
    "barriers": Question("Is the energy free of false barriers?", False, "sfumato run bsct"),
    "wells": Question("Is the energy free of false wells?", False, "sfumato run bsct"),
    "holes": Question("Is the repulsive wall free of holes?", False, "sfumato run probes"),
    "conserves": Question("Does dynamics conserve the energy?", False, "sfumato run nve"),
    "survives": Question("Does it survive hot dynamics?", False, "sfumato run heat"),
}
"""In the order of their weight."""


@dataclass(frozen=True)
class Evidence:
    """A number that an answer rests on.

    Args:
        what: the number is, for example "lowest order of the work–energy residual".
        value: NaN where there is no number.
        unit: of the value.
        where: the place, for example the name of a scan or a structure.
        anchor: the id of what shows it on the page is that of the run's section, which is the protocol's name
            and the number of the run, followed by this.
    """

    what: str
    value: float = math.nan
    unit: str = ""
    where: str = ""
    anchor: str = ""

    def in_words(self) -> str:
        """Return one line."""
        size = "" if math.isnan(self.value) else f"{number(self.value)} {self.unit}".strip()
        return ", ".join(part for part in (f"{self.what} {size}".strip(), self.where) if part)

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        value = self.value if math.isfinite(self.value) else None
        return {"what": self.what, "value": value, "unit": self.unit, "where": self.where}


@dataclass(frozen=True)
class Answer:
    """What a protocol says to one question about one model.

    Args:
        question: a key of `QUESTIONS`.
        answer: "yes" is good; "unknown" where the numbers at hand cannot tell.
        threshold: what the answer rests on.
        reason: why the threshold is there.
        evidence: the worst first; also for "yes", where it is what came nearest to the threshold.
        fault: what is wrong, in a few words, for example "false barriers up to 0.3 eV"; empty unless "no".
        lacking: what part of what was asked for it does not rest on, for example "2 of 9 scans failed".

    Raises:
        ValueError: an unknown question; a "no" that does not say what is wrong.
    """

    question: str
    answer: Answered
    threshold: str
    reason: str
    evidence: tuple[Evidence, ...] = ()
    fault: str = ""
    lacking: str = ""

    def __post_init__(self) -> None:
        if self.question not in QUESTIONS:
            raise ValueError(f"no question {self.question!r}; {nearest(self.question, QUESTIONS)}")
        if (self.answer == "no") != bool(self.fault):
            raise ValueError(f"{self.question}: 'no' and only 'no' names a fault, got {self.fault!r}")


@dataclass(frozen=True)
class Said:
    """An answer and who gave it.

    Args:
        source: the protocol and its data, for people.
        answer: what it says.
        section: the id of the section of the page that shows the run; empty where there is none.
    """

    source: str
    answer: Answer
    section: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        a = self.answer
        facts = {"source": self.source, "answer": a.answer, "threshold": a.threshold, "reason": a.reason}
        numbers = [piece.as_json() for piece in a.evidence]
        return facts | {"fault": a.fault, "lacking": a.lacking, "numbers": numbers}


@dataclass(frozen=True)
class Verdict:
    """All answers about one model.

    Args:
        said: by all protocols at hand.
        control: whether the model is broken on purpose.
    """

    said: tuple[Said, ...]
    control: bool = False

    @property
    def questions(self) -> list[str]:
        """The questions that any protocol was asked, in the order of their weight."""
        asked = {said.answer.question for said in self.said}
        return [key for key in QUESTIONS if key in asked]

    def of(self, question: str) -> list[Said]:
        """Return who answers a question: those that say "no" first, then "yes", then "unknown"."""
        order = {"no": 0, "yes": 1, "unknown": 2}
        answers = [said for said in self.said if said.answer.question == question]
        return sorted(answers, key=lambda said: order[said.answer.answer])

    def answer(self, question: str) -> Answered:
        """Return the answer of all protocols together: "no" if one says so, "yes" if any and none says no."""
        answers = self.of(question)
        return answers[0].answer.answer if answers else "unknown"

    @property
    def broken(self) -> bool:
        """Whether the potential is no surface at all: it jumps, or its force is not a gradient."""
        return any(self.answer(key) == "no" for key, q in QUESTIONS.items() if q.broken)

    @property
    def sound(self) -> bool:
        """Whether every question that was asked is answered "yes", on all that was asked for."""
        whole = not any(said.answer.lacking for said in self.said)
        return bool(self.said) and whole and all(self.answer(key) == "yes" for key in self.questions)

    @property
    def faults(self) -> list[tuple[str, str]]:
        """(fault, question) of every "no", each fault once, in the order of the questions' weight."""
        every = [
            (said.answer.fault, key) for key in self.questions for said in self.of(key) if said.answer.fault
        ]
        return list(dict(every).items())

    def in_words(self) -> str:
        """Return one line: what is wrong, or that nothing is, and what could not be answered."""
        if not self.said:
            return "unknown: nothing was asked"
        open_ = [key for key in self.questions if self.answer(key) == "unknown"]
        lacking = list(dict.fromkeys(said.answer.lacking for said in self.said if said.answer.lacking))
        faults = "; ".join(fault for fault, _ in self.faults)
        if not faults and len(open_) == len(self.questions):
            line = f"unknown: {'; '.join(lacking) or 'no question could be answered'}"
        else:
            line = ("broken: " if self.broken else "") + (faults or "no fault")
            left = [f"unknown: {', '.join(open_)}"] if open_ else []
            line += f" ({'; '.join(left + lacking)})" if left + lacking else ""
        return line + (" (a control, broken on purpose)" if self.control else "")

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types; `answers` by question."""
        return {
            "sound": self.sound,
            "broken": self.broken,
            "control": self.control,
            "in_words": self.in_words(),
            "answers": {key: self.answer_json(key) for key in self.questions},
        }

    def answer_json(self, key: str) -> dict[str, Any]:
        """Return the answer to one question in JSON types, with the evidence of all who gave one."""
        faults = dict.fromkeys(said.answer.fault for said in self.of(key) if said.answer.fault)
        return {
            "question": QUESTIONS[key].words,
            "answer": self.answer(key),
            "fault": "; ".join(faults),
            "evidence": [said.as_json() for said in self.of(key)],
        }


def unanswered(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the questions that no protocol was asked about any of the models."""
    asked = {key for verdict in verdicts for key in verdict.questions}
    return [key for key in QUESTIONS if key not in asked]


def lacking(coverage: tuple[int, int], unit: str) -> str:
    """Return what part of a result is missing, for `Answer.lacking`; empty where nothing is."""
    n, total = coverage
    return "" if n == total else f"{total - n} of {total} {unit} have no result"
