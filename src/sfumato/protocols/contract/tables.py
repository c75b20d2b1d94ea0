"""Tables of the contract for a terminal 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.report.tables import coverage_cell, plain_table, settings_note
from sfumato.testing.tables import contract_table, size_of
from sfumato.words import duration

if TYPE_CHECKING:
    from sfumato.protocols.contract.analysis import ModelContract
    from sfumato.protocols.protocol import Run


def run_tables(run: Run) -> RenderableType:
    """Return every check of one model; of several, how many each passes and what is broken."""
    models: list[ModelContract] = list(run.models.values())
    facts = f"{run.protocol.name} v{run.protocol.version} · {run.data.name} structures\n"
    head = Text(facts, style="bold")
    note = [Text(line) for line in (settings_note(run.settings),) if line]
    if len(models) == 1:
        return Group(head, contract_table(models[0].report, reasons=False), *note)
    return Group(head, _models(models), Text(), _broken(models), *note)


def _models(models: list[ModelContract]) -> RenderableType:
    table = plain_table("Checks")
    table.add_column("model", overflow="fold")
    for heading in ("made", "passed", "failed", "reported"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("evaluations", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for model in models:
        report = model.report
        passed = sum(r.status == "passed" for r in report.results)
        reported = sum(r.status == "failed" and not r.required for r in report.results)
        broken = len(report.broken)
        table.add_row(
            Text(model.name),
            coverage_cell(*model.coverage),
            str(passed),
            Text(str(broken), style="bold red" if broken else ""),
            str(reported),
            str(report.evaluations),
            duration(report.seconds),
        )
    table.caption = "Reported: not as it should be, but the contract holds. The rest does not apply."
    return table


def _broken(models: list[ModelContract]) -> RenderableType:
    table = plain_table("What fails")
    table.add_column("model", overflow="fold")
    table.add_column("check", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("tolerance", no_wrap=True)
    table.add_column("where", overflow="fold")
    for model in models:
        for result in (*model.report.broken, *model.report.unchecked):
            table.add_row(Text(model.name), Text(result.name), *size_of(result), Text(result.where))
    table.caption = "`sfumato check MODEL --explain` says what each check means, and why its tolerance."
    return table if table.rows else Text("No check fails.")
