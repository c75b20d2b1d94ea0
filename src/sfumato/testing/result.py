"""What the contract found: one result per check, and the report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sfumato.words import nearest, plain

Status = Literal["passed", "failed", "not applicable", "left out", "not checked"]
"""`left out` by the settings; `not checked`: the process ended or time was up."""


class NotApplicableError(Exception):
    """A check makes no sense for this potential; the message says why."""


@dataclass(frozen=True)
class Measured:
    """One measured number against its tolerance.

    Args:
        value: what was found, ≥ 0; NaN counts as too large.
        tolerance: the largest value allowed.
        unit: of both.
        where: structure and place.
    """

    value: float
    tolerance: float
    unit: str
    where: str

    @property
    def passed(self) -> bool:
        """Whether the value is within its tolerance."""
        return self.value <= self.tolerance

    @property
    def excess(self) -> float:
        """Value over tolerance, for finding the worst."""
        if math.isnan(self.value) or math.isnan(self.tolerance):
            return math.inf
        if self.tolerance > 0:
            return self.value / self.tolerance
        return 0.0 if self.passed else math.inf


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Args:
        name: short, unique in a report.
        meaning: what it means, in one line.
        required: whether the contract is broken if it fails.
        status: see `Status`.
        measured: the value that came closest to its tolerance, or exceeded it most; NaN if there is none.
        tolerance: for this value; NaN if there is none.
        unit: of both.
        reason: why the tolerance is what it is.
        where: where that value was found; why the check failed without one, or why it is not applicable.
    """

    name: str
    meaning: str
    required: bool
    status: Status
    measured: float
    tolerance: float
    unit: str
    reason: str
    where: str

    @property
    def breaks(self) -> bool:
        """Whether it is a required check that failed."""
        return self.required and self.status == "failed"


@dataclass(frozen=True)
class ContractReport:
    """All results for one potential.

    Args:
        potential: its name.
        identity: SHA-256 of its weights and settings.
        results: in the order of the contract.
        evaluations: structures evaluated.
        seconds: wall time.
        settings: everything that decided the results besides the potential.
    """

    potential: str
    identity: str
    results: tuple[Result, ...]
    evaluations: int
    seconds: float
    settings: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every required check was made, as far as it applies, and none failed."""
        return not self.broken and not any(result.required for result in self.unchecked)

    @property
    def broken(self) -> tuple[Result, ...]:
        """The required checks that failed."""
        return tuple(result for result in self.results if result.breaks)

    @property
    def unchecked(self) -> tuple[Result, ...]:
        """The checks that could not be made: the process ended, or time was up."""
        return tuple(result for result in self.results if result.status == "not checked")

    @property
    def left_out(self) -> tuple[Result, ...]:
        """The required checks that the settings leave out."""
        return tuple(r for r in self.results if r.required and r.status == "left out")

    @property
    def not_applicable(self) -> tuple[Result, ...]:
        """The required checks that make no sense for this potential."""
        return tuple(r for r in self.results if r.required and r.status == "not applicable")

    def __getitem__(self, name: str) -> Result:
        """Return the result of the check of this name."""
        found = {result.name: result for result in self.results}
        if name not in found:
            raise KeyError(f"no check {name!r}; {nearest(name, found)}")
        return found[name]

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED" if self.broken else "NOT CHECKED"
        lines = [f"{self.potential}: {verdict}"]
        lines += [f"  {result.name}: not checked, {result.where}" for result in self.unchecked]
        for result in self.broken:
            numbers = f"{result.measured:.2g} > {result.tolerance:.2g} {result.unit}".rstrip()
            shown = "" if math.isnan(result.tolerance) else f" {numbers},"
            lines.append(f"  {result.name}:{shown} {result.where} ({result.meaning})")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON types; a number that is not finite becomes None."""
        rows = [plain(asdict(result)) for result in self.results]
        facts = {key: getattr(self, key) for key in ("potential", "identity", "evaluations", "seconds")}
        return facts | {"passed": self.passed, "results": rows, "settings": self.settings}
