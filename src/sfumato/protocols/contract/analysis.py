"""Records of checks as a report of the contract, and what it answers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.execution.records import Record, RecordError
from sfumato.jobs.job import Task
from sfumato.protocols.contract.data import Structures
from sfumato.protocols.contract.job import ContractCheck, planned
from sfumato.protocols.contract.settings import Settings
from sfumato.protocols.protocol import Result
from sfumato.protocols.verdict import Answer, Answered, Evidence
from sfumato.report.numbers import number
from sfumato.testing import Check, ContractReport
from sfumato.testing import Result as Checked
from sfumato.testing.contract import OWN, QUICK, nothing, rows

STATUSES = ("passed", "failed", "not applicable", "not checked")

GROUPS: dict[str, tuple[str, ...]] = {
    "continuous": (
        "neighbor swap",
        "cutoff",
        "third atom",
        "all pairs",
        "angle",
        "coordination",
        "random paths",
        "in line",
        OWN.name,
    ),
    "gradient": ("net force", "force", "stress", "closed loop", "jacobian"),
    "symmetric": ("permutation", "translation", "wrap", "vacuum", "supercell", "isolated", "charge"),
    "reliable": (
        "accepted",
        "responds",
        "noise",
        "precisions",
        "repeatable",
        "batching",
        "stress given",
        "input untouched",
    ),
    "holes": ("short range",),
}
"""Which checks answer which question; those that are only reported answer none, but for the wall."""

FAULTS = {
    "continuous": "the surface jumps",
    "gradient": "the force is not the gradient",
    "symmetric": "equivalent structures differ",
    "reliable": "answers cannot be relied on",
    "holes": "the repulsive wall has holes",
}

LONGEST = 90
"""Characters of a place in a fault."""


@dataclass(frozen=True, eq=False)
class ModelContract(Result):
    """The contract of one model.

    Args:
        name: of the model.
        report: all checks.
        planned: how many were to be made.
    """

    name: str
    identity: str
    report: ContractReport
    planned: int

    @property
    def coverage(self) -> tuple[int, int]:
        """(checks made, checks to be made)."""
        return self.planned - len(self.report.unchecked), self.planned

    def as_json(self) -> dict[str, Any]:
        """See `Result`."""
        report = {k: v for k, v in self.report.as_json().items() if k not in ("potential", "settings")}
        return report | {"coverage": list(self.coverage)}


def plan(data: Structures, settings: Settings) -> Iterator[Task]:
    """Yield one task per check."""
    job = ContractCheck(settings.asked())
    for asked in planned(job.settings, data.own):
        yield Task(job, asked)


def analyse(
    data: Structures, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelContract:
    """Return the report that the records of the checks make; see `Protocol.analyse`.

    Raises:
        RecordError: a record is not that of a check.
    """
    asked = settings.asked()
    keys = {task.frame.check: task.key(identity) for task in plan(data, settings)}  # type: ignore[attr-defined]
    results, evaluations, seconds = [], 0, 0.0
    for row in rows(asked, len(data.own)):
        if row.name not in keys:
            results.append(nothing(row, "left out", QUICK[row.name]))
            continue
        record = records.get(keys[row.name])
        if record is None or record["status"] != "ok":
            reason = "not made yet" if record is None else record["reason"]
            results.append(nothing(row, "not checked", reason))
            continue
        results.append(_result(row, record))
        evaluations += int(record.get("evaluations") or 0)
        seconds += float(record["seconds"])
    how = asked.model_dump(mode="json")
    report = ContractReport(name, identity, tuple(results), evaluations, seconds, how)
    return ModelContract(name, identity, report, len(keys))


def _result(row: Check, record: Record) -> Checked:
    values = [record.get(key) for key in ("measured", "tolerance")]
    words = [record.get(key) for key in ("unit", "where")]
    sound = all(value is None or type(value) in (int, float) for value in values)
    if record.get("result") not in STATUSES or not sound or not all(type(word) is str for word in words):
        raise RecordError(
            f"damaged record {record['key'][:16]} of the check {row.name!r}. Move its file away."
        )
    measured, tolerance = (math.nan if value is None else float(value) for value in values)
    fixed = (row.name, row.meaning, row.required, record["result"])
    return Checked(*fixed, measured, tolerance, str(words[0]), row.reason, str(words[1]))


# --- answers


def answers(model: ModelContract) -> Iterator[Answer]:
    """Yield what the checks say to each question that any of them is about."""
    for question, names in GROUPS.items():
        results = [result for result in model.report.results if result.name in names]
        made = [r for r in results if r.status in ("passed", "failed")]
        unmade = [r for r in results if r.status == "not checked"]
        if made or unmade:
            yield _answer(question, made, unmade)


def _answer(question: str, made: Sequence[Checked], unmade: Sequence[Checked]) -> Answer:
    failed = [result for result in made if result.status == "failed"]
    answer: Answered = "no" if failed else "unknown" if unmade else "yes"
    shown = failed or sorted(made, key=_excess, reverse=True)[:1]
    fault = f"{FAULTS[question]} ({_place(failed[0])})" if failed else ""
    lacking = f"not checked: {', '.join(r.name for r in unmade)} ({unmade[0].where})" if unmade else ""
    if not shown:
        rule = ("every check within its tolerance", "it is stated with each")
        return Answer(question, answer, *rule, lacking=lacking)
    first = shown[0]
    limit = "" if math.isnan(first.tolerance) else f" ≤ {_size(first.tolerance, first.unit)}"
    evidence = tuple(_evidence(result) for result in shown)
    return Answer(question, answer, f"{first.name}{limit}", first.reason, evidence, fault, lacking)


def _excess(result: Checked) -> float:
    """How near to its tolerance a passed check came."""
    if math.isnan(result.measured) or not result.tolerance > 0:
        return 0.0
    return result.measured / result.tolerance


def _evidence(result: Checked) -> Evidence:
    return Evidence(result.name, result.measured, result.unit, result.where, f"-{slug(result.name)}")


def _place(result: Checked) -> str:
    """Say in a line which check failed, by how much, and where."""
    size = "" if math.isnan(result.measured) else f"{_size(result.measured, result.unit)}, "
    where = result.where if len(result.where) <= LONGEST else f"{result.where[:LONGEST]}…"
    return f"{result.name}: {size}{where}"


def _size(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".strip()


def slug(name: str) -> str:
    """Return the end of the id of a check on the page."""
    return re.sub(r"\W+", "-", name)
