"""The contract's results as tables for a terminal 80 columns wide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sfumato.report.numbers import number
from sfumato.report.tables import plain_table
from sfumato.words import duration

if TYPE_CHECKING:
    from sfumato.testing import ContractReport, Result


OTHER = {"not applicable": "n/a", "not checked": "????"}
"""How a check is marked that neither passed nor failed."""


def contract_table(report: ContractReport, reasons: bool = True) -> RenderableType:
    """Return what was checked, what was found against which tolerance, and why that tolerance.

    Args:
        report: of one potential.
        reasons: also what each check means and where its tolerance comes from.
    """
    facts = f"{report.evaluations} evaluations in {duration(report.seconds)}"
    head = Text(f"{report.potential}: contract · {facts}\n", style="bold")
    parts: list[RenderableType] = [head, _results(report)]
    if reasons:
        parts += [Text(), _reasons(report)]
    return Group(*parts, verdict(report))


def verdict(report: ContractReport) -> Text:
    """Return one line: whether the contract holds, which required checks are broken, which were not made."""
    rest = "".join(
        f"; {what}: {', '.join(result.name for result in results)}"
        for what, results in (
            ("not applicable", report.not_applicable),
            ("left out", report.left_out),
            ("could not be checked", report.unchecked),
        )
        if results
    )
    if report.passed:
        return Text(f"\n{report.potential} keeps the contract{rest}", style="bold green")
    if not report.broken:
        return Text(f"\n{report.potential}: nothing broken so far{rest}", style="bold yellow")
    names = ", ".join(result.name for result in report.broken)
    return Text(f"\n{report.potential} breaks the contract: {names}{rest}", style="bold red")


def _results(report: ContractReport) -> Table:
    table = plain_table(None)
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("tolerance", no_wrap=True)
    table.add_column("where", overflow="fold")
    said: set[str] = set()
    for result in report.results:
        if result.status == "left out" or (result.status == "not checked" and result.where in said):
            continue  # named in the last line
        said.add(result.where)
        table.add_row(_mark(result), Text(result.name), *size_of(result), Text(result.where))
    table.caption = (
        "The measured value nearest to its tolerance, or farthest beyond it. 'note': not as it should be, "
        "but reported only; 'n/a': makes no sense for this potential; '????': could not be checked."
    )
    return table


def _reasons(report: ContractReport) -> Table:
    groups: dict[str, list[Result]] = {}
    for result in report.results:
        groups.setdefault(result.reason, []).append(result)
    table = plain_table(None)
    table.add_column("what is checked", overflow="fold", ratio=1)
    table.add_column("its tolerance, and why", overflow="fold", ratio=1)
    for reason, results in groups.items():
        lines = [Text.assemble((result.name, "bold"), f": {result.meaning}") for result in results]
        table.add_row(Text("\n").join(lines), Text(reason))
        table.add_section()
    return table


def _mark(result: Result) -> Text:
    if result.status == "passed":
        return Text("pass", style="green")
    if result.status in OTHER:
        return Text(OTHER[result.status], style="dim")
    return Text("FAIL", style="bold red") if result.required else Text("note", style="yellow")


def size_of(result: Result) -> tuple[str, str]:
    """Return measured value and tolerance with unit; empty where there is none."""
    if math.isnan(result.tolerance):
        return "", ""
    return number(result.measured), f"{number(result.tolerance)} {result.unit}".strip()
